"""Indexes over the same vectors at one dimension: what they have in common is made once.

Knows nothing of search arguments, files or the grid. Shared between precisions are

* the cut and normalized rows;
* the coarse k-means of an IVF index and each row's list: FAISS trains it on float32 rows whatever
  the codes are, so sharing changes nothing;
* the HNSW graph, made from float32 distances: links between the rows themselves rather than between
  their codes. An independent build would link by the codes' distances, which are noisier;
* the codes of a precision, which Flat and HNSW store alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np

from toolkit.search.backend import IndexSpec
from toolkit.search.cut_rows import BLOCK_ROWS, CutRows
from toolkit.search.faiss.factory import (
    BUILD_ARGUMENTS,
    check_arguments,
    check_setting,
    inner_index,
    is_binary,
    load_faiss,
    make_index,
)
from toolkit.search.faiss.index import BuiltIndex, pack_signs
from toolkit.search.faiss.on_disk import ON_DISK, ListsFile, OnDisk

# k-means learns little from more than this (FAISS itself takes at most 256 a centroid and wants 39).
_ROWS_PER_LIST = 64
_LEAST_TRAINING_ROWS = 65_536
_GRAPH = re.compile(r"(HNSW\d*)(?:_(SQ\w+|PQ\d+x8))?")
_LISTS = re.compile(r"(IVF\d+(?:_HNSW\d+)?),(.+)")


@dataclass(frozen=True)
class _Coarse:
    """A trained coarse quantizer: its centroids, the list of each row, and what it took."""

    centroids: np.ndarray
    list_of_row: np.ndarray
    steps_s: Mapping[str, float]


def training_places(rows: CutRows, lists: int = 0, *, seed: int = 0) -> np.ndarray:
    """Numbers of the rows that an index of so many lists is trained on, ascending.

    All of a small corpus, a random sample of a large one.
    """
    wanted = max(_LEAST_TRAINING_ROWS, _ROWS_PER_LIST * lists)
    if len(rows) <= wanted:
        return np.arange(len(rows))
    return np.sort(np.random.default_rng(seed).choice(len(rows), size=wanted, replace=False))


class SharedBuilds:
    """Builds FAISS indexes over the rows of a corpus at one dimension; one for each dimension of a grid.

    seed : of training samples, k-means and graph levels.
    """

    def __init__(self, rows: CutRows, *, seed: int = 0) -> None:
        self._rows = rows
        self._dim = rows.dim
        self._seed = seed
        self._graphs: dict[tuple, BuiltIndex] = {}
        self._coarse: dict[tuple, _Coarse] = {}
        self._codes: dict[str, BuiltIndex] = {}

    def build(self, spec: IndexSpec) -> BuiltIndex:
        """Build an index, or put it together from what was built before. Raises PlanError."""
        factory = check_setting(spec.index, spec.precision, self._dim, len(self._rows))
        arguments = dict(spec.build_args)
        check_arguments(factory, arguments, known=BUILD_ARGUMENTS)
        on_disk = arguments.pop(ON_DISK, None)
        lists = None
        with _peak_memory() as peak:
            if match := _GRAPH.fullmatch(factory):
                made, steps_s = self._graph_over(factory, match[1], match[2], arguments)
            elif match := _LISTS.fullmatch(factory):
                made, steps_s, lists = self._lists_over(factory, match[1], arguments, on_disk=bool(on_disk))
            elif on_disk:
                made, steps_s, lists = self._plain_on_disk(factory, arguments)
            elif factory.startswith(("SQ", "PQ")):
                shared = self._codes_of(factory)
                made, steps_s = shared.index, shared.steps_s
            else:
                made, steps_s = self._plain(factory, arguments)
        return BuiltIndex(made, factory, self._dim, steps_s, peak[0], lists)

    def _sample(self, lists: int) -> np.ndarray:
        """Cut rows to train on."""
        places = training_places(self._rows, lists, seed=self._seed)
        return self._rows.all if len(places) == len(self._rows) else self._rows.take(places)

    def _plain(self, factory: str, arguments: Mapping[str, int]) -> tuple[object, dict[str, float]]:
        """Train and add, sharing nothing."""
        made, steps_s = self._trained(factory, arguments)
        inner, encode = inner_index(made), _encoder(factory)
        if hasattr(inner, "hnsw"):
            steps_s["add"] = self._link(made, inner, encode)
        else:
            steps_s["add"] = sum(_seconds(made.add, encode(block)) for _, block in self._rows.blocks())
        return made, steps_s

    def _plain_on_disk(
        self, factory: str, arguments: Mapping[str, int]
    ) -> tuple[object, dict[str, float], ListsFile]:
        made, steps_s = self._trained(factory, arguments)
        filler, add_s = OnDisk(made), 0.0
        for _, block in self._rows.blocks():
            add_s += _seconds(filler.add, np.ascontiguousarray(block), None)
        began = perf_counter()
        lists = filler.finish()
        return made, {**steps_s, "add": add_s + perf_counter() - began}, lists

    def _trained(self, factory: str, arguments: Mapping[str, int]) -> tuple[object, dict[str, float]]:
        made = make_index(factory, self._dim)
        inner = _configured(inner_index(made), arguments, self._seed)
        if made.is_trained:
            return made, {}
        sample = _encoder(factory)(self._sample(getattr(inner, "nlist", 0)))
        return made, {"train": _seconds(made.train, sample)}

    def _link(self, made, inner, encode) -> float:  # noqa: ANN001 - FAISS's objects
        """Add every row to a graph; seconds.

        One `add` inserts its rows in random order, and a graph needs that: of topics that come one after
        the other, block by block, each would be linked to those before it only. Rows that do not fit into
        memory come shuffled, block by block, and are numbered back.
        """
        if self._rows.fits:
            return _seconds(made.add, encode(self._rows.all))
        order = np.random.default_rng(self._seed).permutation(len(self._rows))
        seconds = 0.0
        for start in range(0, len(order), BLOCK_ROWS):
            block = self._rows.take(order[start : start + BLOCK_ROWS])
            seconds += _seconds(made.add, encode(block))
        return seconds + _seconds(_renumber, inner, np.argsort(order))

    def _codes_of(self, factory: str) -> BuiltIndex:
        """A flat index of codes, which an HNSW index of that precision stores too."""
        if factory not in self._codes:
            made, steps_s = self._plain(factory, {})
            self._codes[factory] = BuiltIndex(made, factory, self._dim, steps_s)
        return self._codes[factory]

    def _graph_over(
        self, factory: str, graph_name: str, code: str | None, arguments: Mapping[str, int]
    ) -> tuple[object, dict[str, float]]:
        key = (graph_name, *sorted(arguments.items()))
        if key not in self._graphs:
            made, steps_s = self._plain(graph_name, arguments)
            steps_s = {"graph": steps_s["add"]}
            self._graphs[key] = BuiltIndex(made, graph_name, self._dim, steps_s)
        graph = self._graphs[key]
        if code is None:
            return graph.index, dict(graph.steps_s)
        faiss = load_faiss()
        codes = self._codes_of(code)
        made = make_index(factory, self._dim)
        storage = faiss.downcast_index(made.storage)
        if code.startswith("PQ"):
            storage.pq = codes.index.pq
        else:
            storage.sq = codes.index.sq
        storage.is_trained = made.is_trained = True
        stored = faiss.vector_to_array(codes.index.codes).reshape(len(codes), -1)
        storage.add_sa_codes(stored)
        made.hnsw = graph.index.hnsw
        # FAISS has HNSW over product codes with L2 only; on unit rows both metrics order alike.
        made.hnsw.is_similarity = made.metric_type == faiss.METRIC_INNER_PRODUCT
        made.ntotal = storage.ntotal
        return made, {**graph.steps_s, **codes.steps_s}

    def _lists_over(
        self, factory: str, lists_name: str, arguments: Mapping[str, int], *, on_disk: bool
    ) -> tuple[object, dict[str, float], ListsFile | None]:
        key = (lists_name, *sorted(arguments.items()))
        sample = self._sample(inner_index(make_index(factory, self._dim)).nlist)
        if key not in self._coarse:
            self._coarse[key] = self._train_coarse(lists_name, arguments, sample)
        coarse = self._coarse[key]
        made = make_index(factory, self._dim)
        inner = _configured(made, arguments, self._seed)
        inner.quantizer.add(coarse.centroids)
        inner.quantizer.is_trained = True
        # With its coarse quantizer full, FAISS's train learns the codes alone.
        train_s = _seconds(made.train, sample)
        add_s, file = 0.0, None
        filler = OnDisk(made) if on_disk else None
        add = partial(_add_to_lists, made) if filler is None else filler.add
        for start, block in self._rows.blocks():
            lists = coarse.list_of_row[start : start + len(block)]
            add_s += _seconds(add, np.ascontiguousarray(block), lists)
        if filler is not None:
            began = perf_counter()
            file = filler.finish()
            add_s += perf_counter() - began
        return made, {**coarse.steps_s, "train": train_s, "add": add_s}, file

    def _train_coarse(self, lists_name: str, arguments: Mapping[str, int], sample: np.ndarray) -> _Coarse:
        trained = _configured(make_index(f"{lists_name},Flat", self._dim), arguments, self._seed)
        coarse_s = _seconds(trained.train, sample)
        quantizer = load_faiss().downcast_index(trained.quantizer)
        centroids = quantizer.reconstruct_n(0, trained.nlist)
        lists = np.empty(len(self._rows), dtype=np.int64)
        assign_s = 0.0
        for start, block in self._rows.blocks():
            began = perf_counter()
            lists[start : start + len(block)] = quantizer.search(block, 1)[1][:, 0]
            assign_s += perf_counter() - began
        return _Coarse(centroids, lists, {"coarse": coarse_s, "assign": assign_s})


def _encoder(factory: str) -> Callable[[np.ndarray], np.ndarray]:
    return pack_signs if is_binary(factory) else np.ascontiguousarray


def _configured(index, arguments: Mapping[str, int], seed: int):  # noqa: ANN001
    """The index with its build arguments and seed set."""
    faiss = load_faiss()
    if hasattr(index, "hnsw"):
        index.hnsw.rng = faiss.RandomGenerator(seed)
        if "efConstruction" in arguments:
            index.hnsw.efConstruction = arguments["efConstruction"]
    if hasattr(index, "cp"):
        index.cp.seed = seed
        if "niter" in arguments:
            index.cp.niter = arguments["niter"]
    if hasattr(index, "pq"):
        index.pq.cp.seed = seed
        # Small corpora are measured on purpose; FAISS would print a warning for every sub-quantizer.
        index.pq.cp.min_points_per_centroid = 1
    if hasattr(index, "do_polysemous_training"):
        # It renumbers centroids for a Hamming filter that no search here uses, and takes most of the time.
        index.do_polysemous_training = False
    return index


def _renumber(index, order: np.ndarray) -> None:  # noqa: ANN001
    """Row i of the index becomes what was row order[i]."""
    faiss = load_faiss()
    order = np.ascontiguousarray(order, dtype=np.int64)
    if isinstance(index, faiss.IndexBinary):
        storage = faiss.downcast_IndexBinary(index.storage)
        packed = faiss.vector_to_array(storage.xb).reshape(len(order), -1)
        faiss.copy_array_to_vector(np.ascontiguousarray(packed[order]).ravel(), storage.xb)
        index.hnsw.permute_entries(faiss.swig_ptr(order))
    else:
        index.permute_entries(order)


def _add_to_lists(index, rows: np.ndarray, lists: np.ndarray) -> None:  # noqa: ANN001
    """IndexIVF.add without finding each row's list again."""
    swig_ptr = load_faiss().swig_ptr
    index.add_core(len(rows), swig_ptr(rows), None, swig_ptr(np.ascontiguousarray(lists)), None)


def _seconds(call, *arguments) -> float:  # noqa: ANN001
    began = perf_counter()
    call(*arguments)
    return perf_counter() - began


@contextmanager
def _peak_memory() -> Iterator[list[int]]:
    """[highest resident bytes of this process within the block], or [0] where Linux's /proc is absent."""
    peak = [0]
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    try:
        reset.write_text("5")  # proc(5): resets the high-water mark of resident memory
    except OSError:
        yield peak
        return
    yield peak
    for line in status.read_text().splitlines():
        if line.startswith("VmHWM:"):
            peak[0] = int(line.split()[1]) * 1024
