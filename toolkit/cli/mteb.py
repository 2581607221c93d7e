"""``toolkit mteb``: mteb's tasks at every dimension."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.confirm import YES, go_on
from toolkit.cli.options import DIMS, ApiKeyEnv, Embedder, listed, with_key


def mteb(
    out: Annotated[Path, typer.Option(help="results folder; mteb reads it too")],
    embedder: Embedder = "static",
    api_key_env: ApiKeyEnv = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option(help="mteb task names or local data; repeatable, or between commas"),
    ] = None,
    benchmark: Annotated[str | None, typer.Option(help="name of an mteb benchmark")] = None,
    languages: Annotated[
        list[str] | None, typer.Option(help="ISO 639-3 codes; repeatable, or between commas")
    ] = None,
    dims: Annotated[str, typer.Option(help=DIMS)] = "auto",
    instruction: Annotated[
        list[str] | None,
        typer.Option(
            help="task (each task's own prompt), default (the model's own instruction, as in toolkit sweep), "
            "none or a text; repeatable"
        ),
    ] = None,
    yes: YES = False,
) -> None:
    """Run mteb tasks at every dimension from one encode; goes on where an earlier run stopped."""
    from toolkit.embedding.cache import VectorCache
    from toolkit.embedding.open import open_embedder
    from toolkit.experiment.outlook import duration
    from toolkit.experiment.plan import auto_dims, parse_dims
    from toolkit.mteb_adapter import benchmark_means, open_tasks, score_kept, sweep_tasks
    from toolkit.mteb_adapter.outlook import seconds_of_tasks
    from toolkit.report.mteb_charts import write_mteb_report

    chosen = parse_dims(dims)
    opened = open_tasks(listed(tasks) or (), benchmark=benchmark, languages=listed(languages))
    engine = open_embedder(with_key(embedder, api_key_env))
    seconds, unknown = seconds_of_tasks(engine, opened, instructions=len(instruction or "1"))
    more = f", and {unknown} tasks of unknown size" if unknown else ""
    go_on(f"{len(opened)} tasks: about {duration(seconds)} of encoding at most{more}", seconds, yes=yes)
    frame = sweep_tasks(
        engine,
        opened,
        dims=auto_dims(engine.space.full_dim) if chosen == "auto" else chosen,
        instructions=instruction or ("task",),
        out=out,
        cache=VectorCache(),
    )
    kept = score_kept(frame)
    write_mteb_report(out, frame=frame, kept=kept, means=benchmark_means(frame))
    print(f"tables and charts: {out}")
    print(kept.drop(columns="revision").to_string(index=False))
