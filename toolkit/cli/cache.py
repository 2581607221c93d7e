"""``toolkit cache``: the vectors that are kept on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from toolkit.cli.confirm import YES, confirmed
from toolkit.cli.examples import EXAMPLES, examples

cache = typer.Typer(
    help="List and remove the vectors that are kept on this machine ($TOOLKIT_CACHE).",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@cache.command("ls", epilog=examples(*EXAMPLES["cache ls"]))
def ls() -> None:
    """List the models whose vectors are kept: how many, how large, since when."""
    from toolkit.embedding.cache_folder import cached_spaces
    from toolkit.files import cache_folder

    spaces = cached_spaces(cache_folder())
    rows = [
        (
            space.name[:8],
            f"{space.vectors:,}",
            str(space.full_dim),
            f"{space.size_bytes / 1e6:,.1f} MB",
            f"{space.written:%Y-%m-%d}",
            f"{space.model} ({space.engine}, {space.dtype})",
        )
        for space in spaces
    ]
    if rows:
        rows.insert(0, ("id", "vectors", "dim", "size", "written", "model"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *middle, last in rows:
        padded = (text.rjust(width) for text, width in zip(middle, widths[1:-1], strict=True))
        print("  ".join([name.ljust(widths[0]), *padded, last]))
    print(f"{cache_folder()}: {sum(space.size_bytes for space in spaces) / 1e6:,.1f} MB")


@cache.command(epilog=examples(*EXAMPLES["cache clear"]))
def clear(
    names: Annotated[
        list[str] | None, typer.Argument(help="ids as `toolkit cache ls` lists them, or model names")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="the vectors of all models")] = False,
    yes: YES = False,
) -> None:
    """Remove kept vectors; what is still needed is encoded again. Asks before it does."""
    from toolkit.embedding.cache_folder import cached_spaces, chosen, remove
    from toolkit.errors import PlanError
    from toolkit.files import cache_folder

    if bool(names) == everything:
        raise PlanError("name the models to remove (toolkit cache ls lists them), or give --all alone")
    spaces = cached_spaces(cache_folder())
    spaces = spaces if everything else chosen(spaces, names)
    vectors = sum(space.vectors for space in spaces)
    size = sum(space.size_bytes for space in spaces)
    what = f"{vectors:,} vectors of {len(spaces)} models, {size / 1e6:,.1f} MB"
    if spaces and not confirmed(f"remove {what}", yes=yes, unasked=False):
        raise typer.Exit(1)
    print(f"removed {what}: {remove(spaces) / 1e6:,.1f} MB are free")
