"""``toolkit scale-test``: from a results folder to a setting measured over as many documents as one plans for.

The result is kept in the folder's scale_test.json; vectors and index lie in its ``scale`` folder while it runs, and
an interrupted run goes on from them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from toolkit.at_scale.measure import AtScale, check_room, measure
from toolkit.at_scale.padded import pad
from toolkit.data.sets import RetrievalSet
from toolkit.decide.recommend import recommend
from toolkit.embedding.cache import VectorCache
from toolkit.embedding.open import open_embedder
from toolkit.embedding.pipeline import embed_texts
from toolkit.embedding.protocol import Embedder
from toolkit.errors import PlanError
from toolkit.experiment.environment import hardware, versions
from toolkit.experiment.outlook import encode_seconds, search_seconds
from toolkit.experiment.results import Results
from toolkit.experiment.setting import Setting
from toolkit.experiment.store import writing
from toolkit.experiment.work import bytes_added, scaled_setting
from toolkit.files import parse_json, write_atomically
from toolkit.judge.open import check_settings
from toolkit.judge.sources import measured_data
from toolkit.search.backend import KeptElsewhere, backend_of
from toolkit.space import Role

SCALE_TESTS = "scale_test.json"
_FOLDER = "scale"


@dataclass(frozen=True)
class ScaleTest:
    """A setting at the size one plans for.

    measured_as : the setting of the sweep; found.setting is the one that was run in its place.
    corpus, others, drawn : how many documents are the sweep's, given ones, and vectors that were drawn.
    """

    measured_as: str
    found: AtScale
    corpus: int
    others: int
    drawn: int

    def __str__(self) -> str:
        one = self.found
        made = f"{self.corpus:,} of the corpus"
        made += f", {self.others:,} others" if self.others else ""
        made += f", {self.drawn:,} drawn after it" if self.drawn else ""
        return "\n".join(
            (
                f"{one.setting} over {one.documents:,} documents ({made})",
                f"  finds {one.recall:.1%} of the exact first ten at its dimension, {one.agreement:.1%} of those at "
                "the full one",
                f"  p50 {one.p50_ms:.3g} ms, p95 {one.p95_ms:.3g} ms, p99 {one.p99_ms:.3g} ms on one thread; "
                f"{one.qps:,.0f} queries/s in batches",
                f"  index {one.index_bytes / 1e9:.3g} GB, {one.index_bytes / one.documents:.4g} bytes per document; "
                f"built in {one.build_s:.3g} s, peak memory {one.peak_bytes / 1e9:.3g} GB",
            )
        )


def scale_test(
    results: Results,
    documents: int,
    *,
    setting: str | None = None,
    distractors: Sequence[str] | None = None,
    data: str | RetrievalSet | None = None,
    embedder: Embedder | None = None,
    cache: VectorCache | None = None,
    progress: bool = True,
    before: Callable[[float], None] | None = None,
) -> ScaleTest:
    """Pad the corpus of a sweep to `documents`, build the index one would run there, and measure it.

    setting : of the sweep, by its key; the recommended one if not given.
    distractors : texts of other documents, used first; vectors are drawn for what they leave.
    data, embedder : where the plan's cannot be opened again.
    before : called with the seconds that it may take before anything long begins; what it raises stops it.

    Raises PlanError for what cannot work or does not fit into memory, with the numbers, ResultsError.
    """
    texts = measured_data(results, data)
    corpus_size = len(texts.docs)
    if documents < corpus_size:
        raise PlanError(f"documents {documents:,} is below the corpus's {corpus_size:,}; choose more")
    known = results.measurements.set_index("setting", drop=False)
    if setting is None:
        found = recommend(results, corpus_size=documents)
        setting = (found.advised or found.reference).setting
    check_settings([setting], known["setting"].tolist())
    measured = Setting.parse(setting)
    there = scaled_setting(measured, documents, measured=corpus_size)
    index_bytes = known.loc[setting, "index_bytes"] / corpus_size * documents
    index_bytes += bytes_added(measured, there, documents)
    opened = embedder or open_embedder(results.embedder_spec)
    check_room(there, documents, opened.space.full_dim, index_bytes=index_bytes, folder=results.folder)
    others = list(distractors or ())[: documents - corpus_size]
    cache = cache or VectorCache()
    if before is not None:
        rendered = [opened.space.render(text, Role.DOCUMENT) for text in (*texts.docs, *others)]
        build_s = float(known.loc[setting].get("build_s", 0.0)) * documents / corpus_size
        before(
            encode_seconds(opened, rendered, cache)
            + build_s
            + search_seconds(
                [there],
                results.plan,
                documents=documents,
                queries=len(texts.queries),
                full_dim=opened.space.full_dim,
            )
        )
    corpus, more = (
        embed_texts(opened, part, role=Role.DOCUMENT, cache=cache, progress=progress).rows
        if len(part)
        else None
        for part in (texts.docs, others)
    )
    queries = embed_texts(
        opened,
        texts.queries,
        role=Role.QUERY,
        instruction=measured.instruction,
        cache=cache,
        progress=progress,
    ).rows
    if embedder is None:
        opened.close()
    digest = hashlib.blake2b(digest_size=6)
    for part in (texts.content_hash, opened.space.fingerprint, str(documents), *others):
        digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    folder = results.folder / _FOLDER / digest.hexdigest()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    seed = results.plan.seed
    vectors = pad(corpus, documents, folder / "rows.npy", others=more, seed=seed, progress=progress)
    index_file = folder / f"{there.build.slug}.index"
    found = measure(vectors, queries, there, index_file=index_file, seed=seed)
    done = ScaleTest(setting, found, corpus_size, len(others), documents - corpus_size - len(others))
    _keep(results.folder / SCALE_TESTS, done)
    del vectors
    backend = backend_of(there.backend, there.index)
    if isinstance(backend, KeptElsewhere):
        backend.remove(index_file)
    shutil.rmtree(results.folder / _FOLDER, ignore_errors=True)
    return done


def _keep(path: Path, done: ScaleTest) -> None:
    """Add a result to those of the folder; one of the same setting at the same size is replaced."""
    try:
        before = parse_json(path.read_bytes())
    except (OSError, ValueError):
        before = []
    fresh = {
        "measured_as": done.measured_as,
        **done.found.as_dict(),
        "corpus": done.corpus,
        "others": done.others,
        "drawn": done.drawn,
        "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "versions": versions(),
    }
    same = ("measured_as", "documents")
    kept = [one for one in before if any(one.get(name) != fresh[name] for name in same)]
    with writing(path):
        write_atomically(path, json.dumps([*kept, fresh], indent=1, ensure_ascii=False).encode())
