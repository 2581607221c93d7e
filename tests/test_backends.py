"""An index backend is a protocol: what a third one needs, what all of them owe, and what the grid does with them."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext

import numpy as np
import pytest

import toolkit
from toolkit.errors import DataError, PlanError, ResultsError
from toolkit.experiment.grid import check_grid, lay_out
from toolkit.experiment.index_store import IndexStore
from toolkit.experiment.plan import make_plan
from toolkit.search import backend as backends
from toolkit.search.backend import IndexSpec, backend_names, backend_of, get_backend, register
from toolkit.search.empty_last import CorpusBuilder, load_index
from toolkit.search.exact.backend import ExactBackend
from toolkit.search.exact.search import exact_search
from toolkit.search.neighbours import Neighbours
from toolkit.vectors import Vectors, normalize, truncate

ONE_ROUND = {"queries": 4, "rounds": 1, "threads": [1]}


class TinyIndex:
    """Rows in cells by their largest number; a search reads the cells of a query's largest numbers."""

    description, device, thread_safe, peak_bytes = "cells", "cpu", True, 0

    def __init__(self, rows):
        self.rows, self.dim = rows, rows.shape[1]
        self.steps_s, self.build_s, self.index_bytes = {"sort": 0.25}, 0.25, rows.nbytes
        self.cell = np.abs(rows).argmax(axis=1)

    def __len__(self):
        return len(self.rows)

    def search(self, queries, k, search_args=None):
        scores, rows = self.bare_search(k, search_args)(queries)
        return Neighbours(rows, scores)

    def bare_search(self, k, search_args=None):
        read = dict(search_args or {}).get("cells", self.dim)

        def search(queries):
            scores = queries @ self.rows.T
            for i, query in enumerate(queries):
                scores[i, ~np.isin(self.cell, np.argsort(-np.abs(query))[:read])] = -np.inf
            rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            scores = np.take_along_axis(scores, rows, axis=1)
            return scores, np.where(np.isneginf(scores), -1, rows)

        return search

    def accelerated(self):
        return self

    def save(self, path):
        path.write_bytes(self.rows.tobytes() + np.int64(self.dim).tobytes())

    def close(self):
        self.rows = None


class TinyBackend:
    """All that a third backend has to be."""

    name = "tiny"

    def check(self, spec, *, documents, k):
        if spec.index != "cells" or spec.precision != "float32":
            raise PlanError(f"tiny has no {spec.precision} {spec.index}; choose float32 cells")

    def check_search(self, spec, search_args):
        if set(search_args) - {"cells"}:
            raise PlanError("tiny knows the search argument cells only")

    def searches(self, spec):
        return [{"cells": 2}, {"cells": spec.dim}]

    def compared(self, spec, search_args, *, documents, k):
        return documents * search_args.get("cells", spec.dim) / spec.dim, 4.0 * spec.dim

    def builder(self, rows, *, seed):
        self.rows = rows
        return self

    def build(self, spec):
        return TinyIndex(self.rows.all)

    def load(self, path):
        try:
            stored = path.read_bytes()
        except OSError as error:
            raise ResultsError(f"{path} cannot be read") from error
        dim = int(np.frombuffer(stored[-8:], np.int64)[0])
        return TinyIndex(np.frombuffer(stored[:-8], np.float32).reshape(-1, dim))

    def threads(self, count):
        return nullcontext()


@pytest.fixture
def tiny():
    backend = TinyBackend()
    register(backend)
    yield backend
    del backends._OPEN["tiny"]


@pytest.fixture
def letters(tmp_path):
    """60 documents; one is empty, and so is no query."""
    folder = tmp_path / "letters"
    (folder / "qrels").mkdir(parents=True)
    texts = [f"document {i} about topic {i * 7 % 13} and {i * 3 % 11}" for i in range(60)]
    texts[17] = ""
    docs = [{"_id": f"d{i}", "text": text} for i, text in enumerate(texts)]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, docs)))
    queries = [{"_id": f"q{i}", "text": f"topic {i * 7 % 13} number {i}"} for i in range(8)]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    judged = "\n".join(f"q{i}\td{i}\t1" for i in range(8))
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    return f"beir:{folder}"


def test_a_third_backend_runs_through_a_whole_sweep(tiny, letters, tmp_path):
    results = toolkit.sweep(
        data=letters,
        dims=[64],
        indexes=["tiny:cells", "exact"],
        rescore=[{"dim": "full", "candidates": [20, 40]}],
        k=10,
        timing=ONE_ROUND,
        out=tmp_path / "out",
        progress=False,
    ).results
    table = results.measurements.set_index("setting")
    keys = [key for key in table.index if key.startswith("64 float32 tiny:cells")]
    assert sorted(keys) == sorted(
        f"64 float32 tiny:cells cells={cells}{rescored}"
        for cells in (2, 64)
        for rescored in ("", " rescore=256@20", " rescore=256@40")
    )
    tiny_all, exact = table.loc["64 float32 tiny:cells cells=64"], table.loc["64 float32 exact:Flat"]
    assert tiny_all["factory"] == "cells"
    assert exact["factory"] == "exact scan"
    assert tiny_all["build_s"] == 0.25
    # An index that reads every cell finds what the exact scan finds.
    assert tiny_all["overlap@10"] == exact["overlap@10"]
    assert table.loc["64 float32 tiny:cells cells=2"]["overlap@10"] < exact["overlap@10"]
    assert (table["p95_ms"] > 0).all()


def test_a_registered_backend_checks_its_own_plan(tiny):
    plan = make_plan(indexes=["tiny:lists"])
    with pytest.raises(PlanError, match=r"^indexes\[0\]: tiny has no float32 lists; choose float32 cells$"):
        check_grid(plan, lay_out(plan, [8], 8), documents=100)
    plan = make_plan(indexes=["Flat", {"factory": "tiny:cells", "search": [{"cells": 2}, {"rooms": 1}]}])
    with pytest.raises(PlanError, match=r"^indexes\[1\]\.search\[1\]: tiny knows"):
        check_grid(plan, lay_out(plan, [8], 8), documents=100)


def test_backends_are_found_by_name_and_by_entry_point(monkeypatch):
    assert {"exact", "faiss"} <= set(backend_names())
    assert isinstance(get_backend("exact"), ExactBackend)
    with pytest.raises(PlanError, match="unknown index backend 'exakt'; did you mean 'exact'"):
        get_backend("exakt")
    with pytest.raises(PlanError, match=r"indexes\[0\]: unknown index backend 'qdrant'"):
        lay_out(make_plan(indexes=["qdrant:FLAT"]), [8], 8)

    class Installed:
        name = "elsewhere"

        def load(self):
            return TinyBackend

    monkeypatch.setattr(backends, "entry_points", lambda group: [Installed()] * (group == "toolkit.backends"))
    monkeypatch.setattr(backends, "_OPEN", {})
    assert isinstance(get_backend("elsewhere"), TinyBackend)
    monkeypatch.setattr(Installed, "load", lambda self: dict)
    monkeypatch.setattr(backends, "_OPEN", {})
    with pytest.raises(PlanError, match="'elsewhere' lacks methods"):
        get_backend("elsewhere")


def test_flat_needs_no_faiss(monkeypatch, letters, tmp_path):
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr(backends, "_OPEN", {})
    assert backend_of("auto", "Flat").name == "exact"
    swept = {"data": letters, "dims": [64], "timing": ONE_ROUND, "out": tmp_path / "out", "progress": False}
    results = toolkit.sweep(**swept).results
    assert set(results.measurements["factory"]) == {"exact scan"}
    with pytest.raises(PlanError, match=r"indexes\[0\]: backend 'exact' stores float32, not int8.*\[cpu\]"):
        toolkit.sweep(**swept | {"precisions": ["int8"], "out": tmp_path / "other"})


def rows_with_gaps(dim=16, count=600):
    rows = normalize(np.random.default_rng(0).standard_normal((count, dim)))
    rows[[7, 450]] = 0
    return Vectors(rows)


@pytest.mark.parametrize(
    ("index", "precision", "search"),
    [
        ("exact:Flat", "float32", {}),
        ("Flat", "float32", {}),
        ("HNSW32", "float32", {"efSearch": 600}),
        ("HNSW32", "pq", {"efSearch": 600}),
        ("HNSW16", "binary", {"efSearch": 600}),
        ("IVF4", "float32", {"nprobe": 4}),
        ("IVF4", "rabitq", {"nprobe": 4}),
        ("Flat", "pq", {}),
        ("Flat", "int8", {}),
        ("Flat", "binary", {}),
    ],
)
def test_empty_texts_rank_last_in_every_index(index, precision, search, tmp_path):
    name, _, index = index.rpartition(":")
    backend = backend_of(name or "auto", index)
    built = CorpusBuilder(backend, rows_with_gaps(), 16).build(IndexSpec(index, precision, 16))
    queries = normalize(np.random.default_rng(1).standard_normal((5, 16)))
    found = built.search(queries, 600, search)
    assert len(built) == 600
    assert found.rows[:, -2:].tolist() == [[7, 450]] * 5
    assert np.isneginf(found.scores[:, -2:]).all()
    assert sorted(found.rows[0]) == list(range(600))
    few = built.search(queries, 100, search)
    assert not np.isin(few.rows, [7, 450]).any()
    np.testing.assert_array_equal(built.bare_search(600, search)(queries)[1], found.rows)
    built.save(tmp_path / "index")
    again = load_index(backend, tmp_path / "index")
    np.testing.assert_array_equal(again.search(queries, 600, search).rows, found.rows)
    assert again.index_bytes == built.index_bytes


def test_a_corpus_of_empty_texts_is_refused():
    with pytest.raises(DataError, match="all 30 rows are zero at dimension 8"):
        CorpusBuilder(get_backend("exact"), Vectors(np.zeros((30, 8), np.float32)), 8)


def test_the_exact_backend_is_the_exact_search(tmp_path):
    rows = normalize(np.random.default_rng(2).standard_normal((500, 32)))
    queries = normalize(np.random.default_rng(3).standard_normal((20, 32)))
    backend = get_backend("exact")
    built = CorpusBuilder(backend, Vectors(rows), 24).build(IndexSpec("Flat", "float32", 24))
    exact = exact_search(rows, queries, [24], k=30)[24]
    cut = truncate(queries, 24)
    np.testing.assert_array_equal(built.search(cut, 30).rows, exact.rows)
    for batch in (cut[:1], cut):
        scores, found = built.bare_search(30)(batch)
        np.testing.assert_array_equal(found, exact.rows[: len(batch)])
        np.testing.assert_allclose(scores, exact.scores[: len(batch)], atol=1e-6)
    assert built.bare_search(500)(cut[:1])[1].shape == (1, 500)
    assert built.index_bytes == 500 * 24 * 4
    built.save(tmp_path / "index")
    np.testing.assert_array_equal(backend.load(tmp_path / "index").search(cut, 30).rows, exact.rows)
    (tmp_path / "index").write_bytes(b"\x93NUMPY")
    with pytest.raises(ResultsError, match="cannot be read"):
        backend.load(tmp_path / "index")
    with pytest.raises(PlanError, match="no search argument 'nprobe'"):
        built.search(cut, 3, {"nprobe": 2})
    with pytest.raises(PlanError, match=r"k 501 .* 1\.\.500"):
        built.search(cut, 501)


def test_an_index_store_holds_what_fits_and_reads_the_rest(tmp_path, tiny):
    one, other = (TinyIndex(normalize(np.random.default_rng(i).random((10, 4)))) for i in (0, 1))
    store = IndexStore(tmp_path / "indexes", room_bytes=one.index_bytes + 1)
    store.put("one", one)
    store.put("other", other)
    assert store.get("one", tiny) is one
    read = store.get("other", tiny)
    assert read is not other
    np.testing.assert_array_equal(read.rows, other.rows)
    assert store.has("other", tiny)
    assert not store.has("third", tiny)
    assert list(store.groups({"a": 100, "b": 61, "c": 99})) == [{"a", "b"}, {"c"}]
    assert list(store.groups({"a": 900, "b": 1})) == [{"a"}, {"b"}]
    store.clear()
    assert one.rows is None
    assert not store.has("one", tiny)


class FullDevice(TinyIndex):
    """A device that has had room, or has none."""

    room = True
    moved = 0

    def accelerated(self):
        if not FullDevice.room:
            return self
        FullDevice.moved += 1
        copy = TinyIndex(self.rows)
        copy.device = "gpu"
        copy.close = lambda: setattr(FullDevice, "moved", FullDevice.moved - 1)
        return copy


def test_indexes_go_to_a_device_one_by_one_and_stay_there(tiny, letters, tmp_path, monkeypatch):
    held = []
    monkeypatch.setattr(TinyBackend, "build", lambda self, spec: FullDevice(self.rows.all))
    monkeypatch.setattr(TinyBackend, "load", lambda self, path: FullDevice(np.zeros((60, 64), np.float32)))
    bare = TinyIndex.bare_search
    monkeypatch.setattr(
        TinyIndex,
        "bare_search",
        lambda self, *a: held.append((self.device, FullDevice.moved)) or bare(self, *a),
    )
    plan = {
        "data": letters,
        "dims": [64, 128],
        "indexes": ["tiny:cells"],
        "timing": ONE_ROUND,
        "progress": False,
    }
    table = toolkit.sweep(**plan, out=tmp_path / "out").results.measurements.set_index("index")
    assert set(table.loc["tiny:cells"]["index_device"]) == {"gpu"}
    assert {device for device, _ in held} == {"gpu"}
    assert {moved for _, moved in held} == {1}, "never two on the device at once"
    assert FullDevice.moved == 0
