"""Milvus as an index backend: Milvus Lite in the results folder, or any Milvus by its address.

Knows which of the plan's indexes Milvus has. What Milvus Lite cannot build is refused for a server as well, so that
both give the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from threadpoolctl import threadpool_limits

from toolkit.errors import PlanError, require_package
from toolkit.search import threads as search_threads
from toolkit.search.backend import IndexSpec
from toolkit.search.cut_rows import CutRows
from toolkit.search.database.factory import Family, check_arguments, family_of, one_of
from toolkit.search.faiss.curve import Curve
from toolkit.search.milvus.client import check_uri
from toolkit.search.milvus.collection import Collection, build_collection, open_collection, remove_collection

_ENGINE = "Milvus Lite"
# What Milvus calls an index of a family at a precision.
_KINDS = {
    "Flat": {"float32": "FLAT"},
    "HNSW": {"float32": "HNSW", "int8": "HNSW_SQ"},
    "IVF": {"float32": "IVF_FLAT", "int8": "IVF_SQ8"},
}
_MOST_NEIGHBOURS = 16_384
_MOST_LINKS = 2_048
_MOST_LISTS = 65_536
_MOST_DIMS = 32_768


class MilvusBackend(Curve):
    """Collections of Milvus.

    uri : ``http://host:19530`` of a server, ``<file>.db`` of Milvus Lite; empty for Milvus Lite in the results folder.
    """

    packages = ("pymilvus", "milvus-lite")

    def __init__(self, uri: str = "") -> None:
        check_uri(uri)
        self.uri = uri
        self.name = f"milvus@{uri}" if uri else "milvus"

    @classmethod
    def at(cls, uri: str) -> MilvusBackend:
        """The backend at an address; raises PlanError for one that is no Milvus."""
        return cls(uri)

    def check(self, spec: IndexSpec, *, documents: int, k: int) -> None:
        """Raise PlanError for an index that Milvus Lite lacks, MissingPackageError without pymilvus."""
        require_package("pymilvus", needed_for="backend 'milvus'", extra="milvus")
        family, _ = _kind(spec)
        check_arguments(spec, family, spec.build_args, search=False)
        if spec.dim > _MOST_DIMS:
            raise PlanError(f"dimension {spec.dim} is outside Milvus's range; choose 1..{_MOST_DIMS}")
        if k > _MOST_NEIGHBOURS:
            raise PlanError(f"k {k} is outside Milvus's range; choose 1..{_MOST_NEIGHBOURS}")
        if family.name == "HNSW" and not 2 <= family.number <= _MOST_LINKS:
            raise PlanError(f"{spec.index}: links must be 2..{_MOST_LINKS} in Milvus")
        if family.name == "IVF" and family.number > min(_MOST_LISTS, documents):
            raise PlanError(
                f"{spec.index} needs as many documents as lists, at most {_MOST_LISTS}; there are {documents}"
            )

    def check_search(self, spec: IndexSpec, search_args: Mapping[str, int]) -> None:
        """Raise PlanError for search arguments that the index does not have."""
        check_arguments(spec, _kind(spec)[0], search_args, search=True)

    def builder(self, rows: CutRows, *, seed: int) -> MilvusBuilder:  # noqa: ARG002 - Milvus takes none
        """A builder of collections; each holds its own copy of the rows."""
        return MilvusBuilder(self.uri, rows)

    def load(self, path: Path) -> Collection:
        """The collection that a file stands for; raises ResultsError where it is gone."""
        return open_collection(self.uri, path)

    def remove(self, path: Path) -> None:
        """Drop the collection that a file stands for."""
        remove_collection(self.uri, path)

    @contextmanager
    def threads(self, count: int) -> Iterator[None]:
        """So many clients at once; Milvus Lite's products run in this process, on as many threads."""
        with threadpool_limits(limits=count, user_api="blas"), search_threads.limited(count):
            yield


class MilvusBuilder:
    """Fills collections with the rows of a corpus."""

    def __init__(self, uri: str, rows: CutRows) -> None:
        self._uri, self._rows = uri, rows

    def build(self, spec: IndexSpec) -> Collection:
        """Insert, index and load."""
        family, kind = _kind(spec)
        made: dict[str, int | str] = {}
        if family.name == "HNSW":
            made = {"M": family.number, "efConstruction": family.construction(spec.build_args)}
            if kind == "HNSW_SQ":
                made["sq_type"] = "SQ8"
        elif family.name == "IVF":
            made = {"nlist": family.number}
        return build_collection(self._uri, self._rows, spec, kind, made)


def _kind(spec: IndexSpec) -> tuple[Family, str]:
    family = family_of(spec, engine=_ENGINE)
    return family, one_of(spec, _KINDS[family.name], engine=_ENGINE)
