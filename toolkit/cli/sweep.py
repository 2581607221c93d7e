"""``toolkit sweep``: the fields of a plan as options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.confirm import YES, go_on
from toolkit.cli.group import Stopped
from toolkit.cli.options import (
    DATA,
    DIMS,
    EMBEDDER,
    Address,
    ApiKeyEnv,
    Devices,
    GpusPerWorker,
    Workers,
    complete_data,
    complete_embedder,
    listed,
    listed_devices,
    ray_workers,
    with_key,
)
from toolkit.cli.words import as_options
from toolkit.errors import PlanError


def sweep(
    plan: Annotated[Path | None, typer.Argument(help="TOML plan; the options below override it")] = None,
    out: Annotated[Path, typer.Option(help="results folder to write")] = Path("results/sweep"),
    embedder: Annotated[
        list[str] | None,
        typer.Option(help=f"{EMBEDDER}; repeatable, to compare models", autocompletion=complete_embedder),
    ] = None,
    api_key_env: ApiKeyEnv = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help=f"{DATA}; repeatable, one results folder for each", autocompletion=complete_data),
    ] = None,
    dims: Annotated[str | None, typer.Option(help=DIMS)] = None,
    precision: Annotated[
        list[str] | None, typer.Option(help="float32, float16, int8 ..; repeatable, or between commas")
    ] = None,
    index: Annotated[
        list[str] | None, typer.Option(help="Flat, HNSW32, IVF256 or any FAISS factory string; repeatable")
    ] = None,
    instruction: Annotated[list[str] | None, typer.Option(help="default, none or a text; repeatable")] = None,
    rescore: Annotated[
        list[int] | None,
        typer.Option(help="also score so many candidates again at the full dimension; repeatable"),
    ] = None,
    k: Annotated[int | None, typer.Option(help="neighbours kept")] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="ndcg@10, recall@100 ..; repeatable, or between commas; settings are judged by the first"
        ),
    ] = None,
    max_queries: Annotated[
        int | None, typer.Option(help="sample larger sets to so many queries; 0 measures all")
    ] = None,
    unlabelled: Annotated[
        Path | None,
        typer.Option(
            help="queries without judgements, one per line (or .csv, .tsv, .jsonl): searched too, for what "
            "rankings alone tell"
        ),
    ] = None,
    max_unlabelled: Annotated[
        int | None, typer.Option(help="at most so many queries without judgements; 0 searches none")
    ] = None,
    clusters: Annotated[
        Path | None, typer.Option(help="file of query ids and clusters: queries that are not independent")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="of samples, k-means and graphs")] = None,
    devices: Devices = None,
    ray: Annotated[
        bool,
        typer.Option("--ray", help="exact search on Ray workers; encode on them before, with embed --ray"),
    ] = False,
    address: Address = None,
    workers: Workers = None,
    gpus_per_worker: GpusPerWorker = 0.0,
    resume: Annotated[bool, typer.Option("--resume", help="add to the sweep that is in the folder")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace the sweep that is in the folder")
    ] = False,
    yes: YES = False,
) -> None:
    """Measure every setting from a single encode; write tables, charts and a report."""
    from toolkit import sweep_several
    from toolkit.decide.evidence import headline
    from toolkit.experiment.folder import begun
    from toolkit.experiment.plan import parse_dims
    from toolkit.experiment.several import names_several
    from toolkit.notebook.front import swept

    fields = {
        "dims": None if dims is None else parse_dims(dims),
        "precisions": listed(precision),
        "indexes": index or None,
        "instructions": instruction or None,
        "rescore": [{"candidates": number} for number in rescore] if rescore else None,
        "k": k,
        "metrics": listed(metric),
        "max_queries": max_queries,
        "unlabelled": unlabelled,
        "max_unlabelled": max_unlabelled,
        "clusters": clusters,
        "seed": seed,
    }
    again = {"resume": resume, "overwrite": overwrite}
    on = listed_devices(devices)
    cluster = ray_workers(ray=ray, address=address, workers=workers, gpus_per_worker=gpus_per_worker)
    if api_key_env is not None and len(embedder or ()) > 1:
        raise PlanError("--api-key-env is for one server: sweep the embedders one after another")
    if len(embedder or ()) > 1 or len(data or ()) > 1 or (plan is not None and names_several(plan)):
        if on is not None or cluster is not None:
            option = "--ray" if on is None else "--devices"
            raise PlanError(f"{option} is for one embedder on one set: sweep them one after another")
        found = sweep_several(plan, out=out, embedders=embedder or None, data=data or None, **again, **fields)
        print(f"report: {out / 'comparison.html'}")
        print(found.headline)
        return
    [only], [of] = embedder or [None], data or [None]
    before = begun(out)
    try:
        view = swept(
            plan,
            out=out,
            embedder=with_key(only, api_key_env),
            data=of,
            devices=on,
            ray=cluster,
            unlabelled=fields.pop("unlabelled"),
            fields=fields,
            **again,
            cache=None,
            progress=True,
            before=lambda outlook: go_on(str(outlook), outlook.seconds, yes=yes),
        )
    except KeyboardInterrupt:
        # What was there is gone by now; the option would remove what this run measured as well.
        raise Stopped(without=["--overwrite"] if begun(out) != before else []) from None
    for note in view.results.notes:
        print(f"note: {as_options(note)}")
    print(f"report: {out / 'report.html'}")
    print(headline(view.results))
