"""``toolkit plan``: what a corpus that is not there yet will take, from measured rates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.options import Embedder


def plan(
    documents: Annotated[str, typer.Option(help="10M, 1B, 250k, 1e6")],
    tokens: Annotated[float, typer.Option(help="of one document, on average")],
    embedder: Embedder = "static",
    dim: Annotated[int | None, typer.Option(help="dimension of the index; full by default")] = None,
    precision: Annotated[str, typer.Option(help="of the index: float32, float16 or int8")] = "float32",
    index: Annotated[str, typer.Option(help="Flat, IVF or HNSW, its arguments follow the size")] = "IVF",
    gpus: Annotated[int, typer.Option(help="that encode")] = 1,
    cores: Annotated[int, typer.Option(help="that build the index")] = 32,
    query_tokens: Annotated[float, typer.Option(help="of one query, on average")] = 18.0,
    rates: Annotated[
        Path | None, typer.Option(help="what toolkit bench encode --json printed; else recorded ones")
    ] = None,
    price_file: Annotated[Path | None, typer.Option(help="TOML with your prices")] = None,
) -> None:
    """Estimate time, money and storage of encoding, indexing and serving, each with its formula."""
    from toolkit.capacity.estimate import estimate
    from toolkit.capacity.rates import encode_rates, index_rates
    from toolkit.decide.cost import parse_count, read_prices

    print(
        estimate(
            parse_count(documents),
            tokens,
            encode_rates(embedder, rates),
            index_rates(),
            dim=dim,
            precision=precision,
            kind=index,
            gpus=gpus,
            cores=cores,
            query_tokens=query_tokens,
            prices=None if price_file is None else read_prices(price_file),
        )
    )
