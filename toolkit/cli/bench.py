"""``toolkit bench``: speed on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from toolkit.cli.examples import EXAMPLES, examples
from toolkit.cli.options import DIMS, Embedder

bench = typer.Typer(help="Measure speed on this machine.", no_args_is_help=True, rich_markup_mode=None)


@bench.callback()
def _bench() -> None:
    pass


@bench.command(epilog=examples(*EXAMPLES["bench encode"]))
def encode(
    embedder: Embedder = "static",
    workload: Annotated[str, typer.Option(help="passages, queries, long, or a file of texts")] = "passages",
    dims: Annotated[str | None, typer.Option(help=f"to time single queries at: {DIMS}")] = None,
    repeats: Annotated[int, typer.Option(help="timed passes over the workload")] = 3,
    budget_s: Annotated[
        float, typer.Option(help="seconds the passes may take on a CPU; 0 measures the whole workload")
    ] = 60.0,
) -> None:
    """Measure tokens/s, texts/s, MFU, peak memory, and single-query latency at each dimension."""
    from toolkit.embedding.open import open_embedder
    from toolkit.experiment.encode_speed import SpeedPlan, measure_encode
    from toolkit.experiment.plan import auto_dims, parse_dims

    chosen = None if dims is None else parse_dims(dims)
    engine = open_embedder(embedder)
    full = engine.space.full_dim
    chosen = auto_dims(full) if chosen == "auto" else chosen or [full]
    plan = SpeedPlan(dims=tuple(chosen), repeats=repeats, budget_s=budget_s or None)
    print(measure_encode(engine, workload, plan=plan, announce=print))
