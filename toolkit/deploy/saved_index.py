"""A setting's index over a sweep's documents as a folder that is taken along, and searched from there.

    index              what the backend wrote: for FAISS a file that `faiss.read_index` reads
    index.rows.npz     which rows are in it, only where the corpus has empty texts
    stage-384.npy      float32 unit rows at a later stage's dimension, only with rescoring
    doc_ids.json       the document of each row
    setting.json       the setting, the embedding space, the data, and versions
    search.py          lines that search it

Knows no judgement and no price.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from toolkit.data.sets import RetrievalSet
from toolkit.embedding.cache import VectorCache
from toolkit.embedding.open import open_embedder
from toolkit.embedding.pipeline import embed_texts
from toolkit.embedding.protocol import Embedder
from toolkit.errors import PlanError, ResultsError
from toolkit.experiment.environment import versions
from toolkit.experiment.results import Results
from toolkit.experiment.setting import Setting
from toolkit.files import parse_json, write_atomically
from toolkit.judge.sources import measured_data
from toolkit.search.backend import Index, IndexSpec, backend_of, threads
from toolkit.search.empty_last import CorpusBuilder, load_index
from toolkit.search.exact.compute import available_cores
from toolkit.search.funnel import Funnel, Rescorer, Stage
from toolkit.search.neighbours import Neighbours
from toolkit.space import Role
from toolkit.vectors import Vectors, truncate

INDEX, IDS, FACTS, SCRIPT = "index", "doc_ids.json", "setting.json", "search.py"
SCHEMA = 1
_SEARCH = """# Searches the index in this folder: {setting}
from pathlib import Path

from toolkit.deploy.saved_index import SavedIndex

index = SavedIndex.load(Path(__file__).parent)
for question in ["what do you look for?"]:
    for document, score in index.search([question], k=10)[0]:
        print(f"{{score:.3f}}  {{document}}")
"""


def save_index(
    results: Results,
    setting: Setting,
    path: Path,
    *,
    data: str | RetrievalSet | None = None,
    embedder: Embedder | None = None,
    cache: VectorCache | None = None,
    progress: bool = True,
) -> Path:
    """Build a setting's index over a sweep's documents and write it into the folder `path`; returns that.

    data, embedder : where the plan's cannot be opened again; see `RecommendationView.save_index`.

    Raises PlanError for a path that is taken, ResultsError where texts cannot be read again or the disk refuses.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise PlanError(f"{path} is not empty; name a folder that is not there yet")
    texts = measured_data(results, data)
    opened = embedder or open_embedder(results.embedder_spec)
    try:
        vectors = embed_texts(
            opened, texts.docs, role=Role.DOCUMENT, cache=cache or VectorCache(), progress=progress
        )
    finally:
        if embedder is None:
            opened.close()
    backend = backend_of(setting.backend, setting.index)
    spec = IndexSpec(setting.index, setting.precision, setting.dim, dict(setting.build_args))
    with threads(available_cores(), [backend]):
        built = CorpusBuilder(backend, vectors, setting.dim, seed=results.plan.seed).build(spec)
    facts = {
        "schema": SCHEMA,
        "setting": setting.key,
        "backend": backend.name,
        "description": built.description,
        "documents": len(texts.docs),
        "data": {"name": texts.name, "hash": texts.content_hash},
        "embedder": results.plan.model_dump(mode="json")["embedder"],
        "space": {
            "model": opened.space.model,
            "fingerprint": opened.space.fingerprint,
            "full_dim": vectors.full_dim,
        },
        "built_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
    }
    try:
        path.mkdir(parents=True, exist_ok=True)
        built.save(path / INDEX)
        for dim in sorted({stage.dim for stage in setting.rescore}):
            np.save(_rows_of(path, dim), vectors.at(dim))
        write_atomically(path / IDS, json.dumps(list(texts.doc_ids), ensure_ascii=False).encode())
        write_atomically(path / SCRIPT, _SEARCH.format(setting=setting.key).encode())
        write_atomically(path / FACTS, json.dumps(facts, indent=2, ensure_ascii=False).encode())
    except OSError as error:
        raise ResultsError(
            f"{path} cannot be written ({error.strerror}); make room or choose another folder"
        ) from None
    return path


@dataclass(frozen=True, eq=False)
class SavedIndex:
    """An index that `save_index` wrote, open for searching.

    doc_ids : the document of each row. embedder : what questions are encoded with.
    """

    setting: Setting
    doc_ids: Sequence[str]
    embedder: Embedder
    _index: Index
    _stages: Sequence[Stage]

    @classmethod
    def load(cls, path: str | Path, *, embedder: Embedder | None = None) -> SavedIndex:
        """Open a folder. embedder : an open one in place of that which is named there.

        Raises ResultsError for a folder that is not whole, PlanError for an embedder of another space.
        """
        path = Path(path)
        try:
            facts = parse_json((path / FACTS).read_bytes())
            doc_ids = parse_json((path / IDS).read_bytes())
            if facts["schema"] > SCHEMA:
                raise ResultsError(f"{path} was written by a later version; update this package")
            setting, space = Setting.parse(facts["setting"]), facts["space"]
            stages = [
                Stage(Rescorer(Vectors.open(_rows_of(path, dim)), dim), candidates)
                for dim, candidates in setting.rescore
            ]
            index = load_index(backend_of(facts["backend"], setting.index), path / INDEX)
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise ResultsError(f"{path} holds no whole index ({reason}); save it again") from None
        opened = open_embedder(facts["embedder"]) if embedder is None else embedder
        if opened.space.fingerprint != space["fingerprint"]:
            raise PlanError(
                f"{path} was built with {space['model']} (space {space['fingerprint']}), not with "
                f"{opened.space.model} ({opened.space.fingerprint}); open that one (embedder=)"
            )
        return cls(setting, doc_ids, opened, index, stages)

    def search(self, questions: Sequence[str], *, k: int = 10) -> list[list[tuple[str, float]]]:
        """For each question the k best documents as (id, score), best first."""
        asked = embed_texts(
            self.embedder,
            list(questions),
            role=Role.QUERY,
            instruction=self.setting.instruction,
            progress=False,
        ).rows
        found = self._found(asked, min(k, len(self.doc_ids)))
        return [
            [(self.doc_ids[row], float(score)) for row, score in zip(rows, scores, strict=True) if row >= 0]
            for rows, scores in zip(found.rows, found.scores, strict=True)
        ]

    def _found(self, asked: np.ndarray, k: int) -> Neighbours:
        arguments = dict(self.setting.search_args)
        if not self._stages:
            return self._index.search(truncate(asked, self.setting.dim), k, arguments)
        funnel = Funnel(self._index, self._stages, search_args=arguments)
        return funnel.search(funnel.prepare(asked), k)[0]


def _rows_of(path: Path, dim: int) -> Path:
    return path / f"stage-{dim}.npy"
