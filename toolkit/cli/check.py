"""``toolkit check``: whether an embedding server does what its API promises."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.options import DATA, ApiKeyEnv


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
    api_key_env: ApiKeyEnv = None,
    timeout_s: Annotated[float, typer.Option(help="of one request")] = 60.0,
) -> None:
    """Check a server; exit code 0 if nothing fails, 1 if something does, 2 if it could not be checked."""
    from rich.console import Console

    from toolkit import check as run
    from toolkit.files import write_json

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
        write_json(json_file, found.to_dict())
    Console().print(found)
    if not found.conformant:
        raise typer.Exit(1)
