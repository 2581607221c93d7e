"""``toolkit recommend``: the cheapest setting of a results folder that will do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.options import Folder


def recommend(
    folder: Folder,
    keep: Annotated[float, typer.Option(help="share of the full setting's quality to keep")] = 0.99,
    metric: Annotated[str | None, typer.Option(help="ndcg@10, recall@100 ..; else the sweep's first")] = None,
    max_bytes_per_vector: Annotated[float | None, typer.Option(help="limit on stored bytes")] = None,
    max_p95_ms: Annotated[float | None, typer.Option(help="limit on single-query latency")] = None,
    corpus_size: Annotated[str | None, typer.Option(help="documents to plan for: 250k, 1e6, 10M")] = None,
    price_file: Annotated[Path | None, typer.Option(help="TOML with your prices")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="print everything as JSON: settings with arguments, shares, costs")
    ] = False,
) -> None:
    """Print the cheapest setting that keeps the quality asked for, with 95 % confidence."""
    from toolkit import recommend as run
    from toolkit.decide.cost import parse_count, read_prices

    recommendation = run(
        folder,
        keep=keep,
        metric=metric,
        max_bytes_per_vector=max_bytes_per_vector,
        max_p95_ms=max_p95_ms,
        corpus_size=None if corpus_size is None else parse_count(corpus_size),
        prices=None if price_file is None else read_prices(price_file),
    )
    print(json.dumps(recommendation.as_dict(), indent=2, ensure_ascii=False) if as_json else recommendation)
