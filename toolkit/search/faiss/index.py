"""FAISS indexes by factory string: built from full-dimension vectors, searched, measured, kept.

Knows nothing of quality or of timing. Build arguments are apart from search arguments: one
`BuiltIndex` serves all search arguments, and holds no state that a search would change.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from toolkit.errors import PlanError, ResultsError, ToolkitWarning, VectorError
from toolkit.files import parse_json, write_atomically
from toolkit.search.backend import BareSearch
from toolkit.search.faiss.curve import DEFAULT_WIDTH
from toolkit.search.faiss.factory import (
    SEARCH_ARGUMENTS,
    check_arguments,
    inner_index,
    is_binary,
    load_faiss,
    reason_of,
)
from toolkit.search.faiss.on_disk import ListsFile, lists_of_loaded, lists_path
from toolkit.search.filters import passing
from toolkit.search.neighbours import Neighbours

if TYPE_CHECKING:
    import faiss

# How FAISS and CUDA say that a device's memory is full.
_NO_ROOM = re.compile(
    r"out of memory|memory allocation|failed to cudaMalloc|cudaMalloc error|alloc fail", re.I
)


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
    """One bit per number, set where it is above zero: (n, dim) floats to (n, dim / 8) uint8."""
    return np.packbits(rows > 0, axis=1)


@dataclass(frozen=True, eq=False)
class BuiltIndex:
    """A FAISS index as `toolkit.search.backend.Index` describes it: filled, and only searched from now on.

    index : the FAISS object.
    factory : its factory string.
    dim : numbers of the vectors it was built from; queries have as many.
    steps_s : seconds of each step that an independent build needs: ``train``, ``add`` ..
    peak_bytes : highest resident memory of this process while building; 0 where it is not known.
    lists : the file of its inverted lists, for an index whose lists are on disk.
    """

    index: faiss.Index | faiss.IndexBinary
    factory: str
    dim: int
    steps_s: Mapping[str, float] = field(default_factory=dict)
    peak_bytes: int = 0
    lists: ListsFile | None = None

    # FAISS's search releases the interpreter's lock and changes nothing in the index.
    thread_safe = True

    @property
    def description(self) -> str:
        """The factory string."""
        return self.factory

    @property
    def build_s(self) -> float:
        """Seconds to train and fill the index; cutting and normalizing are not among them."""
        return sum(self.steps_s.values())

    @cached_property
    def index_bytes(self) -> int:
        """Length of ``faiss.serialize_index``, counted without holding a second copy in memory, and lists on disk."""
        faiss = load_faiss()
        lengths: list[int] = []

        def count(chunk: bytes) -> int:
            lengths.append(len(chunk))
            return len(chunk)

        writer = faiss.PyCallbackIOWriter(count)
        index = self._on_cpu()
        if self.lists is not None:
            self.lists.named()
            lengths.append(self.lists.size_bytes)
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
        return self._calling(k, _search_parameters(self.index, arguments))

    def filtered_search(
        self, k: int, share: float, search_args: Mapping[str, int] | None = None
    ) -> BareSearch:
        """`bare_search` among the rows that pass a filter of this share, which FAISS gets as a bitmap.

        Raises PlanError for an index that FAISS cannot filter (binary ones, and any on a GPU).
        """
        if self.binary or self.device == "gpu":
            raise PlanError(
                f"FAISS has no filtered search of {self.factory!r} on the {self.device}; leave timing.filters out"
            )
        self.bare_search(k, search_args)  # checks the arguments
        faiss = load_faiss()
        bits = np.packbits(passing(len(self), share), bitorder="little")
        selector = faiss.IDSelectorBitmap(bits)
        return self._calling(k, _search_parameters(self.index, dict(search_args or {}), selector))

    def _calling(self, k: int, parameters) -> BareSearch:  # noqa: ANN001 - one of FAISS's argument objects, or None
        call = partial(self.index.search, k=k, params=parameters)
        if self.binary:
            return lambda queries: call(pack_signs(queries))
        return call

    def save(self, path: str | Path) -> None:
        """Write the index to `path` and its facts to `path`.json, each whole or not at all."""
        faiss = load_faiss()
        path = Path(path)
        unfinished = path.with_name(f"{path.name}.unfinished")
        try:
            if self.lists is not None:
                self.lists.save(lists_path(path))
                self.lists.named(lists_path(path).name)
            (faiss.write_index_binary if self.binary else faiss.write_index)(self._on_cpu(), str(unfinished))
            facts = {
                "factory": self.factory,
                "dim": self.dim,
                "steps_s": dict(self.steps_s),
                "peak_bytes": self.peak_bytes,
                "index_bytes": unfinished.stat().st_size,
            }
            if self.lists is not None:
                facts["lists_bytes"] = self.lists.size_bytes
            unfinished.replace(path)
            write_atomically(_facts_path(path), json.dumps(facts).encode())
        except (OSError, RuntimeError) as error:
            raise ResultsError(f"index {path} cannot be written: {reason_of(error)}") from error
        finally:
            unfinished.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> BuiltIndex:
        """Read what `save` wrote; raises ResultsError for a missing or damaged file."""
        faiss = load_faiss()
        path = Path(path)
        try:
            facts = parse_json(_facts_path(path).read_bytes())
            if path.stat().st_size != facts["index_bytes"]:
                raise ResultsError(f"index {path} is not whole; delete it and build it again")
            on_disk = "lists_bytes" in facts
            if on_disk and lists_path(path).stat().st_size != facts["lists_bytes"]:
                raise ResultsError(f"index {lists_path(path)} is not whole; delete it and build it again")
            if is_binary(facts["factory"]):
                index = faiss.read_index_binary(str(path))
            else:
                # Lists beside the index and nowhere else, whatever path a file may name.
                index = faiss.read_index(str(path), faiss.IO_FLAG_READ_ONLY | faiss.IO_FLAG_ONDISK_SAME_DIR)
            lists = lists_of_loaded(index, path) if on_disk else None
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise ResultsError(f"index {path} cannot be read: {reason_of(error)}") from error
        return cls(index, facts["factory"], facts["dim"], facts["steps_s"], facts["peak_bytes"], lists)

    def accelerated(self) -> BuiltIndex:
        """On this machine's first GPU where there is one, FAISS has a form of it for GPUs, and it fits.

        Graphs, lists on disk, scalar codes and binary codes of some kinds have no such form. Warns (ToolkitWarning)
        for an index that has one and finds no room.
        """
        if self.device == "gpu" or not load_faiss().get_num_gpus():
            return self
        try:
            return self.to_gpu()
        except NoRoomError as error:
            warnings.warn(f"{error}; it is searched on the CPU", ToolkitWarning, stacklevel=2)
        except PlanError:
            pass
        return self

    def to_gpu(self, gpu: int = 0) -> BuiltIndex:
        """A copy on one of this machine's GPUs, by number.

        One GPU, because FAISS's replicas on several take no search arguments: every `nprobe` would be 1.

        Raises PlanError for an index FAISS has on CPU only, NoRoomError where the GPU's memory is full,
        and what CUDA says for a GPU that fails otherwise.
        """
        faiss = load_faiss()
        count = faiss.get_num_gpus()
        if self.lists is not None:
            raise PlanError(f"lists of {self.factory!r} are on disk, where no GPU reads them; keep it on CPU")
        if not count:
            raise PlanError(
                "FAISS sees no GPU here; search on the CPU, or install 'embedding-toolkit[gpu]' beside a GPU"
            )
        if not 0 <= gpu < count:
            raise PlanError(f"gpu {gpu} is not there; choose 0..{count - 1}")
        try:
            moved = faiss.index_cpu_to_gpus_list(self.index, gpus=[gpu])
        except MemoryError as error:
            raise self._no_room() from error
        except (RuntimeError, TypeError) as error:
            if _NO_ROOM.search(str(error)):
                raise self._no_room() from error
            if "CUDA error" in str(error):
                raise
            raise PlanError(
                f"FAISS has no GPU form of {self.factory!r} ({reason_of(error)}); keep it on CPU"
            ) from None
        return replace(self, index=moved)

    def close(self) -> None:
        """Let go of FAISS's object, and so of its memory here or on a GPU."""
        object.__setattr__(self, "index", None)

    def _no_room(self) -> NoRoomError:
        return NoRoomError(
            f"the GPU has no room for {self.factory!r} at dimension {self.dim} ({self.index_bytes:,} bytes)"
        )

    def _on_cpu(self):
        faiss = load_faiss()
        return faiss.index_gpu_to_cpu(self.index) if self.device == "gpu" else self.index


class NoRoomError(PlanError):
    """The memory of a device is too small for an index that the device could search."""


def _facts_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _search_parameters(index, arguments: Mapping[str, int], selector=None):  # noqa: ANN001
    """FAISS's own argument objects: given to each search, they leave the index as it is.

    selector : which rows to search among; None for all.
    """
    faiss = load_faiss()
    if not arguments and selector is None:
        return None
    among = {} if selector is None else {"sel": selector}
    width = arguments.get("efSearch")
    inner = inner_index(index)
    if hasattr(inner, "nlist"):
        graph = None if width is None else faiss.SearchParametersHNSW(efSearch=width)
        # FAISS's own default of one list stands where only the coarse graph's width is given.
        made = faiss.SearchParametersIVF(nprobe=arguments.get("nprobe", 1), quantizer_params=graph, **among)
    elif "nprobe" in arguments:
        name, value = type(inner).__name__, arguments["nprobe"]
        raise PlanError(f"FAISS would ignore nprobe={value} of {name}; search an index on one device")
    elif hasattr(inner, "hnsw"):
        made = faiss.SearchParametersHNSW(efSearch=DEFAULT_WIDTH if width is None else width, **among)
    else:
        made = faiss.SearchParameters(**among)
    if isinstance(index, faiss.IndexPreTransform):
        made = faiss.SearchParametersPreTransform(index_params=made)
    return made
