"""What is known of a sweep before its long part begins: what its queries can prove at best, and how long it takes.

The time is an estimate from a second of encoding, and from how fast this machine reads memory. Measures no quality.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from toolkit.embedding.cache import VectorCache, text_keys
from toolkit.embedding.protocol import Embedder
from toolkit.experiment.encode_speed import estimate_encode
from toolkit.experiment.plan import SweepPlan
from toolkit.experiment.setting import Setting
from toolkit.experiment.work import Work
from toolkit.measure.noninferiority import strictest_keep

_PROBED_BYTES = 2**26
_ORDER = 0  # seed of the order in which texts are tried: the first of a corpus may all be short
# A graph is built by a search per document over about so many neighbours (FAISS: efConstruction 40, 32 links).
_COMPARED_PER_LINK = 40 * 32


@dataclass(frozen=True)
class Outlook:
    """Before a sweep.

    labelled, unlabelled : queries with judgements and without; labelled is 0 for data without any.
    settings, searched : how many, and how many of them are there from an earlier run.
    encode_s, search_s : seconds that encoding what the cache lacks, and searching what is not there yet, may take.
    """

    labelled: int
    unlabelled: int
    settings: int
    searched: int
    encode_s: float
    search_s: float

    @property
    def seconds(self) -> float:
        """Of all of it."""
        return self.encode_s + self.search_s

    @property
    def strictest_keep(self) -> float:
        """The largest share that so many queries can prove; 0.0 without judgements."""
        return strictest_keep(self.labelled, self.unlabelled)

    def __str__(self) -> str:
        if not self.labelled:
            told = f"{self.unlabelled:,} queries, none of them judged: agreement is measured, and no quality"
        else:
            others = f" and {self.unlabelled:,} without judgements" if self.unlabelled else ""
            # Rounded down: a share that cannot be proven is not named.
            best = math.floor(1e3 * self.strictest_keep) / 1e3
            told = (
                f"{self.labelled:,} labelled queries{others} can prove at best that {best:g} of the quality is kept, "
                "by a setting that ranks all of them as the full one does"
            )
        there = f", {self.searched:,} of them there already" if self.searched else ""
        return f"{told}; {self.settings:,} settings{there}: about {duration(self.seconds)}"


def duration(seconds: float) -> str:
    """``8 seconds``, ``12 minutes``, ``3.5 hours``: as exact as an estimate is."""
    if seconds < 90:
        return f"{max(1, round(seconds)):,} second{'s' if round(seconds) > 1 else ''}"
    if seconds < 5_400:
        return f"{round(seconds / 60):,} minutes"
    return f"{seconds / 3_600:,.2g} hours"


def encode_seconds(embedder: Embedder, texts: Sequence[str], cache: VectorCache | None = None) -> float:
    """Seconds that encoding the rendered texts a cache lacks may take, from a second of encoding some of them."""
    if cache is not None:
        missing = cache.for_space(embedder.space).missing(text_keys(texts))
        texts = [texts[place] for place in missing]
    if not texts:
        return 0.0
    shuffled = [texts[place] for place in np.random.default_rng(_ORDER).permutation(len(texts))]
    return estimate_encode(embedder, shuffled, passes=1, budget_s=0.0).whole_s


def search_seconds(
    settings: Sequence[Setting], plan: SweepPlan, *, documents: int, queries: int, full_dim: int
) -> float:
    """Seconds that building and searching may take: bytes that are read, at the pace this machine reads them.

    queries : searched once; those that the plan times come on top, at each number of threads.
    """
    timed = min(plan.timing.queries, queries) * plan.timing.rounds * len(plan.timing.threads)
    read = 4.0 * documents * full_dim * queries / 64  # the exact pass goes by blocks of queries
    builds = {one.build: one for one in settings}
    for one in settings:
        work = Work(one, one.rescore[0].candidates if one.rescore else plan.k)
        read += (queries + timed) * work.compared(documents) * work.bytes_each
        read += sum(4.0 * dim * candidates for dim, candidates in one.rescore) * (queries + timed)
    for build in builds:
        if "HNSW" in build.index:
            read += documents * _COMPARED_PER_LINK * 4.0 * build.dim
        else:
            read += 4.0 * documents * build.dim
    return read / _bytes_per_second()


def _bytes_per_second() -> float:
    """How fast one thread takes inner products with vectors that come from memory."""
    rows = np.ones((_PROBED_BYTES // 4 // 256, 256), dtype=np.float32)
    one = rows[0].copy()
    best = math.inf
    for _ in range(3):
        began = time.perf_counter()
        rows @ one
        best = min(best, time.perf_counter() - began)
    return rows.nbytes / max(best, 1e-9)
