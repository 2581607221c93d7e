"""PostgreSQL with pgvector as an index backend.

Knows which of the plan's indexes pgvector has, and its limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from toolkit.errors import PlanError
from toolkit.search import threads as search_threads
from toolkit.search.backend import IndexSpec
from toolkit.search.cut_rows import CutRows
from toolkit.search.database.factory import Family, check_arguments, family_of, one_of
from toolkit.search.faiss.curve import Curve
from toolkit.search.pgvector.connection import check_uri
from toolkit.search.pgvector.table import Table, build_table, open_table, remove_table

_ENGINE = "pgvector"
_TYPES = {"float32": "vector", "float16": "halfvec", "binary": "bit"}
_MOST_DIMS = {"vector": 2_000, "halfvec": 4_000, "bit": 64_000}
_MOST_STORED_DIMS = 16_000
_LINKS = (2, 100)
_CONSTRUCTION = (4, 1_000)
_MOST_WIDTH = 1_000
_MOST_LISTS = 32_768


class PgvectorBackend(Curve):
    """Tables of PostgreSQL with a pgvector index, or none for ``Flat``.

    uri : ``postgresql://host:5432/database?user=name``, without a password.
    """

    packages = ("psycopg", "pgvector")

    def __init__(self, uri: str = "") -> None:
        self.uri = uri  # checked where an index is asked for: measurements are read without psycopg too
        self.name = f"pgvector@{uri}" if uri else "pgvector"

    @classmethod
    def at(cls, uri: str) -> PgvectorBackend:
        """The backend at an address."""
        return cls(uri)

    def check(self, spec: IndexSpec, *, documents: int, k: int) -> None:
        """Raise PlanError for what pgvector lacks, MissingPackageError without its packages."""
        check_uri(self.uri)
        family, kind = _kind(spec)
        check_arguments(spec, family, spec.build_args, search=False)
        most = _MOST_STORED_DIMS if family.name == "Flat" and kind != "bit" else _MOST_DIMS[kind]
        if spec.dim > most:
            raise PlanError(
                f"dimension {spec.dim} is outside pgvector's range for {spec.precision}; choose 1..{most}"
            )
        if family.name == "HNSW":
            construction = family.construction(spec.build_args)
            if not _LINKS[0] <= family.number <= _LINKS[1]:
                raise PlanError(f"{spec.index}: links must be {_LINKS[0]}..{_LINKS[1]} in pgvector")
            if not max(_CONSTRUCTION[0], 2 * family.number) <= construction <= _CONSTRUCTION[1]:
                raise PlanError(
                    f"efConstruction={construction} must be {2 * family.number}..{_CONSTRUCTION[1]} for "
                    f"{spec.index} in pgvector"
                )
            if k > _MOST_WIDTH:
                raise PlanError(
                    f"k {k} is more than an HNSW search of pgvector finds; choose 1..{_MOST_WIDTH}"
                )
        if family.name == "IVF" and family.number > min(_MOST_LISTS, documents):
            raise PlanError(
                f"{spec.index} needs as many documents as lists, at most {_MOST_LISTS}; there are {documents}"
            )

    def check_search(self, spec: IndexSpec, search_args: Mapping[str, int]) -> None:
        """Raise PlanError for search arguments that the index does not have or pgvector refuses."""
        check_arguments(spec, _kind(spec)[0], search_args, search=True)
        width = search_args.get("efSearch", 1)
        if width > _MOST_WIDTH:
            raise PlanError(f"efSearch={width} is outside pgvector's range; choose 1..{_MOST_WIDTH}")

    def builder(self, rows: CutRows, *, seed: int) -> PgvectorBuilder:  # noqa: ARG002 - pgvector takes none
        """A builder of tables; each holds its own copy of the rows."""
        return PgvectorBuilder(self.uri, rows)

    def load(self, path: Path) -> Table:
        """The table that a file stands for; raises ResultsError where it is gone."""
        return open_table(self.uri, path)

    def remove(self, path: Path) -> None:
        """Drop the table that a file stands for."""
        remove_table(self.uri, path)

    def threads(self, count: int) -> AbstractContextManager[None]:
        """So many clients at once; each query of PostgreSQL runs in one process of the server."""
        return search_threads.limited(count)


class PgvectorBuilder:
    """Fills tables with the rows of a corpus."""

    def __init__(self, uri: str, rows: CutRows) -> None:
        self._uri, self._rows = uri, rows

    def build(self, spec: IndexSpec) -> Table:
        """Copy the rows into a table and index it."""
        family, kind = _kind(spec)
        method = {"Flat": "", "HNSW": "hnsw", "IVF": "ivfflat"}[family.name]
        made = {}
        if method == "hnsw":
            made = {"m": family.number, "ef_construction": family.construction(spec.build_args)}
        elif method:
            made = {"lists": family.number}
        return build_table(self._uri, self._rows, spec, kind, method, made)


def _kind(spec: IndexSpec) -> tuple[Family, str]:
    family = family_of(spec, engine=_ENGINE)
    return family, one_of(spec, _TYPES, engine=_ENGINE)
