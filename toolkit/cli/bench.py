"""``toolkit bench``: speed of an embedder on this machine, and of a server anywhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.examples import EXAMPLES, examples
from toolkit.cli.options import DIMS, ApiKeyEnv, Embedder, numbers, with_key

bench = typer.Typer(
    help="Measure speed: of an embedder on this machine, or of a server.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@bench.callback()
def _bench() -> None:
    pass


@bench.command(epilog=examples(*EXAMPLES["bench encode"]))
def encode(
    embedder: Embedder = "static",
    api_key_env: ApiKeyEnv = None,
    workload: Annotated[str, typer.Option(help="passages, queries, long, or a file of texts")] = "passages",
    dims: Annotated[str | None, typer.Option(help=f"to time single queries at: {DIMS}")] = None,
    repeats: Annotated[int, typer.Option(help="timed passes over the workload")] = 3,
    budget_s: Annotated[
        float, typer.Option(help="seconds the passes may take on a CPU; 0 measures the whole workload")
    ] = 60.0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="write the rates here, for toolkit plan --rates")
    ] = None,
) -> None:
    """Measure tokens/s, texts/s, MFU, peak memory, and single-query latency at each dimension."""
    from toolkit.embedding.open import open_embedder
    from toolkit.experiment.encode_speed import SpeedPlan, measure_encode
    from toolkit.experiment.plan import auto_dims, parse_dims
    from toolkit.files import write_json

    chosen = None if dims is None else parse_dims(dims)
    engine = open_embedder(with_key(embedder, api_key_env))
    full = engine.space.full_dim
    chosen = auto_dims(full) if chosen == "auto" else chosen or [full]
    plan = SpeedPlan(dims=tuple(chosen), repeats=repeats, budget_s=budget_s or None)
    speed = measure_encode(engine, workload, plan=plan, announce=print)
    if json_file is not None:
        write_json(json_file, {"spec": embedder, "full_dim": full} | speed.as_dict())
    print(speed)


@bench.command(epilog=examples(*EXAMPLES["bench serve"]))
def serve(
    url: Annotated[
        str, typer.Argument(help="http://host:port/v1#<model>, or ending in /embed, /v2/embed or /api/embed")
    ],
    model: Annotated[str | None, typer.Option(help="name the server knows it by; else its only one")] = None,
    concurrency: Annotated[
        list[str] | None,
        typer.Option(help="clients at once, between commas; each sends when it has its answer"),
    ] = None,
    rate: Annotated[
        list[str] | None,
        typer.Option(
            help="requests per second instead, whatever the server does; repeatable, or between commas"
        ),
    ] = None,
    workload: Annotated[str, typer.Option(help="queries, passages, long, or a file of texts")] = "queries",
    dims: Annotated[str | None, typer.Option("--dims", "--dim", help=f"to ask for: {DIMS}")] = None,
    texts_per_request: Annotated[
        list[str] | None, typer.Option(help="sizes of request, small against large: 1,10,100")
    ] = None,
    seconds: Annotated[float, typer.Option(help="of each load")] = 10.0,
    processes: Annotated[
        int | None, typer.Option(help="of clients; one for each 32 clients by default")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the table here")] = None,
    api_key_env: ApiKeyEnv = None,
    timeout_s: Annotated[float, typer.Option(help="of one request")] = 60.0,
) -> None:
    """Measure a server: requests/s and latencies by clients, dimension and size of request.

    Exit code 1 if a request failed, 2 if the server could not be measured.
    """
    from rich.console import Console

    from toolkit.conformance.speed import ServerPlan, measure_server
    from toolkit.experiment.plan import parse_dims
    from toolkit.files import write_json

    chosen = None if dims is None else parse_dims(dims)
    plan = ServerPlan(
        clients=numbers("--concurrency", concurrency or ["1,8,32,128"], int),
        rates=numbers("--rate", rate or [], float),
        dims=tuple(chosen) if isinstance(chosen, list) else chosen,
        texts_per_request=numbers("--texts-per-request", texts_per_request or ["1"], int),
        seconds=seconds,
        processes=processes,
        timeout_s=timeout_s,
    )
    found = measure_server(
        url,
        model=model,
        workload=workload,
        plan=plan,
        api_key_env=api_key_env,
        announce=lambda line: print(line, file=sys.stderr),
    )
    if json_file is not None:
        write_json(json_file, found.to_dict())
    Console().print(found)
    if any(result.failures for result in found.results):
        raise typer.Exit(1)
