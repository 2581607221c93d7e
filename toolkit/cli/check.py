"""``toolkit check``: whether an embedding server does what its API promises."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.options import DATA


def check(
    url: Annotated[
        str, typer.Argument(help="http://host:port/v1, or ending in /embed, /v2/embed or /api/embed")
    ],
    model: Annotated[str, typer.Option(help="name the server knows it by")],
    reference: Annotated[
        str | None, typer.Option(help="the same model here, to compare with: local:<hub id or folder>")
    ] = None,
    data: Annotated[str | None, typer.Option(help=f"to tell what findings cost in nDCG@10: {DATA}")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="write all findings here")] = None,
    risky: Annotated[bool, typer.Option("--risky", help="also send what could take the server down")] = False,
    api_key_env: Annotated[
        str | None, typer.Option(help="environment variable with the key, sent to this server only")
    ] = None,
    timeout_s: Annotated[float, typer.Option(help="of one request")] = 60.0,
) -> None:
    """Check a server; exit code 0 if nothing fails, 1 if something does, 2 if it could not be checked."""
    import json

    from rich.console import Console

    from toolkit import check as run
    from toolkit.files import write_atomically

    found = run(
        url,
        model=model,
        reference=reference,
        data=data,
        risky=risky,
        api_key_env=api_key_env,
        timeout_s=timeout_s,
    )
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(
            json_file, (json.dumps(found.to_dict(), indent=1, ensure_ascii=False) + "\n").encode()
        )
    Console().print(found)
    if not found.conformant:
        raise typer.Exit(1)
