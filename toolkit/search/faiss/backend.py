"""FAISS as an index backend: factory strings, builds that share parts, one GPU, curves over its arguments."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from toolkit.search.backend import Index, IndexSpec
from toolkit.search.cut_rows import CutRows
from toolkit.search.empty_last import CorpusBuilder
from toolkit.search.faiss.curve import Curve, bytes_compared
from toolkit.search.faiss.factory import (
    BUILD_ARGUMENTS,
    SEARCH_ARGUMENTS,
    check_arguments,
    check_setting,
    factory_string,
    make_index,
)
from toolkit.search.faiss.index import BuiltIndex, threads
from toolkit.search.faiss.on_disk import ON_DISK, check_on_disk
from toolkit.search.faiss.scaled import bytes_added, scaled
from toolkit.search.faiss.shared_builds import SharedBuilds
from toolkit.vectors import Vectors


def build_index(
    vectors: Vectors,
    dim: int,
    *,
    index: str = "Flat",
    precision: str = "float32",
    build_args: Mapping[str, int] | None = None,
    seed: int = 0,
) -> Index:
    """Cut `vectors` to `dim`, train on a sample and add them; empty texts come last in every search.

    index, precision : see `factory.factory_string`.
    build_args : ``efConstruction`` (HNSW), ``niter`` (k-means rounds of IVF), ``on_disk=1`` (IVF: the lists in a file).
    seed : of the sample, of k-means and of graph levels.

    Raises PlanError for what FAISS would refuse. Several indexes of one corpus share what they have in
    common if one `toolkit.search.empty_last.CorpusBuilder` builds them.
    """
    spec = IndexSpec(index, precision, dim, build_args or {})
    return CorpusBuilder(FaissBackend(), vectors, dim, seed=seed).build(spec)


class FaissBackend(Curve):
    """Every index that FAISS's factory makes; see `factory.factory_string` for names and precisions."""

    name = "faiss"

    def check(self, spec: IndexSpec, *, documents: int, k: int) -> None:  # noqa: ARG002 - any k of a corpus
        """Raise PlanError for what FAISS would refuse, MissingPackageError without FAISS."""
        factory = check_setting(spec.index, spec.precision, spec.dim, documents)
        check_arguments(factory, spec.build_args, known=BUILD_ARGUMENTS)
        if ON_DISK in spec.build_args:
            check_on_disk(make_index(factory, spec.dim), factory)

    def check_search(self, spec: IndexSpec, search_args: Mapping[str, int]) -> None:
        """Raise PlanError for an argument that is unknown, or that this index would ignore."""
        factory = factory_string(spec.index, spec.precision, spec.dim)
        check_arguments(factory, search_args, known=SEARCH_ARGUMENTS)

    def scaled(
        self, spec: IndexSpec, search_args: Mapping[str, int], *, measured: int, documents: int
    ) -> tuple[IndexSpec, Mapping[str, int]]:
        """By the rules that `scaled` states."""
        index, arguments = scaled(spec.index, search_args, measured=measured, documents=documents)
        return replace(spec, index=index), arguments

    def bytes_added(self, spec: IndexSpec, scaled: IndexSpec, *, documents: int) -> float:
        """Of more lists or more links."""
        bytes_each = bytes_compared(spec.index, spec.precision, spec.dim)
        binary = spec.precision == "binary"
        return bytes_added(
            spec.index,
            scaled.index,
            centroid_bytes=bytes_each if binary else 4.0 * spec.dim,
            documents=documents,
        )

    def builder(self, rows: CutRows, *, seed: int) -> SharedBuilds:
        """Indexes of one dimension share their k-means, graph and codes."""
        return SharedBuilds(rows, seed=seed)

    def load(self, path: Path) -> BuiltIndex:
        """Read what `BuiltIndex.save` wrote; raises ResultsError."""
        return BuiltIndex.load(path)

    def threads(self, count: int) -> AbstractContextManager[None]:
        """FAISS's OpenMP threads: builds, batches, and scans of single queries."""
        return threads(count)
