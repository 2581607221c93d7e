"""``toolkit embed``: texts in; a file of vectors, or a folder of shards, out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.confirm import YES, go_on
from toolkit.cli.options import (
    Address,
    ApiKeyEnv,
    Devices,
    Embedder,
    GpusPerWorker,
    Workers,
    listed_devices,
    ray_workers,
    with_key,
)

if TYPE_CHECKING:
    from toolkit.embedding.config import AnyConfig


def embed(
    corpus: Annotated[
        str,
        typer.Argument(help=".txt, .jsonl, .csv (also .gz), .parquet, a BEIR folder or a folder of files"),
    ],
    out: Annotated[
        Path, typer.Option(help=".npy file of vectors, or a folder of shards, which is a vector cache")
    ],
    embedder: Embedder = "static",
    api_key_env: ApiKeyEnv = None,
    devices: Devices = None,
    dim: Annotated[int | None, typer.Option(help="dimension of a .npy file; full by default")] = None,
    role: Annotated[str, typer.Option(help="document or query")] = "document",
    instruction: Annotated[str | None, typer.Option(help="for queries: default, none or a text")] = None,
    ray: Annotated[bool, typer.Option("--ray", help="encode on Ray workers")] = False,
    address: Address = None,
    workers: Workers = None,
    gpus_per_worker: GpusPerWorker = 0.0,
    yes: YES = False,
) -> None:
    """Embed texts: (n, dim) float32 unit rows as .npy, or a corpus of any size into shards that a sweep reads."""
    chosen = with_key(embedder, api_key_env)
    if out.suffix == ".npy":
        on = listed_devices(devices)
        _to_file(
            corpus, out, embedder=chosen, devices=on, dim=dim, role=role, instruction=instruction, yes=yes
        )
        return
    from toolkit import open_embedder
    from toolkit.errors import PlanError
    from toolkit.experiment.outlook import duration
    from toolkit.scale.corpus import embed_corpus
    from toolkit.space import Role

    if dim is not None:
        raise PlanError(f"--dim {dim} is for .npy files: shards hold full vectors; leave it out")
    if out.is_file():
        raise PlanError(f"--out {out} is a file; name a folder for shards, or a file that ends in .npy")
    if ray and devices:
        raise PlanError("--devices and --ray exclude each other; give one of them")
    cluster = ray_workers(ray=ray, address=address, workers=workers, gpus_per_worker=gpus_per_worker)
    if cluster is not None:
        from toolkit.scale.ray_encode import embed_on_ray

        done = embed_on_ray(chosen, corpus, out, on=cluster, role=Role(role), instruction=instruction)
    else:
        from toolkit.scale.corpus import seconds_to_embed

        with open_embedder(chosen, devices=listed_devices(devices)) as engine:
            seconds = seconds_to_embed(engine, corpus, out, role=Role(role), instruction=instruction)
            go_on(f"embed {corpus}: about {duration(seconds)}", seconds, yes=yes)
            done = embed_corpus(engine, corpus, out, role=Role(role), instruction=instruction)
    print(
        f"{out}: {done.texts:,} texts, {done.encoded:,} of them encoded now; use it with TOOLKIT_CACHE={out}"
    )


def _to_file(
    corpus: str,
    out: Path,
    *,
    embedder: str | AnyConfig,
    devices: list[str] | None,
    dim: int | None,
    role: str,
    instruction: str | None,
    yes: bool,
) -> None:
    from toolkit import embed as run
    from toolkit import open_embedder
    from toolkit.data.text_files import read_texts
    from toolkit.embedding.cache import VectorCache
    from toolkit.embedding.row_files import write_rows
    from toolkit.experiment.outlook import duration, encode_seconds
    from toolkit.space import Role

    texts, cache = read_texts(corpus), VectorCache()
    with open_embedder(embedder, devices=devices) as engine:
        rendered = [engine.space.render(text, Role(role), instruction) for text in texts]
        seconds = encode_seconds(engine, rendered, cache)
        go_on(f"embed {len(texts):,} texts: about {duration(seconds)}", seconds, yes=yes)
        rows = run(engine, texts, dim=dim, role=role, instruction=instruction, cache=cache)
    write_rows(out, rows)
    print(f"{out}: {rows.shape[0]} x {rows.shape[1]} float32")
