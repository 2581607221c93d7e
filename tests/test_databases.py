"""Milvus Lite and PostgreSQL with pgvector as index backends, against the real ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from databases import postgres  # noqa: F401 - a fixture

from toolkit.errors import PlanError, ResultsError
from toolkit.experiment.plan import make_plan, read_plan
from toolkit.experiment.setting import Setting
from toolkit.experiment.sweep import run_sweep
from toolkit.search.backend import Filtering, IndexSpec, get_backend, threads
from toolkit.search.empty_last import CorpusBuilder, load_index
from toolkit.search.exact.search import exact_search
from toolkit.search.filters import passing, ranks
from toolkit.vectors import Vectors, normalize

ROWS, DIM = 1_500, 32
ENGINES = ["milvus", "pgvector"]


@pytest.fixture
def backend(request):
    """One of the two, at its default place for tests."""
    if request.param is None:
        return None
    if request.param == "milvus":
        pytest.importorskip("pymilvus", reason="pip install 'embedding-toolkit[milvus]'")
        pytest.importorskip("milvus_lite", reason="pip install 'embedding-toolkit[milvus]'")
        return get_backend("milvus")
    return get_backend(f"pgvector@{request.getfixturevalue('postgres')}")


@pytest.fixture(scope="module")
def corpus():
    """Rows in clusters, as texts are; two are empty."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((30, DIM))
    rows = normalize(centres[rng.integers(30, size=ROWS)] + 0.5 * rng.standard_normal((ROWS, DIM)))
    queries = normalize(rows[rng.integers(ROWS, size=20)] + 0.1 * rng.standard_normal((20, DIM)))
    rows[[7, 450]] = 0
    return Vectors(rows.astype(np.float32)), queries.astype(np.float32)


def recall(found, exact):
    return np.mean([np.isin(a, b).mean() for a, b in zip(exact, found, strict=True)])


def names_in(backend):
    """Tables left in the database."""
    import psycopg

    with psycopg.connect(backend.uri) as connection:
        found = connection.execute(
            "SELECT relname FROM pg_class WHERE relname LIKE 'toolkit%' AND relkind = 'r'"
        )
        return {name for (name,) in found.fetchall()}


@pytest.mark.parametrize(
    ("backend", "index", "precision", "search", "least"),
    [
        ("milvus", "Flat", "float32", {}, 1.0),
        ("milvus", "HNSW16", "float32", {"efSearch": 64}, 0.98),
        ("milvus", "HNSW16", "int8", {"efSearch": 64}, 0.9),
        ("milvus", "IVF8", "float32", {"nprobe": 8}, 1.0),
        ("milvus", "IVF8", "int8", {"nprobe": 8}, 0.9),
        ("pgvector", "Flat", "float32", {}, 1.0),
        ("pgvector", "Flat", "float16", {}, 0.99),
        ("pgvector", "Flat", "binary", {}, 0.2),
        ("pgvector", "HNSW16", "float32", {"efSearch": 64}, 0.98),
        ("pgvector", "HNSW16", "binary", {"efSearch": 64}, 0.2),
        ("pgvector", "IVF8", "float32", {"nprobe": 8}, 1.0),
        ("pgvector", "IVF8", "float16", {"nprobe": 8}, 0.99),
    ],
    indirect=["backend"],
)
def test_an_index_finds_its_rows_also_after_it_was_saved(
    backend, index, precision, search, least, corpus, tmp_path
):
    vectors, queries = corpus
    spec = IndexSpec(index, precision, DIM)
    backend.check(spec, documents=ROWS, k=10)
    backend.check_search(spec, search)
    built = CorpusBuilder(backend, vectors, DIM).build(spec)
    exact = exact_search(vectors.rows, queries, [DIM], k=10)[DIM]
    found = built.search(queries, 10, search)
    assert recall(found.rows, exact.rows) >= least
    assert not np.isin(found.rows, [7, 450]).any()
    if precision == "float32":
        np.testing.assert_allclose(found.scores[:, 0], exact.scores[:, 0], atol=1e-4)
    assert (np.diff(found.scores, axis=1) <= 1e-6).all()
    with threads(2, [backend]):
        scores, rows = built.bare_search(10, search)(queries)
    if precision != "binary":
        assert recall(rows, found.rows) > 0.99
    np.testing.assert_allclose(scores, found.scores, atol=1e-5)
    # Far more than a search's width, as in FAISS.
    assert (built.search(queries[:2], 200, search).rows >= 0).mean() > 0.95
    assert built.steps_s["add"] > 0
    assert built.build_s == pytest.approx(sum(built.steps_s.values()))
    stored = {"float32": 4, "float16": 2, "int8": 1, "binary": 1 / 8}[precision]
    assert ROWS * DIM * stored < built.index_bytes < 50 * ROWS * DIM * 4

    built.save(tmp_path / "one.index")
    np.testing.assert_array_equal(built.search(queries, 10, search).rows, found.rows)
    built.close()
    again = load_index(backend, tmp_path / "one.index")
    np.testing.assert_array_equal(again.search(queries, 10, search).rows, found.rows)
    assert (again.description, again.index_bytes, len(again)) == (built.description, built.index_bytes, ROWS)
    again.close()
    backend.remove(tmp_path / "one.index")
    with pytest.raises(ResultsError, match="build it again"):
        backend.load(tmp_path / "one.index")
    backend.remove(tmp_path / "one.index")
    if backend.name != "milvus":
        assert names_in(backend) == set()
    assert not any(path.suffix in (".index", ".db") for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("backend", "index"),
    [(None, "exact:Flat"), (None, "Flat"), (None, "HNSW16"), (None, "IVF8")]
    + [(engine, index) for engine in ENGINES for index in ("Flat", "HNSW16", "IVF8")],
    indirect=["backend"],
)
def test_a_filter_lets_the_same_rows_pass_in_every_index(backend, index, corpus):
    vectors, queries = corpus
    search = {"HNSW16": {"efSearch": 400}, "IVF8": {"nprobe": 8}}.get(index, {})
    built = CorpusBuilder(
        backend or get_backend(index.partition(":")[0] if ":" in index else "faiss"), vectors, DIM
    )
    built = built.build(IndexSpec(index.rpartition(":")[2], "float32", DIM))
    assert isinstance(built, Filtering)
    # Milvus Lite's graph is FAISS's; among few rows that pass, it may lose its way. All others find them.
    graph_of_faiss = "HNSW" in index and (backend is None or backend.name == "milvus")
    kept = np.delete(np.arange(ROWS), [7, 450])
    for share in (0.01, 0.5):
        which = kept[passing(ROWS - 2, share)]
        assert len(which) == pytest.approx(share * ROWS, abs=1)
        exact = which[exact_search(vectors.rows[which], queries, [DIM], k=10)[DIM].rows]
        scores, rows = built.filtered_search(20, share, search)(queries)
        assert rows.shape == scores.shape == (len(queries), 20)
        assert np.isin(rows, [*which, -1]).all()
        assert recall(rows[:, :10], exact) >= (0.5 if graph_of_faiss else 0.97)
    with pytest.raises(PlanError, match=r"k 1501 .* 1\.\."):
        built.bare_search(1501)
    built.close()


def test_ranks_are_even_and_the_same_every_time():
    assert np.array_equal(ranks(1_000), ranks(1_000))
    for share in (0.01, 0.1, 0.5):
        assert passing(1_000, share).sum() == 1_000 * share
        assert passing(123, share).sum() == pytest.approx(123 * share, abs=1)


@pytest.mark.parametrize(
    ("backend", "spec", "message"),
    [
        ("milvus", ("Flat", "float16"), "Milvus Lite has no Flat of precision float16; choose float32"),
        ("milvus", ("HNSW32", "pq"), "no HNSW32 of precision pq; choose float32, int8"),
        ("milvus", ("IVF16_HNSW32", "float32"), "no index 'IVF16_HNSW32'; choose Flat, HNSW"),
        ("milvus", ("IVF5000", "float32"), "IVF5000 needs as many documents as lists"),
        (
            "pgvector",
            ("HNSW32", "int8"),
            "pgvector has no HNSW32 of precision int8; choose float32, float16, binary",
        ),
        ("pgvector", ("HNSW101", "float32"), r"HNSW101: links must be 2\.\.100"),
        ("pgvector", ("HNSW32", "float32", 2001), r"dimension 2001 is outside .* 1\.\.2000"),
        (
            "pgvector",
            ("HNSW32", "float32", 64, {"efConstruction": 40}),
            r"efConstruction=40 must be 64\.\.1000",
        ),
        (
            "pgvector",
            ("Flat", "float32", 64, {"efConstruction": 40}),
            "no build argument 'efConstruction'; it has none",
        ),
    ],
    indirect=["backend"],
)
def test_what_an_engine_cannot_build_is_refused_beforehand(backend, spec, message):
    index, precision, *more = spec
    made = IndexSpec(index, precision, *(more or [64]))
    with pytest.raises(PlanError, match=message):
        backend.check(made, documents=1_000, k=10)
    with pytest.raises(PlanError, match="no search argument 'nprobe'; it has efSearch"):
        backend.check_search(IndexSpec("HNSW32", "float32", 64), {"nprobe": 4})


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    """400 documents, one of them empty, and 30 queries."""
    folder = tmp_path_factory.mktemp("letters")
    (folder / "qrels").mkdir()
    rng = np.random.default_rng(4)
    words = "sea wind stone river cloud bread paper night music light tree road gold ice"
    texts = [" ".join(rng.choice(words.split(), 6)) + f" number {i}" for i in range(400)]
    texts[17] = ""
    docs = [{"_id": f"d{i}", "text": text} for i, text in enumerate(texts)]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, docs)))
    asked = [{"_id": f"q{i}", "text": texts[20 + i][:-4]} for i in range(30)]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, asked)))
    judged = "\n".join(f"q{i}\td{20 + i}\t1" for i in range(30))
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    return f"beir:{folder}"


def sweep_into(folder, data, indexes, **fields):
    return run_sweep(
        make_plan(
            data=data,
            dims=[64],
            indexes=indexes,
            max_unlabelled=0,
            k=20,
            timing={"queries": 10, "rounds": 1, "threads": [1, 2], "filters": [0.01, 0.1, 0.5]},
        ),
        out=folder,
        progress=False,
        **fields,
    )


def test_a_sweep_has_the_same_rows_for_every_engine(postgres, letters, tmp_path):  # noqa: F811
    pytest.importorskip("milvus_lite")
    indexes = [
        {"factory": "HNSW16", "search": [{"efSearch": 128}], "backend": name, **place}
        for name, place in (("faiss", {}), ("milvus", {}), ("pgvector", {"uri": postgres}))
    ]
    results = sweep_into(tmp_path / "out", letters, indexes)
    table = results.measurements
    rows = table[table["dim"] == 64].set_index("index")
    assert list(rows.index) == ["faiss:HNSW16", "milvus:HNSW16", f"pgvector@{postgres}:HNSW16"]
    assert rows["factory"].str.contains("HNSW16|Milvus Lite|pgvector").all()
    assert rows["overlap@10"].max() - rows["overlap@10"].min() <= 0.02
    for share in (1, 10, 50):
        assert (rows[f"filtered_{share}pct_p95_ms"] > 0).all()
        assert rows[f"filtered_{share}pct_recall"].between(0.3 if share == 1 else 0.8, 1).all()
    for column in ("p95_ms", "qps", "build_s", "index_bytes", "insert_rows_per_s"):
        assert (rows[column] > 0).all(), column
    # Nothing is left in the databases, and a setting is read back as it was.
    assert names_in(get_backend(f"pgvector@{postgres}")) == set()
    for key in rows["setting"]:
        assert Setting.parse(key).key == key
    plan = read_plan(tmp_path / "out" / "plan.toml")
    assert [index.backend for index in plan.indexes] == ["faiss", "milvus", f"pgvector@{postgres}"]
    assert not list((tmp_path / "out" / "raw").glob("indexes-*"))
    before = (tmp_path / "out" / "measurements.parquet").read_bytes()
    again = sweep_into(tmp_path / "out", letters, indexes, resume=True).measurements
    assert again.equals(table), before[:4]


def test_an_address_is_part_of_a_backends_name_and_holds_no_secret(monkeypatch):
    plan = make_plan(
        indexes=["milvus@http://db.example:19530:HNSW32", "pgvector@postgresql:///a?user=b:Flat"]
    )
    assert [(index.backend, index.factory) for index in plan.indexes] == [
        ("milvus@http://db.example:19530", "HNSW32"),
        ("pgvector@postgresql:///a?user=b", "Flat"),
    ]
    for uri in ("postgresql://me:secret-word@host/db", "http://host:19530?token=secret-word"):
        with pytest.raises(PlanError, match=r"backend: an address with a user or a password") as caught:
            make_plan(indexes=[{"factory": "Flat", "backend": "pgvector", "uri": uri}])
        assert "secret-word" not in str(caught.value)
    with pytest.raises(PlanError, match="backend 'faiss' is on this machine; leave uri 'http://a' out"):
        get_backend("faiss@http://a")
    with pytest.raises(PlanError, match="is not a Milvus server"):
        get_backend("milvus@postgresql://host/db")
    with pytest.raises(PlanError, match=r"its name ends with \.db"):
        get_backend("milvus@somewhere")
    pytest.importorskip("psycopg")
    for uri, message in {
        "": "needs the address of a database",
        "http://host": "is not an address of PostgreSQL",
        "postgresql:///db?passfile=/etc/passwd": "parameter 'passfile' may not stand there",
        "postgresql://good/db?hostaddr=10.0.0.1": "parameter 'hostaddr' may not",
        "postgresql://good/db?service=other": "parameter 'service' may not",
    }.items():
        with pytest.raises(PlanError, match=message):
            get_backend(f"pgvector@{uri}" if uri else "pgvector").check(
                IndexSpec("Flat", "float32", 8), documents=100, k=10
            )


def test_a_secret_goes_only_where_its_user_allows(monkeypatch, corpus):
    from toolkit.search.milvus.client import _token

    pytest.importorskip("psycopg")
    from toolkit.search.pgvector.connection import connect

    monkeypatch.delenv("TOOLKIT_KEY_HOSTS", raising=False)
    monkeypatch.setenv("MILVUS_TOKEN", "root:Milvus")
    monkeypatch.setenv("PGPASSWORD", "secret-word")
    with pytest.raises(PlanError, match=r"MILVUS_TOKEN .* http://evil\.example:19530; allow it with"):
        _token("http://evil.example:19530")
    assert _token("own.db") == ""
    for uri in ("postgresql://evil.example/db", "postgresql:///db?host=evil.example"):
        with pytest.raises(PlanError, match=r"PGPASSWORD .* postgresql://evil\.example") as caught:
            connect(uri)
        assert "secret-word" not in str(caught.value)
    monkeypatch.setenv(
        "TOOLKIT_KEY_HOSTS", "MILVUS_TOKEN=http://own.example:19530,PGPASSWORD=postgresql://127.0.0.1:1"
    )
    assert _token("http://own.example:19530") == "root:Milvus"
    with pytest.raises(ResultsError, match=r"PostgreSQL at postgresql://127\.0\.0\.1:1/db: ") as caught:
        connect("postgresql://127.0.0.1:1/db")
    assert "secret-word" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_or_foreign_file_never_reaches_the_database(postgres, tmp_path):  # noqa: F811
    backend = get_backend(f"pgvector@{postgres}")
    path = tmp_path / "one.index"
    facts = {"name": "pg_class; DROP TABLE x", "rows": 1, "dim": 2, "index": "Flat", "precision": "float32"}
    path.write_text(json.dumps(facts | {"description": "", "steps_s": {}, "index_bytes": 1}))
    with pytest.raises(ResultsError, match="is not a name that this package gives"):
        backend.load(path)
    path.write_text("{")
    with pytest.raises(ResultsError, match="cannot be read"):
        backend.load(path)


def test_a_milvus_server_is_reached_by_its_address(corpus, tmp_path):
    """Milvus Lite behind a port speaks the protocol of any Milvus, but for the sizes of its segments."""
    server_of = pytest.importorskip("milvus_lite.adapter.grpc.server")
    vectors, queries = corpus
    server, database, port = server_of.start_server_in_thread(str(tmp_path / "served"))
    backend = get_backend(f"milvus@http://127.0.0.1:{port}")
    built = CorpusBuilder(backend, vectors, DIM).build(IndexSpec("HNSW16", "float32", DIM))
    assert built.description.endswith("HNSW(M=16, efConstruction=40), bytes of the rows alone")
    assert built.index_bytes == (ROWS - 2) * (4 * DIM + 10) + 8 * (ROWS - 1)
    built.save(tmp_path / "one.index")
    exact = exact_search(vectors.rows, queries, [DIM], k=10)[DIM]
    again = load_index(backend, tmp_path / "one.index")
    assert recall(again.search(queries, 10, {"efSearch": 64}).rows, exact.rows) > 0.98
    backend.remove(tmp_path / "one.index")
    search = again.bare_search(10)
    with pytest.raises(ResultsError, match=rf"Milvus at http://127\.0\.0\.1:{port}: ") as caught:
        search(queries)
    assert "\n" not in str(caught.value)
    server.stop(0)
    database.close()


def test_a_table_that_vanishes_is_one_line(postgres, corpus):  # noqa: F811
    import psycopg

    vectors, queries = corpus
    built = CorpusBuilder(get_backend(f"pgvector@{postgres}"), vectors, DIM).build(
        IndexSpec("Flat", "float32", DIM)
    )
    search = built.bare_search(5)
    search(queries)
    with psycopg.connect(postgres, autocommit=True) as connection:
        for name in names_in(get_backend(f"pgvector@{postgres}")):
            connection.execute(f"DROP TABLE {name}")
    with pytest.raises(ResultsError, match=r"PostgreSQL at postgresql:.* does not exist") as caught:
        search(queries)
    assert "\n" not in str(caught.value)
    built.close()


def test_measurements_are_read_without_a_databases_packages(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    for name in ("pgvector@postgresql://elsewhere/db", "milvus@http://elsewhere:19530"):
        count, each = get_backend(name).compared(
            IndexSpec("HNSW32", "float32", 64), {"efSearch": 32}, documents=10**6, k=10
        )
        assert 32 < count < 10**6
        assert each == 256


def test_a_milvus_file_of_ones_own_is_used_and_left_clean(corpus, tmp_path):
    pytest.importorskip("milvus_lite")
    vectors, queries = corpus
    backend = get_backend(f"milvus@{tmp_path / 'mine.db'}")
    built = CorpusBuilder(backend, vectors, DIM).build(IndexSpec("Flat", "float32", DIM))
    built.save(tmp_path / "one.index")
    found = built.search(queries, 5).rows
    np.testing.assert_array_equal(load_index(backend, tmp_path / "one.index").search(queries, 5).rows, found)
    built.close()
    backend.remove(tmp_path / "one.index")
    from toolkit.search.milvus.client import connect

    assert connect(str(tmp_path / "mine.db")).list_collections() == []


def test_a_killed_sweep_finds_its_table_again(postgres, corpus, tmp_path):  # noqa: F811
    """Another process built and saved it, and is gone."""
    code = f"""
import numpy as np
from pathlib import Path
from toolkit.search.backend import IndexSpec, get_backend
from toolkit.search.empty_last import CorpusBuilder
from toolkit.vectors import Vectors
rows = np.load({str(tmp_path / "rows.npy")!r})
CorpusBuilder(get_backend({f"pgvector@{postgres}"!r}), Vectors(rows), 32).build(
    IndexSpec("HNSW16", "float32", 32)).save(Path({str(tmp_path / "one.index")!r}))
import os; os._exit(9)
"""
    vectors, queries = corpus
    np.save(tmp_path / "rows.npy", vectors.rows)
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 9, done.stderr
    backend = get_backend(f"pgvector@{postgres}")
    assert len(names_in(backend)) == 1
    found = load_index(backend, tmp_path / "one.index").search(queries, 10, {"efSearch": 64}).rows
    assert recall(found, exact_search(vectors.rows, queries, [DIM], k=10)[DIM].rows) > 0.95
    backend.remove(tmp_path / "one.index")
    assert names_in(backend) == set()
