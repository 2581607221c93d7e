"""The command line: options in, one call, a few lines out. Holds no logic of its own."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from toolkit import __version__
from toolkit.errors import ToolkitError, ToolkitWarning

app = typer.Typer(
    help="Measure which embedding dimension, precision, index and instruction your data needs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_EMBEDDER = "static, local:<hub id or folder>, or http://host:port/v1#<model>"
_DATA = "builtin, beir:<folder>[@split], pairs:<file.tsv>[@split] or mteb:<task>"

Embedder = Annotated[str, typer.Option(help=_EMBEDDER)]
Folder = Annotated[Path, typer.Argument(help="results folder that toolkit sweep wrote")]


def main() -> None:
    """Run the command line; a toolkit error is one line on stderr and exit code 2."""
    plain = warnings.showwarning

    def show(message, category, *rest, **more) -> None:  # noqa: ANN001
        if issubclass(category, ToolkitWarning):
            print(f"warning: {message}", file=sys.stderr)
        else:
            plain(message, category, *rest, **more)

    warnings.showwarning = show
    try:
        app()
    except ToolkitError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; what was computed is kept: the same command continues from it", file=sys.stderr)
        sys.exit(130)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"toolkit {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    pass


@app.command()
def sweep(
    plan: Annotated[Path | None, typer.Argument(help="TOML plan; the options below override it")] = None,
    out: Annotated[Path, typer.Option(help="results folder to write")] = Path("results/sweep"),
    embedder: Annotated[str | None, typer.Option(help=_EMBEDDER)] = None,
    data: Annotated[str | None, typer.Option(help=_DATA)] = None,
    dims: Annotated[str | None, typer.Option(help="dimensions between commas, or auto")] = None,
    precision: Annotated[list[str] | None, typer.Option(help="float32, float16, int8 ..; repeatable")] = None,
    index: Annotated[list[str] | None, typer.Option(help="FAISS factory string; repeatable")] = None,
    instruction: Annotated[list[str] | None, typer.Option(help="default, none or a text; repeatable")] = None,
    k: Annotated[int | None, typer.Option(help="neighbours kept")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="add to the sweep that is in the folder")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace the sweep that is in the folder")
    ] = False,
) -> None:
    """Measure every setting from a single encode; write tables, charts and a report."""
    from toolkit import sweep as run
    from toolkit.decide.evidence import headline
    from toolkit.experiment.plan import parse_dims

    fields = {
        "embedder": embedder,
        "data": data,
        "dims": parse_dims(dims) if dims else None,
        "precisions": precision,
        "indexes": index,
        "instructions": instruction,
        "k": k,
    }
    chosen = {name: value for name, value in fields.items() if value}
    view = run(plan, out=out, resume=resume, overwrite=overwrite, **chosen)
    for note in view.results.notes:
        print(f"note: {note}")
    print(f"report: {out / 'report.html'}")
    print(headline(view.results))


@app.command()
def report(folder: Folder) -> None:
    """Draw the charts and the report of a results folder again; needs neither model nor FAISS."""
    from toolkit.decide.evidence import headline
    from toolkit.experiment.results import Results
    from toolkit.report.write import write_report

    results = Results.load(folder)
    print(f"report: {write_report(results)}")
    print(headline(results))


@app.command()
def embed(
    file: Annotated[Path, typer.Argument(help="texts, one a line, or .jsonl with a text field")],
    out: Annotated[Path, typer.Option(help=".npy file to write")],
    embedder: Embedder = "static",
    dim: Annotated[int | None, typer.Option(help="embedding dimension; full by default")] = None,
    role: Annotated[str, typer.Option(help="document or query")] = "document",
    instruction: Annotated[str | None, typer.Option(help="for queries: default, none or a text")] = None,
) -> None:
    """Embed the texts of a file; writes (n, dim) float32 unit rows."""
    from toolkit import embed as run
    from toolkit.data.text_files import read_texts
    from toolkit.embedding.cache import VectorCache
    from toolkit.embedding.row_files import write_rows

    rows = run(embedder, read_texts(file), dim=dim, role=role, instruction=instruction, cache=VectorCache())
    write_rows(out, rows)
    print(f"{out}: {rows.shape[0]} x {rows.shape[1]} float32")


@app.command()
def recommend(
    folder: Folder,
    keep: Annotated[float, typer.Option(help="share of the full setting's quality to keep")] = 0.99,
    metric: Annotated[str | None, typer.Option(help="ndcg@10, recall@100 ..; else the sweep's first")] = None,
    max_bytes_per_vector: Annotated[float | None, typer.Option(help="limit on stored bytes")] = None,
    max_p95_ms: Annotated[float | None, typer.Option(help="limit on single-query latency")] = None,
    corpus_size: Annotated[str | None, typer.Option(help="documents to plan for: 250k, 10M")] = None,
    price_file: Annotated[Path | None, typer.Option(help="TOML with your prices")] = None,
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
        corpus_size=parse_count(corpus_size) if corpus_size else None,
        prices=read_prices(price_file) if price_file else None,
    )
    print(recommendation)


@app.command()
def mteb(
    out: Annotated[Path, typer.Option(help="results folder; mteb reads it too")],
    embedder: Embedder = "static",
    tasks: Annotated[str | None, typer.Option(help="mteb task names or local data, between commas")] = None,
    benchmark: Annotated[str | None, typer.Option(help="name of an mteb benchmark")] = None,
    languages: Annotated[str | None, typer.Option(help="ISO 639-3 codes between commas")] = None,
    dims: Annotated[str, typer.Option(help="dimensions between commas, or auto")] = "auto",
    instruction: Annotated[
        list[str] | None,
        typer.Option(
            help="task (each task's own prompt), default (the model's own instruction, as in toolkit sweep), "
            "none or a text; repeatable"
        ),
    ] = None,
) -> None:
    """Run mteb tasks at every dimension from one encode; goes on where an earlier run stopped."""
    from toolkit.embedding.cache import VectorCache
    from toolkit.embedding.open import open_embedder
    from toolkit.experiment.plan import auto_dims, parse_dims
    from toolkit.mteb_adapter import benchmark_means, open_tasks, score_kept, sweep_tasks
    from toolkit.report.mteb_charts import write_mteb_report

    opened = open_tasks(
        tasks.split(",") if tasks else (),
        benchmark=benchmark,
        languages=languages.split(",") if languages else None,
    )
    engine = open_embedder(embedder)
    chosen = parse_dims(dims)
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


bench = typer.Typer(help="Measure speed on this machine.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(bench, name="bench")


@bench.callback()
def _bench() -> None:
    pass


@bench.command()
def encode(
    embedder: Embedder = "static",
    workload: Annotated[str, typer.Option(help="passages, queries, long, or a file of texts")] = "passages",
    dims: Annotated[str | None, typer.Option(help="dimensions to time single queries at, or auto")] = None,
    repeats: Annotated[int, typer.Option(help="timed passes over the workload")] = 3,
    budget_s: Annotated[
        float, typer.Option(help="seconds the passes may take on a CPU; 0 measures the whole workload")
    ] = 60.0,
) -> None:
    """Measure tokens/s, texts/s, MFU, peak memory, and single-query latency at each dimension."""
    from toolkit.embedding.open import open_embedder
    from toolkit.experiment.encode_speed import SpeedPlan, measure_encode
    from toolkit.experiment.plan import auto_dims, parse_dims

    engine = open_embedder(embedder)
    chosen = parse_dims(dims) if dims else [engine.space.full_dim]
    chosen = auto_dims(engine.space.full_dim) if chosen == "auto" else chosen
    plan = SpeedPlan(dims=tuple(chosen), repeats=repeats, budget_s=budget_s or None)
    print(measure_encode(engine, workload, plan=plan, announce=print))
