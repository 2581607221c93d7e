"""A corpus of any size into a folder of shards, which is a vector cache that a sweep reads as it is.

    <out>/<space fingerprint>/space.json, <random>.safetensors, keys.index
    <out>/embedded.json        what was embedded, once all of it is there

The same command goes on where it was stopped. Knows nothing of dimensions: shards hold full vectors.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path

from toolkit.data.corpus_parts import CorpusPart, corpus_parts, part_texts
from toolkit.embedding.cache import VectorCache
from toolkit.embedding.fill import Filled, Filler
from toolkit.embedding.protocol import Embedder
from toolkit.errors import DataError, PlanError, ResultsError
from toolkit.experiment.outlook import encode_seconds
from toolkit.files import write_atomically
from toolkit.progress import progress_bar
from toolkit.space import EmbeddingSpace, Instruction, Role

REPORT = "embedded.json"
_PROBED_TEXTS = 2_000


@dataclass(frozen=True)
class Embedded:
    """What `embed_corpus` did.

    folder : to give to a sweep as its cache; texts, encoded : all of them, and those that were not there before.
    """

    folder: Path
    space: EmbeddingSpace
    texts: int
    encoded: int


def embed_corpus(
    embedder: Embedder,
    corpus: str | Path,
    out: str | Path,
    *,
    role: Role = Role.DOCUMENT,
    instruction: str | Instruction | None = None,
    progress: bool = True,
) -> Embedded:
    """Embed every text of a corpus into shards under `out`; what is there already, and whole, is not encoded
    again.

    corpus : what `data.corpus_parts` reads. Memory stays that of one window of texts and one shard.

    Raises DataError, PlanError, ResultsError where `out` cannot be written, VectorError, and what the engine raises.
    """
    check_role(role, instruction)
    parts, folder = corpus_parts(corpus), Path(out)
    filler = Filler(embedder, VectorCache(folder), role=role, instruction=instruction)
    filler.shards.verify()
    label = f"embed {embedder.space.model}"
    with progress_bar(total=None, label=label, unit="text", show=progress) as bar:
        done = filler.fill(chain.from_iterable(map(part_texts, parts)), progress=bar.update)
    return finished(folder, embedder.space, parts, done)


def seconds_to_embed(
    embedder: Embedder,
    corpus: str | Path,
    out: str | Path,
    *,
    role: Role = Role.DOCUMENT,
    instruction: str | Instruction | None = None,
) -> float:
    """Seconds that `embed_corpus` may take: the first texts are encoded for a second, the rest goes by its bytes.

    Of a corpus that is partly there already, the share of the first texts that is missing counts for all.
    """
    check_role(role, instruction)
    parts = corpus_parts(corpus)
    texts = list(islice(chain.from_iterable(map(part_texts, parts)), _PROBED_TEXTS))
    rendered = [embedder.space.render(text, role, instruction) for text in texts]
    probed_bytes = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    seconds = encode_seconds(embedder, rendered, VectorCache(Path(out)))
    whole_bytes = sum(Path(path).stat().st_size for path in {part.path for part in parts})
    return seconds * max(1.0, whole_bytes / max(probed_bytes, 1)) if len(texts) == _PROBED_TEXTS else seconds


def check_role(role: Role, instruction: str | Instruction | None) -> None:
    """Raise PlanError for an instruction on documents."""
    if role is Role.DOCUMENT and instruction is not None:
        raise PlanError(
            f"instruction {str(instruction)[:40]!r} has no effect on documents; instructions apply to queries: "
            "give role query, or leave the instruction out"
        )


def finished(folder: Path, space: EmbeddingSpace, parts: list[CorpusPart], done: Filled) -> Embedded:
    """Write down what a run embedded; raises DataError for a corpus without texts."""
    if not done.texts:
        raise DataError(f"{parts[0].path if parts else 'the corpus'} holds no texts; nothing was embedded")
    about = {
        "space": space.fingerprint,
        "model": space.model,
        "full_dim": space.full_dim,
        "files": sorted({part.path for part in parts}),
        **asdict(done),
    }
    try:
        write_atomically(folder / REPORT, json.dumps(about, indent=2, ensure_ascii=False).encode())
    except OSError as error:
        raise ResultsError(f"{folder / REPORT} cannot be written: {error.strerror}") from None
    return Embedded(folder, space, done.texts, done.encoded)
