"""What an index backend is, and which there are.

A backend builds indexes over a corpus at one dimension and searches them. The experiment, the funnel and
the tables know this protocol alone: factory strings, what builds share, devices and search curves live
inside a backend. A new one is one file with a class of this protocol, named by an entry point in the group
``toolkit.backends`` (``milvus = "my_package.milvus:MilvusBackend"``) or given to `register`.

Empty texts are the same everywhere: `open_builder` keeps rows that are zero at a dimension out of its
indexes, and puts them after all others. No backend sees one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Literal, Protocol, get_args, runtime_checkable

import numpy as np

from toolkit.errors import PlanError
from toolkit.search import threads as search_threads
from toolkit.search.cut_rows import CutRows
from toolkit.search.neighbours import Neighbours

# How stored vectors are encoded; a backend has all of these or some.
Precision = Literal["float32", "float16", "bfloat16", "int8", "uint4", "binary", "pq", "opq", "rabitq"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
AUTO = "auto"
ENTRY_POINTS = "toolkit.backends"
_BUILT_IN = {
    "faiss": "toolkit.search.faiss.backend:FaissBackend",
    "exact": "toolkit.search.exact.backend:ExactBackend",
    "milvus": "toolkit.search.milvus.backend:MilvusBackend",
    "pgvector": "toolkit.search.pgvector.backend:PgvectorBackend",
}
_OPEN: dict[str, Backend] = {}

# What a search of an index returns before it is put in order: scores or distances, and row numbers.
BareSearch = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class IndexSpec:
    """An index to be built.

    index : its name in its backend's own notation.
    precision : one of PRECISIONS.
    dim : numbers of a vector.
    build_args : named whole numbers; empty for the backend's defaults.
    """

    index: str
    precision: str
    dim: int
    build_args: Mapping[str, int] = field(default_factory=dict)


class Index(Protocol):
    """An index that is filled and only searched from now on; it holds no state that a search changes.

    description : what the backend built, in its own words (a FAISS factory string).
    dim : numbers of the vectors it was built from; queries have as many.
    steps_s : seconds of each step that building it alone would take; build_s : their sum.
    index_bytes : what it stores; peak_bytes : highest resident memory while building, 0 if not known.
    device : ``cpu``, ``gpu`` or whatever the backend calls the place it is searched on.
    thread_safe : whether several threads may search it at once.
    """

    description: str
    dim: int
    steps_s: Mapping[str, float]
    build_s: float
    index_bytes: int
    peak_bytes: int
    device: str
    thread_safe: bool

    def __len__(self) -> int: ...

    def search(self, queries: np.ndarray, k: int, search_args: Mapping[str, int] | None = None) -> Neighbours:
        """The k nearest rows of each of (q, dim) float32 queries, cut to `dim` and normalized."""

    def bare_search(self, k: int, search_args: Mapping[str, int] | None = None) -> BareSearch:
        """The search alone as a function of queries, for timing: arguments are checked here, not in it."""

    def accelerated(self) -> Index:
        """This index on the fastest device here that has a form of it and room for it; itself if it is there.

        Warns (ToolkitWarning) where a device has a form of it and no room: nothing moves in silence.
        """

    def save(self, path: Path) -> None:
        """Write it to `path` (and names that begin with it); raises ResultsError."""

    def close(self) -> None:
        """Give back memory, devices and connections; it cannot be searched any more."""


class Builder(Protocol):
    """Builds indexes over one corpus at one dimension; what they have in common may be made once."""

    def build(self, spec: IndexSpec) -> Index:
        """Build it; raises PlanError for what cannot be built."""


@runtime_checkable
class Backend(Protocol):
    """A kind of index, by name."""

    name: str

    def check(self, spec: IndexSpec, *, documents: int, k: int) -> None:
        """Raise PlanError, before any vector exists, for what could not be built over so many documents."""

    def check_search(self, spec: IndexSpec, search_args: Mapping[str, int]) -> None:
        """Raise PlanError for search arguments that this index does not have or that cannot work."""

    def searches(self, spec: IndexSpec) -> Sequence[Mapping[str, int]]:
        """The search arguments to measure where a plan names none: this index's curve; at least one."""

    def compared(
        self, spec: IndexSpec, search_args: Mapping[str, int], *, documents: int, k: int
    ) -> tuple[float, float]:
        """(vectors one search compares, bytes of each) in a corpus of that size: what time grows with."""

    def builder(self, rows: CutRows, *, seed: int) -> Builder:
        """A builder over the rows of a corpus at one dimension, none of which is zero."""

    def load(self, path: Path) -> Index:
        """Read what an index's `save` wrote; raises ResultsError for a missing or damaged file."""

    def threads(self, count: int) -> AbstractContextManager[None]:
        """Let builds and searches use `count` threads within the block."""


@runtime_checkable
class Scaling(Protocol):
    """What a backend may also have: which index it would run at another corpus size. Others run the same one."""

    def scaled(
        self, spec: IndexSpec, search_args: Mapping[str, int], *, measured: int, documents: int
    ) -> tuple[IndexSpec, Mapping[str, int]]:
        """The index and the search arguments at `documents` in place of those measured at `measured`."""

    def bytes_added(self, spec: IndexSpec, scaled: IndexSpec, *, documents: int) -> float:
        """Bytes that the scaled index takes more than the same one would over so many documents."""


@runtime_checkable
class Filtering(Protocol):
    """What an index may also have: a search among the rows that pass a filter."""

    def filtered_search(
        self, k: int, share: float, search_args: Mapping[str, int] | None = None
    ) -> BareSearch:
        """Like `bare_search`, among the rows that `toolkit.search.filters.passing` tells of; row -1 for none."""


@runtime_checkable
class KeptElsewhere(Protocol):
    """What a backend may also have: indexes that outlive the file that stands for them, as in a database."""

    def remove(self, path: Path) -> None:
        """Remove the index that a file stands for; none is left behind by one that is gone already."""


def register(backend: Backend) -> None:
    """Make a backend known under its name, in this process; a name that is taken is replaced."""
    _OPEN[backend.name] = backend


def backend_names() -> list[str]:
    """The names `get_backend` knows: built in, installed with an entry point, or registered."""
    return sorted({*_BUILT_IN, *_OPEN, *(point.name for point in entry_points(group=ENTRY_POINTS))})


def get_backend(name: str) -> Backend:
    """The backend of a name, loaded when it is first asked for; raises PlanError for an unknown one.

    ``<name>@<uri>`` is one at an address, made by its class's `at(uri)`; it is its name.
    """
    if name not in _OPEN:
        kind, _, uri = name.partition("@")
        installed = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
        if kind in _BUILT_IN:
            module, _, class_name = _BUILT_IN[kind].partition(":")
            made = getattr(import_module(module), class_name)
        elif kind in installed:
            made = installed[kind].load()
        else:
            names = backend_names()
            near = get_close_matches(kind, names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise PlanError(f"unknown index backend {kind!r}{hint}; choose from {', '.join(names)}")
        if uri and not hasattr(made, "at"):
            raise PlanError(f"index backend {kind!r} is on this machine; leave uri {uri!r} out")
        backend = made.at(uri) if uri else made()
        if not isinstance(backend, Backend):
            raise PlanError(f"index backend {kind!r} lacks methods of toolkit.search.backend.Backend")
        _OPEN[name] = backend
    return _OPEN[name]


def backend_of(name: str, index: str) -> Backend:
    """The backend that a setting's `backend` and `index` stand for.

    ``auto`` is FAISS; where FAISS is not installed, ``Flat`` is the exact scan, which finds the same.
    """
    if name != AUTO:
        return get_backend(name)
    return get_backend("exact" if index == "Flat" and not faiss_installed() else "faiss")


def faiss_installed() -> bool:
    """Whether the faiss package can be imported."""
    try:
        import_module("faiss")
    except ImportError:
        return False
    return True


@contextmanager
def threads(count: int, backends: Iterable[Backend]) -> Iterator[None]:
    """Let these backends, and rescoring, use `count` threads within the block."""
    with ExitStack() as stack:
        stack.enter_context(search_threads.limited(count))
        for backend in {backend.name: backend for backend in backends}.values():
            stack.enter_context(backend.threads(count))
        yield
