"""``toolkit claims``: what is claimed of the model, measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.options import Embedder, listed


def claims(
    embedder: Embedder = "static",
    data: Annotated[
        Path | None,
        typer.Option(help="folder that holds tatoeba, xquad, qmsum, stard_goldpool, policyqa, cosqa .."),
    ] = None,
    server: Annotated[str | None, typer.Option(help="http://host:port/v1#<model>")] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="start a server over the embedder for what is claimed of servers")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="keys of claims; repeatable, or between commas")
    ] = None,
    most: Annotated[
        int, typer.Option(help="queries, pairs or documents of a measurement at most; 0 takes all")
    ] = 2_000,
    repeats: Annotated[int, typer.Option(help="samples of each latency")] = 100,
    out: Annotated[
        Path, typer.Option(help="folder for claims.html and claims.json; other claims there stay")
    ] = Path("results/claims"),
) -> None:
    """Measure what is claimed of Qwen3-Embedding-4B's dimensions: a verdict, figure and command for each claim."""
    from toolkit.claims.run import HTML, measure_claims

    found = measure_claims(
        embedder,
        data=data,
        server=server,
        serve=serve,
        only=listed(only),
        most=most,
        repeats=repeats,
        out=out,
    )
    print(found)
    print(f"page: {out / HTML}")
