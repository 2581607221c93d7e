"""A table of PostgreSQL as an index: filled, indexed by pgvector, and only searched from then on.

Rows are unit vectors compared by inner product, bits by Hamming distance. Settings that steer a search are set on the
connection before it, so that a statement is the search alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.errors import PlanError, ResultsError, VectorError
from toolkit.search.backend import BareSearch, IndexSpec
from toolkit.search.cut_rows import CutRows
from toolkit.search.database.clients import ask_all
from toolkit.search.database.factory import check_arguments, family_of
from toolkit.search.database.facts import Facts, new_name
from toolkit.search.filters import bound, ranks
from toolkit.search.neighbours import Neighbours
from toolkit.search.pgvector.connection import connect, engine_errors

if TYPE_CHECKING:
    from psycopg import Connection

_VECTOR, _ROW, _RANK = "embedding", "id", "rank"
# By type: its operator, and the class that makes an index of it.
_OPERATORS = {
    "vector": ("<#>", "vector_ip_ops"),
    "halfvec": ("<#>", "halfvec_ip_ops"),
    "bit": ("<~>", "bit_hamming_ops"),
}
_TYPES = {"float32": "vector", "float16": "halfvec", "binary": "bit"}


def build_table(
    uri: str, rows: CutRows, spec: IndexSpec, kind: str, method: str, made: Mapping[str, int]
) -> Table:
    """A new table of the rows, of type `kind`, with an index by `method` (empty for none) and its arguments.

    Raises ResultsError for what PostgreSQL refuses; nothing is left behind then.
    """
    name = new_name()
    with closing(connect(uri)) as connection, engine_errors(uri), ExitStack() as undo:
        undo.callback(_drop, connection, name)
        steps_s = {"add": _fill(connection, name, rows, kind)}
        if method:
            steps_s["index"] = _index(connection, name, kind, method, made)
        connection.execute(f"ANALYZE {name}")
        facts = Facts(
            name=name,
            rows=len(rows),
            dim=rows.dim,
            index=spec.index,
            precision=spec.precision,
            description=_description(connection, kind, method, made),
            steps_s=steps_s,
            index_bytes=_one(connection, f"SELECT pg_total_relation_size('{name}')"),
        )
        undo.pop_all()
    return Table(uri, facts, saved=False)


def open_table(uri: str, path: Path) -> Table:
    """The table that the file at `path` stands for; raises ResultsError where it is gone or not whole."""
    facts = Facts.read(path)
    with closing(connect(uri)) as connection, engine_errors(uri):
        if connection.execute("SELECT to_regclass(%s)", [facts.name]).fetchone() == (None,):
            raise ResultsError(f"index {path}: PostgreSQL has no table {facts.name}; build it again")
        if _one(connection, f"SELECT count(*) FROM {facts.name}") != facts.rows:  # noqa: S608 - Facts checks it
            raise ResultsError(f"index {path}: its table does not hold {facts.rows} rows; build it again")
    return Table(uri, facts, saved=True)


def remove_table(uri: str, path: Path) -> None:
    """Drop the table that the file stands for, and the file; one that is gone already is none."""
    try:
        name = Facts.read(path).name
    except ResultsError:
        return
    with closing(connect(uri)) as connection:
        _drop(connection, name)
    path.unlink(missing_ok=True)


class Table:
    """A filled table; see `toolkit.search.backend.Index`. It opens as many connections as clients ask at once."""

    device = "cpu"
    thread_safe = True
    peak_bytes = 0

    def __init__(self, uri: str, facts: Facts, *, saved: bool) -> None:
        self._uri, self._facts, self._saved = uri, facts, saved
        self._spec = IndexSpec(facts.index, facts.precision, facts.dim)
        self._family = family_of(self._spec, engine="pgvector")
        self._type = _TYPES[facts.precision]
        self._idle: SimpleQueue[tuple[Connection[Any], dict[str, object]]] = SimpleQueue()
        self.description, self.dim, self.steps_s = facts.description, facts.dim, facts.steps_s
        self.build_s = sum(facts.steps_s.values())
        self.index_bytes = facts.index_bytes

    def __len__(self) -> int:
        return self._facts.rows

    def search(self, queries: np.ndarray, k: int, search_args: Mapping[str, int] | None = None) -> Neighbours:
        """The k nearest rows of each query, by inner product or minus the Hamming distance."""
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise VectorError(f"queries {queries.shape} do not fit an index of dimension {self.dim}")
        scores, rows = self.bare_search(k, search_args)(np.ascontiguousarray(queries, dtype=np.float32))
        return Neighbours(rows, scores)

    def bare_search(self, k: int, search_args: Mapping[str, int] | None = None) -> BareSearch:
        """One statement per query; several queries are asked by as many clients at once as threads are allowed."""
        return self._asking(k, search_args, "")

    def filtered_search(
        self, k: int, share: float, search_args: Mapping[str, int] | None = None
    ) -> BareSearch:
        """The same among the rows that pass a filter of this share; an index is read on until k of them are found."""
        return self._asking(k, search_args, f"WHERE {_RANK} < {bound(share)}")

    def accelerated(self) -> Table:
        """Itself: where it is searched is the server's affair."""
        return self

    def save(self, path: Path) -> None:
        """Write the file that stands for it."""
        self._facts.write(path)
        self._saved = True

    def close(self) -> None:
        """Let go of the connections; a table that was never saved is removed."""
        with suppress(Empty):
            while True:
                self._idle.get_nowait()[0].close()
        if not self._saved:
            with closing(connect(self._uri)) as connection:
                _drop(connection, self._facts.name)
            self._saved = True

    def _asking(self, k: int, search_args: Mapping[str, int] | None, where: str) -> BareSearch:
        arguments = dict(search_args or {})
        check_arguments(self._spec, self._family, arguments, search=True)
        if not 1 <= k <= len(self):
            raise PlanError(f"k {k} is outside the index's {len(self)} documents; choose 1..{len(self)}")
        operator, _ = _OPERATORS[self._type]
        statement = (
            f"SELECT {_ROW}, {_VECTOR} {operator} %b AS distance FROM {self._facts.name} {where} "  # noqa: S608
            f"ORDER BY distance LIMIT {k}"
        )
        settings = self._settings(k, arguments, filtered=bool(where))
        given = _converter(self._type)

        def ask(query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            with self._connection(settings) as connection:
                found = connection.execute(statement, [given(query)], prepare=True, binary=True).fetchall()
            rows = np.fromiter((row for row, _ in found), np.int64, len(found))
            return -np.fromiter((distance for _, distance in found), np.float32, len(found)), rows

        def search(queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            with engine_errors(self._uri):
                return ask_all(ask, queries, k)

        return search

    def _settings(self, k: int, arguments: Mapping[str, int], *, filtered: bool) -> dict[str, object]:
        settings: dict[str, object] = {"max_parallel_workers_per_gather": 0, "jit": "off"}
        if self._family.name == "HNSW":
            settings["hnsw.ef_search"] = self._family.width(arguments, k)
            settings["hnsw.iterative_scan"] = "strict_order" if filtered else "off"
        elif self._family.name == "IVF":
            settings["ivfflat.probes"] = self._family.probes(arguments)
            settings["ivfflat.iterative_scan"] = "relaxed_order" if filtered else "off"
        if self._family.name != "Flat":
            # Else a small table would be scanned, and what is measured would not be the index.
            settings["enable_seqscan"] = "off"
        return settings

    @contextmanager
    def _connection(self, settings: dict[str, object]) -> Iterator[Connection[Any]]:
        """An idle connection, or a new one, with these settings."""
        try:
            connection, has = self._idle.get_nowait()
        except Empty:
            connection, has = connect(self._uri), {}
        with ExitStack() as undo:
            undo.callback(connection.close)
            if has != settings:
                for name, value in settings.items():
                    connection.execute(f"SET {name} = {value}")
            yield connection
            undo.pop_all()
        self._idle.put((connection, settings))


def _converter(kind: str) -> Callable[[np.ndarray], Any]:
    from pgvector import Bit, HalfVector, Vector

    if kind == "bit":
        return lambda row: Bit(row > 0)
    return Vector if kind == "vector" else HalfVector


def _fill(connection: Connection[Any], name: str, rows: CutRows, kind: str) -> float:
    rank = ranks(len(rows))
    given = _converter(kind)
    began = perf_counter()
    connection.execute(
        f"CREATE TABLE {name} ({_ROW} integer NOT NULL, {_RANK} smallint NOT NULL, "
        f"{_VECTOR} {kind}({rows.dim}) NOT NULL)"
    )
    seconds = perf_counter() - began
    for first, block in rows.blocks():
        began = perf_counter()
        with (
            connection.cursor() as cursor,
            cursor.copy(f"COPY {name} ({_ROW}, {_RANK}, {_VECTOR}) FROM STDIN WITH (FORMAT BINARY)") as copy,
        ):
            copy.set_types(["int4", "int2", kind])
            for row, vector in enumerate(block, first):
                copy.write_row((row, int(rank[row]), given(vector)))
        seconds += perf_counter() - began
    return seconds


def _index(connection: Connection[Any], name: str, kind: str, method: str, made: Mapping[str, int]) -> float:
    arguments = ", ".join(f"{key} = {value}" for key, value in made.items())
    began = perf_counter()
    connection.execute(
        f"CREATE INDEX ON {name} USING {method} ({_VECTOR} {_OPERATORS[kind][1]}) WITH ({arguments})"
    )
    return perf_counter() - began


def _description(connection: Connection[Any], kind: str, method: str, made: Mapping[str, int]) -> str:
    server = _one(connection, "SHOW server_version").split()[0]
    version = _one(connection, "SELECT extversion FROM pg_extension WHERE extname = 'vector'")
    arguments = ", ".join(f"{key}={value}" for key, value in made.items())
    return f"PostgreSQL {server}, pgvector {version}: {kind}, {f'{method}({arguments})' if method else 'no index'}"


def _one(connection: Connection[Any], statement: str) -> Any:  # noqa: ANN401 - a column of any type
    return connection.execute(statement).fetchone()[0]


def _drop(connection: Connection[Any], name: str) -> None:
    import psycopg

    with suppress(psycopg.Error):  # where the server is gone, only it can drop the table
        connection.execute(f"DROP TABLE IF EXISTS {name}")
