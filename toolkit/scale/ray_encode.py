"""A corpus into a folder of shards on Ray workers, of this machine or of a cluster.

Ray Data carries spans of files to readers, and their texts in batches to actors; each actor opens the embedder from
its config and writes shards of its own. Nothing but counts comes back. A batch is done when its vectors are on disk:
what a killed worker or node had in hand is read and encoded again, less what it had written; a killed driver loses
no more than that, and the same command goes on. Readers wait while the actors are busy (Ray Data's back-pressure),
so memory stays that of a few batches. On several machines, corpus and folder lie on storage that all of them mount.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data.corpus_parts import CorpusPart, corpus_parts, part_texts
from toolkit.embedding.cache import VectorCache
from toolkit.embedding.config import AnyConfig, parse_spec
from toolkit.embedding.fill import Filled, Filler
from toolkit.embedding.open import open_embedder
from toolkit.errors import PlanError, ServerError, ToolkitError
from toolkit.progress import progress_bar
from toolkit.scale.corpus import Embedded, check_role, finished
from toolkit.scale.ray_workers import RayWorkers, on_ray, reason
from toolkit.space import EmbeddingSpace, Role

_SHARD_BYTES = 64 * 2**20
_BATCH_TEXTS = 16_384  # at most: enough to sort by length, few enough that all workers end together
_LEAST_BATCH_TEXTS = 1_024
# What one reader hands on at a time: small, so that a corpus of some 10,000 texts already occupies several actors.
_PART_BYTES = 8 * 2**20
_MOST_READS = 10_000


def embed_on_ray(
    spec: str | AnyConfig,
    corpus: str | Path,
    out: str | Path,
    *,
    on: RayWorkers | None = None,
    role: Role = Role.DOCUMENT,
    instruction: str | None = None,
    progress: bool = True,
) -> Embedded:
    """`corpus.embed_corpus` on Ray workers, with equal vectors.

    spec : an embedder's spec or config, which every actor opens; plug-ins must be installed where they run.

    Equal texts that two actors have in hand at the same time are encoded twice and kept once. Raises PlanError for
    resources that the cluster lacks, MissingPackageError without Ray, and what `embed_corpus` raises.
    """
    check_role(role, instruction)
    config = parse_spec(spec) if isinstance(spec, str) else spec
    on, folder = on or RayWorkers(), Path(out).resolve()
    parts = [
        CorpusPart(str(Path(part.path).resolve()), part.kind, part.start, part.end)
        for part in corpus_parts(corpus, part_bytes=_PART_BYTES)
    ]
    VectorCache(folder).folder.mkdir(parents=True, exist_ok=True)
    with on_ray(on, needed_for="encoding on Ray") as workers:
        encoder = _EncoderArguments(config, str(folder), role.value, instruction)
        space, done = _run(parts, encoder, on, workers, progress=progress)
    return finished(folder, space, parts, done)


@dataclass(frozen=True)
class _EncoderArguments:
    config: AnyConfig
    folder: str
    role: str
    instruction: str | None


class Encoder:
    """An actor: its own engine, and shards of its own in the folder that all share."""

    def __init__(self, arguments: _EncoderArguments) -> None:
        self._engine = open_embedder(arguments.config)
        self._filler = Filler(
            self._engine,
            VectorCache(arguments.folder),
            role=Role(arguments.role),
            instruction=arguments.instruction,
        )

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """Encode a batch; returns counts once its vectors are on disk."""
        failure, done = "", Filled()
        try:
            done = self._filler.fill(_decoded(batch["text"]))
        except ToolkitError as error:  # told to the driver: Ray would try it again and print a page for each
            failure = str(error)
        return {
            "texts": np.array([done.texts]),
            "encoded": np.array([done.encoded]),
            "failure": np.array([failure], dtype=object),
        }


def _run(
    parts: list[CorpusPart], encoder: _EncoderArguments, on: RayWorkers, workers: int, *, progress: bool
) -> tuple[EmbeddingSpace, Filled]:
    import ray.data

    space = _space_of(encoder.config, on)
    VectorCache(encoder.folder).for_space(space, required=True).verify()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = _PART_BYTES
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # a page per run of what it is about to do
    actors = ray.data.ActorPoolStrategy(size=workers)
    counted = (
        ray.data.from_items(
            [{"part": number} for number in range(len(parts))],
            override_num_blocks=max(1, min(len(parts), _MOST_READS)),
        )
        # No core of their own: with every core given to actors, readers would never run, and actors wait for them.
        .map_batches(_read, fn_kwargs={"parts": parts}, batch_size=1, num_cpus=0)
        .map_batches(
            Encoder,
            compute=actors,
            fn_constructor_kwargs={"arguments": encoder},
            batch_size=_batch_texts(space.full_dim),
            num_gpus=on.gpus_per_worker or None,
            num_cpus=None if on.gpus_per_worker else on.cpus_per_worker,
        )
    )
    done = Filled()
    with progress_bar(
        total=None, label=f"embed {space.model} on {workers} workers", unit="text", show=progress
    ) as bar:
        try:
            for row in counted.iter_rows():
                if row["failure"]:
                    raise _failed(str(row["failure"]))
                done += Filled(int(row["texts"]), int(row["encoded"]))
                bar.update(int(row["texts"]))
        except ray.exceptions.RayError as error:
            raise _failed(reason(error)) from None
    return space, done


def _failed(reason: str) -> ToolkitError:
    return ServerError(
        f"a Ray worker failed: {reason}; what was encoded is kept, run the same command again to go on"
    )


def _read(batch: dict[str, np.ndarray], *, parts: list[CorpusPart]) -> Iterator[dict[str, np.ndarray]]:
    """The texts of parts, in blocks; UTF-8 with lone surrogates, which Arrow's strings cannot hold, as bytes."""
    for number in batch["part"]:
        block: list[bytes] = []
        for text in part_texts(parts[int(number)]):
            block.append(text.encode("utf-8", "surrogatepass"))
            if len(block) == _LEAST_BATCH_TEXTS:
                yield {"text": np.array(block, dtype=object)}
                block = []
        if block:
            yield {"text": np.array(block, dtype=object)}


def _decoded(column: np.ndarray) -> list[str]:
    return [bytes(text).decode("utf-8", "surrogatepass") for text in column]


def _batch_texts(full_dim: int) -> int:
    """Texts whose vectors fill a shard, within what keeps workers evenly busy.

    As many as some whole blocks of a reader have: what a block has over would be a small batch of its own.
    """
    most = min(_BATCH_TEXTS, _SHARD_BYTES // (4 * full_dim))
    return max(1, most // _LEAST_BATCH_TEXTS) * _LEAST_BATCH_TEXTS


def _space_of(config: AnyConfig, on: RayWorkers) -> EmbeddingSpace:
    """Of the embedder as a worker opens it: the driver's machine may have no GPU, and so another dtype."""
    import ray

    @ray.remote(num_gpus=on.gpus_per_worker, num_cpus=on.cpus_per_worker, max_retries=1)
    def look() -> EmbeddingSpace | str:
        try:
            with open_embedder(config) as engine:
                return engine.space
        except ToolkitError as error:
            return str(error)

    try:
        found = ray.get(look.remote())
    except ray.exceptions.RayError as error:
        raise _failed(reason(error)) from None
    if isinstance(found, str):
        raise PlanError(f"a Ray worker cannot open the embedder: {found}")
    return found
