"""A collection of Milvus as an index: filled, indexed, loaded, and only searched from then on.

Rows are unit vectors compared by inner product. A collection of Milvus Lite without an address lies in a folder of its
own: a temporary one, until it is saved beside the file that stands for it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.errors import PlanError, ResultsError, VectorError
from toolkit.search.backend import BareSearch, IndexSpec
from toolkit.search.cut_rows import CutRows
from toolkit.search.database.clients import ask_all
from toolkit.search.database.factory import check_arguments, family_of
from toolkit.search.database.facts import Facts, new_name
from toolkit.search.filters import bound, ranks
from toolkit.search.milvus.client import connect, engine_errors, is_server, release_lite
from toolkit.search.neighbours import Neighbours

if TYPE_CHECKING:
    from pymilvus import MilvusClient

_VECTOR, _ROW, _RANK = "embedding", "id", "rank"
# One request holds at most this; a server refuses 64 MiB.
_INSERT_BYTES = 16 << 20
_QUERIES_AT_ONCE = 128
# A row's number (int64) and rank (int16).
_NUMBERS_BYTES = 10
_POLL_S = 0.02


def build_collection(
    uri: str, rows: CutRows, spec: IndexSpec, kind: str, made: Mapping[str, int | str]
) -> Collection:
    """A new collection of the rows with one index of Milvus's `kind` and build arguments.

    uri : as for `MilvusBackend`. Raises ResultsError for what Milvus refuses; nothing is left behind then.
    """
    own = None if uri else TemporaryDirectory(prefix="toolkit-milvus-")
    place = uri or f"{own.name}/index.db"
    with ExitStack() as undo:
        if own:
            undo.callback(own.cleanup)
            undo.callback(release_lite, Path(place))
        client = connect(place)
        undo.callback(client.close)
        name = new_name()
        undo.callback(_drop, client, name)
        with engine_errors(place):
            steps_s = _fill(client, name, rows, kind, made)
            stored = _server_bytes(client, name) if is_server(place) else _lite_bytes(Path(place), name)
            told = "" if stored else ", bytes of the rows alone"
            arguments = ", ".join(f"{key}={value}" for key, value in made.items())
            facts = Facts(
                name=name,
                rows=len(rows),
                dim=rows.dim,
                index=spec.index,
                precision=spec.precision,
                description=f"{_engine(client)} {kind}({arguments}){told}",
                steps_s=steps_s,
                index_bytes=stored or len(rows) * (4 * rows.dim + _NUMBERS_BYTES),
            )
        undo.pop_all()
    return Collection(place, client, facts, own, saved=False)


def open_collection(uri: str, path: Path) -> Collection:
    """The collection that the file at `path` stands for; raises ResultsError where it is gone or not whole."""
    facts = Facts.read(path)
    place = uri or str(_own_folder(path))
    if not is_server(place) and not Path(place).exists():
        raise ResultsError(f"index {path} cannot be read: {place} is missing; build it again")
    client = connect(place)
    with engine_errors(place):
        if not client.has_collection(facts.name):
            client.close()
            raise ResultsError(f"index {path}: Milvus has no collection {facts.name}; build it again")
        if int(client.get_collection_stats(facts.name)["row_count"]) != facts.rows:
            client.close()
            raise ResultsError(
                f"index {path}: its collection does not hold {facts.rows} rows; build it again"
            )
        _load(client, facts.name)
    return Collection(place, client, facts, None, saved=True)


def remove_collection(uri: str, path: Path) -> None:
    """Drop the collection that the file stands for, and the file; one that is gone already is none."""
    if uri:
        try:
            name = Facts.read(path).name
        except ResultsError:
            return
        client = connect(uri)
        _drop(client, name)
        client.close()
    else:
        folder = _own_folder(path)
        if folder.exists():
            release_lite(folder)
            shutil.rmtree(folder, ignore_errors=True)
    path.unlink(missing_ok=True)


class Collection:
    """A loaded collection; see `toolkit.search.backend.Index`."""

    device = "cpu"
    thread_safe = True
    peak_bytes = 0

    def __init__(
        self,
        place: str,
        client: MilvusClient,
        facts: Facts,
        own: TemporaryDirectory[str] | None,
        *,
        saved: bool,
    ) -> None:
        self._place, self._client, self._facts, self._own = place, client, facts, own
        self._saved = saved
        self._family = family_of(self._spec, engine="Milvus")
        self.description, self.dim, self.steps_s = facts.description, facts.dim, facts.steps_s
        self.build_s = sum(facts.steps_s.values())
        self.index_bytes = facts.index_bytes

    def __len__(self) -> int:
        return self._facts.rows

    @property
    def _spec(self) -> IndexSpec:
        return IndexSpec(self._facts.index, self._facts.precision, self._facts.dim)

    def search(self, queries: np.ndarray, k: int, search_args: Mapping[str, int] | None = None) -> Neighbours:
        """The k nearest rows of each query by inner product, as many queries per request as Milvus likes."""
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise VectorError(f"queries {queries.shape} do not fit an index of dimension {self.dim}")
        asked = self._asked(k, search_args)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            some = np.ascontiguousarray(queries[start : start + _QUERIES_AT_ONCE], dtype=np.float32)
            with engine_errors(self._place):
                answered = self._client.search(data=list(some), **asked)
            for i, hits in enumerate(answered, start):
                scores[i, : len(hits)], rows[i, : len(hits)] = _read(hits)
        return Neighbours(rows, scores)

    def bare_search(self, k: int, search_args: Mapping[str, int] | None = None) -> BareSearch:
        """One request per query; several queries are asked by as many clients at once as threads are allowed."""
        return self._asking(k, self._asked(k, search_args))

    def filtered_search(
        self, k: int, share: float, search_args: Mapping[str, int] | None = None
    ) -> BareSearch:
        """The same among the rows that pass a filter of this share; see `toolkit.search.filters`."""
        return self._asking(k, self._asked(k, search_args) | {"filter": f"{_RANK} < {bound(share)}"})

    def accelerated(self) -> Collection:
        """Itself: where it is searched is the server's affair."""
        return self

    def save(self, path: Path) -> None:
        """Write the file that stands for it; a collection in a temporary folder moves beside it."""
        if self._own is not None:
            folder = _own_folder(path)
            self._client.close()
            release_lite(Path(self._place))
            try:
                shutil.rmtree(folder, ignore_errors=True)
                shutil.move(self._place, folder)
            except OSError as error:
                raise ResultsError(f"index {path} cannot be written: {error.strerror}") from error
            self._own.cleanup()
            self._own, self._place = None, str(folder)
            self._client = connect(self._place)
            with engine_errors(self._place):
                _load(self._client, self._facts.name)
        self._facts.write(path)
        self._saved = True

    def close(self) -> None:
        """Let go of the connection; a collection that was never saved is removed."""
        if not self._saved:
            _drop(self._client, self._facts.name)
            self._saved = True
        self._client.close()
        if self._own is not None:
            release_lite(Path(self._place))
            self._own.cleanup()
            self._own = None

    def _asked(self, k: int, search_args: Mapping[str, int] | None) -> dict[str, Any]:
        arguments = dict(search_args or {})
        check_arguments(self._spec, self._family, arguments, search=True)
        if not 1 <= k <= len(self):
            raise PlanError(f"k {k} is outside the index's {len(self)} documents; choose 1..{len(self)}")
        asked = {}
        if self._family.name == "HNSW":
            asked = {"ef": self._family.width(arguments, k)}
        elif self._family.name == "IVF":
            asked = {"nprobe": self._family.probes(arguments)}
        return {
            "collection_name": self._facts.name,
            "anns_field": _VECTOR,
            "limit": k,
            "search_params": {"metric_type": "IP", "params": asked},
        }

    def _asking(self, k: int, asked: Mapping[str, Any]) -> BareSearch:
        call = self._client.search

        def search(queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            with engine_errors(self._place):
                return ask_all(lambda query: _read(call(data=[query], **asked)[0]), queries, k)

        return search


def _fill(
    client: MilvusClient, name: str, rows: CutRows, kind: str, made: Mapping[str, int | str]
) -> dict[str, float]:
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False)
    schema.add_field(_ROW, DataType.INT64, is_primary=True)
    schema.add_field(_RANK, DataType.INT16)
    schema.add_field(_VECTOR, DataType.FLOAT_VECTOR, dim=rows.dim)
    client.create_collection(name, schema=schema, consistency_level="Strong")
    rank = ranks(len(rows))
    step = max(1, _INSERT_BYTES // (4 * rows.dim + 16))
    insert_s = 0.0
    for first, block in rows.blocks():
        for start in range(0, len(block), step):
            some = block[start : start + step]
            numbers = range(first + start, first + start + len(some))
            entities = [
                {_ROW: row, _RANK: int(rank[row]), _VECTOR: vector}
                for row, vector in zip(numbers, some, strict=True)
            ]
            began = perf_counter()
            client.insert(name, entities)
            insert_s += perf_counter() - began
    began = perf_counter()
    client.flush(name)
    flushed = perf_counter()
    params = client.prepare_index_params()
    # Nested as older clients send it, which every server reads: Milvus Lite 3.2 passes over what pymilvus 3.0
    # writes flat, and builds with its own defaults.
    params.add_index(_VECTOR, index_type=kind, metric_type="IP", params={"params": dict(made)})
    client.create_index(name, params, sync=False)
    _wait(lambda: _indexed(client, name))
    _load(client, name)
    return {"add": insert_s + flushed - began, "index": perf_counter() - flushed}


def _indexed(client: MilvusClient, name: str) -> bool:
    told = client.describe_index(name, _VECTOR)
    if told.get("state") == "Failed":
        raise ResultsError(
            f"Milvus cannot build the index: {told.get('index_state_fail_reason', 'no reason given')}"
        )
    return told.get("state") == "Finished" and int(told.get("pending_index_rows", 0)) == 0


def _load(client: MilvusClient, name: str) -> None:
    from pymilvus.client.types import LoadState

    client.load_collection(name, _async=True)
    _wait(lambda: client.get_load_state(name)["state"] == LoadState.Loaded)


def _wait(done: Any) -> None:  # noqa: ANN401 - a call that says whether it is so
    # The client's own waits poll twice a second, which would be most of a small build's time.
    while not done():
        sleep(_POLL_S)


def _read(hits: Any) -> tuple[np.ndarray, np.ndarray]:  # noqa: ANN401 - pymilvus's own list
    return (
        np.fromiter((hit["distance"] for hit in hits), np.float32, len(hits)),
        np.fromiter((hit["id"] for hit in hits), np.int64, len(hits)),
    )


def _drop(client: MilvusClient, name: str) -> None:
    from pymilvus.exceptions import MilvusException

    with suppress(MilvusException):  # where the server is gone, only it can drop the collection
        client.drop_collection(name)


def _engine(client: MilvusClient) -> str:
    version = client.get_server_version()
    lite, _, number = version.partition("milvus_lite-")
    return f"Milvus Lite {number}" if number and not lite else f"Milvus {version}"


def _server_bytes(client: MilvusClient, name: str) -> int:
    """What the loaded segments take in the server's memory; 0 from a server that does not tell."""
    from grpc import RpcError, StatusCode

    try:
        return sum(int(segment.mem_size) for segment in client.list_loaded_segments(name))
    except RpcError as error:
        if error.code() is not StatusCode.UNIMPLEMENTED:
            raise
        return 0


def _lite_bytes(folder: Path, name: str) -> int:
    """What Milvus Lite keeps of a collection on disk: its rows and its index."""
    kept = [path for path in folder.rglob("*") if path.is_file() and name in path.parts]
    return sum(path.stat().st_size for path in kept)


def _own_folder(path: Path) -> Path:
    return path.with_name(f"{path.name}.db").resolve()
