"""FAISS indexes by factory string: built from full-dimension vectors, searched, measured, kept.

Knows nothing of quality or of timing. Build arguments are apart from search arguments: one
`BuiltIndex` serves all search arguments, and holds no state that a search would change.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from toolkit.errors import PlanError, ResultsError, VectorError
from toolkit.files import write_atomically
from toolkit.search.faiss.factory import (
    SEARCH_ARGUMENTS,
    check_arguments,
    check_setting,
    factory_string,
    inner_index,
    is_binary,
    load_faiss,
)
from toolkit.search.neighbours import Neighbours

if TYPE_CHECKING:
    import faiss

    from toolkit.vectors import Vectors

__all__ = [
    "BuiltIndex",
    "build_index",
    "check_setting",
    "factory_string",
    "on_gpu",
    "pack_signs",
    "threads",
]

# What a search of an index returns before it is put in order: scores or distances, and row numbers.
BareSearch = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let FAISS use `count` threads within the block: builds, batches, and scans of single queries."""
    if count < 1:
        raise PlanError(f"threads {count} must be at least 1")
    faiss = load_faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def pack_signs(rows: np.ndarray) -> np.ndarray:
    """One bit a number, set where it is above zero: (n, dim) floats to (n, dim / 8) uint8."""
    return np.packbits(rows > 0, axis=1)


@dataclass(frozen=True, eq=False)
class BuiltIndex:
    """A FAISS index that is filled and only searched from now on.

    index : the FAISS object.
    factory : its factory string.
    dim : numbers of the vectors it was built from; queries have as many.
    steps_s : seconds of each step that an independent build needs: ``train``, ``add`` ..
    peak_bytes : highest resident memory of this process while building; 0 where it is not known.
    """

    index: faiss.Index | faiss.IndexBinary
    factory: str
    dim: int
    steps_s: Mapping[str, float] = field(default_factory=dict)
    peak_bytes: int = 0

    @property
    def build_s(self) -> float:
        """Seconds to train and fill the index; cutting and normalizing are not among them."""
        return sum(self.steps_s.values())

    @cached_property
    def index_bytes(self) -> int:
        """Length of ``faiss.serialize_index``, counted without holding a second copy in memory."""
        faiss = load_faiss()
        lengths: list[int] = []

        def count(chunk: bytes) -> int:
            lengths.append(len(chunk))
            return len(chunk)

        writer = faiss.PyCallbackIOWriter(count)
        index = self._on_cpu()
        (faiss.write_index_binary if self.binary else faiss.write_index)(index, writer)
        return sum(lengths)

    @property
    def binary(self) -> bool:
        """Whether it stores packed bits and ranks by Hamming distance."""
        return is_binary(self.factory)

    @property
    def device(self) -> str:
        """``gpu`` or ``cpu``: where it is searched."""
        return "gpu" if "Gpu" in type(self.index).__name__ else "cpu"

    def __len__(self) -> int:
        return int(self.index.ntotal)

    def search(self, queries: np.ndarray, k: int, search_args: Mapping[str, int] | None = None) -> Neighbours:
        """The k nearest rows of each query.

        queries : (q, dim) float32, cut to this index's dimension and normalized.
        search_args : ``efSearch`` (HNSW), ``nprobe`` (IVF), for example ``{"efSearch": 64}``.

        Scores are inner products as the index computes them from its codes, minus the Hamming
        distance for binary indexes, and 1 - d/2 where FAISS only knows squared L2 distance d.
        """
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise VectorError(f"queries {queries.shape} do not fit an index of dimension {self.dim}")
        scores, rows = self.bare_search(k, search_args)(np.ascontiguousarray(queries, dtype=np.float32))
        if self.binary:
            scores = -scores.astype(np.float32)
        elif self.index.metric_type == load_faiss().METRIC_L2:
            scores = 1 - scores / 2
        scores[rows < 0] = -np.inf
        return Neighbours(rows, scores)

    def bare_search(self, k: int, search_args: Mapping[str, int] | None = None) -> BareSearch:
        """The FAISS call itself as a function of float32 queries, for timing; arguments are checked here.

        Packing a query's signs is part of a binary search and is within the call.
        """
        arguments = dict(search_args or {})
        check_arguments(self.factory, arguments, known=SEARCH_ARGUMENTS)
        if not 1 <= k <= len(self):
            raise PlanError(f"k {k} is outside the index's {len(self)} documents; choose 1..{len(self)}")
        call = partial(self.index.search, k=k, params=_search_parameters(self.index, arguments))
        if self.binary:
            return lambda queries: call(pack_signs(queries))
        return call

    def save(self, path: str | Path) -> None:
        """Write the index to `path` and its facts to `path`.json, each whole or not at all."""
        faiss = load_faiss()
        path = Path(path)
        unfinished = path.with_name(f"{path.name}.unfinished")
        try:
            (faiss.write_index_binary if self.binary else faiss.write_index)(self._on_cpu(), str(unfinished))
            facts = {
                "factory": self.factory,
                "dim": self.dim,
                "steps_s": dict(self.steps_s),
                "peak_bytes": self.peak_bytes,
                "index_bytes": unfinished.stat().st_size,
            }
            unfinished.replace(path)
            write_atomically(_facts_path(path), json.dumps(facts).encode())
        except (OSError, RuntimeError) as error:
            raise ResultsError(f"index {path} cannot be written: {str(error).splitlines()[0]}") from error
        finally:
            unfinished.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> BuiltIndex:
        """Read what `save` wrote; raises ResultsError for a missing or damaged file."""
        faiss = load_faiss()
        path = Path(path)
        try:
            facts = json.loads(_facts_path(path).read_bytes())
            if path.stat().st_size != facts["index_bytes"]:
                raise ResultsError(f"index {path} is not whole; delete it and build it again")
            read = faiss.read_index_binary if is_binary(facts["factory"]) else faiss.read_index
            index = read(str(path))
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise ResultsError(f"index {path} cannot be read: {str(error).splitlines()[0]}") from error
        return cls(index, facts["factory"], facts["dim"], facts["steps_s"], facts["peak_bytes"])

    def to_gpu(self) -> BuiltIndex:
        """A copy on this machine's first GPU; raises PlanError for an index FAISS has on CPU only.

        One GPU, because FAISS's replicas on several take no search arguments: every `nprobe` would be 1.
        """
        faiss = load_faiss()
        if not faiss.get_num_gpus():
            raise PlanError(
                "FAISS sees no GPU here; search on the CPU, or install 'embedding-toolkit[gpu]' beside a GPU"
            )
        try:
            moved = faiss.index_cpu_to_gpus_list(self.index, gpus=[0])
        except (RuntimeError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise PlanError(f"FAISS has no GPU form of {self.factory!r} ({reason}); keep it on CPU") from None
        return BuiltIndex(moved, self.factory, self.dim, self.steps_s, self.peak_bytes)

    def _on_cpu(self):
        faiss = load_faiss()
        return faiss.index_gpu_to_cpu(self.index) if self.device == "gpu" else self.index


def on_gpu(built: BuiltIndex) -> BuiltIndex:
    """The index on this machine's first GPU where there is one and FAISS has a form of it for GPUs."""
    if not load_faiss().get_num_gpus():
        return built
    try:
        return built.to_gpu()
    except PlanError:
        return built  # graphs, scalar codes and binary codes of some kinds are searched on the CPU only


def build_index(
    vectors: Vectors,
    dim: int,
    *,
    index: str = "Flat",
    precision: str = "float32",
    build_args: Mapping[str, int] | None = None,
    seed: int = 0,
) -> BuiltIndex:
    """Cut `vectors` to `dim`, train on a sample and add them block by block.

    index, precision : see `factory_string`.
    build_args : ``efConstruction`` (HNSW), ``niter`` (k-means rounds of IVF).
    seed : of the sample, of k-means and of graph levels.

    To build several indexes over the same vectors, `family.IndexFamily` shares what they have in
    common. Raises PlanError for what FAISS would refuse.
    """
    from toolkit.search.faiss.shared_builds import IndexFamily

    return IndexFamily(vectors, dim, seed=seed).build(index, precision, build_args)


def _facts_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _search_parameters(index, arguments: Mapping[str, int]):  # noqa: ANN001
    """FAISS's own argument objects: given to each search, they leave the index as it is."""
    faiss = load_faiss()
    if not arguments:
        return None
    graph = faiss.SearchParametersHNSW(efSearch=arguments["efSearch"]) if "efSearch" in arguments else None
    inner = inner_index(index)
    if hasattr(inner, "nlist"):
        # FAISS's own default of one list stands where only the coarse graph's width is given.
        made = faiss.SearchParametersIVF(nprobe=arguments.get("nprobe", 1), quantizer_params=graph)
    elif "nprobe" in arguments:
        name, value = type(inner).__name__, arguments["nprobe"]
        raise PlanError(f"FAISS would ignore nprobe={value} of {name}; search an index on one device")
    else:
        made = graph
    if isinstance(index, faiss.IndexPreTransform):
        made = faiss.SearchParametersPreTransform(index_params=made)
    return made
