"""Vectors that stay in their file: what a sweep of them finds, and that no copy of them is ever made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import faiss
import numpy as np
import pytest

import toolkit
from toolkit.embedding.given import vectors_of
from toolkit.errors import PlanError, ResultsError
from toolkit.search.backend import IndexSpec, get_backend
from toolkit.search.cut_rows import CutRows
from toolkit.search.empty_last import CorpusBuilder, load_index
from toolkit.search.exact.search import exact_search
from toolkit.search.faiss.backend import build_index
from toolkit.search.faiss.index import BuiltIndex
from toolkit.vectors import Vectors, truncate

pytestmark = pytest.mark.filterwarnings("ignore::toolkit.errors.DimensionWarning")
ROWS, DIM = 4_000, 32


def clustered(rows, seed):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).standard_normal((40, DIM))
    return (centres[rng.integers(0, 40, rows)] + rng.standard_normal((rows, DIM))).astype(np.float32)


QUERIES = clustered(30, seed=1)


@pytest.fixture
def mapped(tmp_path):
    rows = clustered(ROWS, seed=2).astype(np.float16)
    rows[[5, 77]] = 0  # empty texts
    np.save(tmp_path / "rows.npy", rows)
    return np.load(tmp_path / "rows.npy", mmap_mode="r")


@pytest.fixture
def small_limits(monkeypatch):
    """A few thousand rows count as more than memory holds."""
    monkeypatch.setattr("toolkit.search.cut_rows._HELD_BYTES", 1_000)
    monkeypatch.setattr("toolkit.experiment.grid.SCANNED_BYTES", 1_000)
    monkeypatch.setattr("toolkit.search.faiss.on_disk._PART_BYTES", 20_000)
    monkeypatch.setattr("toolkit.search.cut_rows.BLOCK_ROWS", 512)


def test_a_sweep_of_mapped_half_precision_rows_finds_what_one_of_float32_rows_in_memory_does(
    mapped, tmp_path, monkeypatch
):
    plan = {
        "dims": [16, 32],
        "precisions": ["pq"],
        "indexes": ["IVF8", {"factory": "IVF8", "build": {"on_disk": 1}, "search": [{"nprobe": 4}]}],
        "k": 10,
        "timing": {"queries": 3, "rounds": 1, "threads": [1], "filters": [0.5]},
        "progress": False,
    }
    held = toolkit.sweep(embedder=(mapped.astype(np.float32), QUERIES), out=tmp_path / "held", **plan).frame()
    limits = {
        "toolkit.search.cut_rows._HELD_BYTES": 1_000,
        "toolkit.experiment.grid.SCANNED_BYTES": 1_000,
        "toolkit.search.faiss.on_disk._PART_BYTES": 20_000,
    }
    for name, value in limits.items():
        monkeypatch.setattr(name, value)
    found = toolkit.sweep(embedder=(mapped, QUERIES), out=tmp_path / "mapped", **plan).frame()
    assert found["setting"].tolist() == held["setting"].tolist()
    for column in ("kept_ndcg@10", "overlap@10"):
        np.testing.assert_allclose(found[column], held[column], atol=1e-12)
    filtered = "filtered_50pct_recall"
    np.testing.assert_allclose(found[filtered][:-1], held[filtered][:-1], atol=1e-12)
    assert found[filtered].isna().tolist() == [False] * (len(found) - 1) + [
        True
    ]  # a scan of a file has no filters
    assert found["factory"].iloc[-1] == "exact scan of stored vectors"
    assert found["index_bytes"].iloc[-1] >= 2 * ROWS * DIM - 4 * DIM
    both = found.set_index(["dim", "build_args", "search_args"])["overlap@10"]
    assert both[16, "on_disk=1", "nprobe=4"] == both[16, "", "nprobe=4"] < 1
    assert not list((tmp_path / "mapped").rglob("*.npy"))
    assert mapped.base is not None
    assert (tmp_path / "rows.npy").stat().st_nlink == 1


def test_mapped_rows_are_handed_on_as_they_are_and_looked_up_one_by_one(mapped):
    docs, queries = [str(i) for i in range(ROWS)], ["what", "where"]
    given = vectors_of((mapped, QUERIES[:2]), docs, queries)
    assert given.in_order(docs).rows is mapped
    assert given.in_order(docs[:10]) is None
    np.testing.assert_allclose(given.encode(["3", "9"]), truncate(mapped[[3, 9]], DIM), atol=1e-6)
    changed = mapped.copy()
    changed[8, 0] += 1
    assert vectors_of((changed, QUERIES[:2]), docs, queries).space != given.space


@pytest.mark.parametrize("copied", [False, True])
def test_an_index_that_scans_a_file_is_kept_and_read_again(
    mapped, small_limits, tmp_path, copied, monkeypatch
):
    os.link(tmp_path / "rows.npy", tmp_path / "a.index.mapped")  # what a kill between two steps leaves
    if copied:  # as between two disks

        def refused(*_names):
            raise OSError(18, "Invalid cross-device link")

        monkeypatch.setattr(os, "link", refused)
    backend = get_backend("exact")
    built = CorpusBuilder(backend, Vectors(mapped), 16).build(IndexSpec("Flat", "float32", 16))
    exact = exact_search(mapped, QUERIES, [16], k=12)[16]
    before = (tmp_path / "rows.npy").read_bytes()
    built.save(tmp_path / "a.index")
    built.save(tmp_path / "a.index")
    assert (tmp_path / "rows.npy").stat().st_nlink == 1 + (not copied)
    again = load_index(backend, tmp_path / "a.index")
    for one in (built, again):
        found = one.search(truncate(QUERIES, 16), 12)
        np.testing.assert_array_equal(found.rows, exact.rows)
        np.testing.assert_array_equal(one.bare_search(12)(truncate(QUERIES, 16))[1], exact.rows)
        with pytest.raises(PlanError, match=r"choose 1\.\.4000"):
            one.search(truncate(QUERIES, 16), ROWS + 1)
    assert again.index_bytes == built.index_bytes
    assert (tmp_path / "rows.npy").read_bytes() == before
    (tmp_path / "a.index").write_bytes(b"nothing")
    with pytest.raises(ResultsError, match="cannot be read"):
        load_index(backend, tmp_path / "a.index")


def test_part_of_a_file_is_not_taken_for_the_whole(mapped, small_limits, tmp_path):
    part = mapped[1_000:3_000]
    built = (
        get_backend("exact")
        .builder(CutRows(Vectors(part), DIM), seed=0)
        .build(IndexSpec("Flat", "float32", DIM))
    )
    built.save(tmp_path / "part.index")
    found = get_backend("exact").load(tmp_path / "part.index").search(QUERIES, 5)
    np.testing.assert_array_equal(found.rows, exact_search(part, QUERIES, [DIM], k=5)[DIM].rows)


@pytest.mark.parametrize(
    ("index", "precision"),
    [("IVF8", "pq"), ("IVF8", "float32"), ("IVF8", "rabitq"), ("OPQ8,IVF8,PQ8", "float32")],
)
def test_lists_on_disk_find_what_lists_in_memory_do_and_are_kept(
    mapped, small_limits, tmp_path, index, precision, capfd
):
    vectors, queries, arguments = Vectors(mapped), truncate(QUERIES, DIM), {"nprobe": 4}
    held = build_index(vectors, DIM, index=index, precision=precision)
    built = build_index(vectors, DIM, index=index, precision=precision, build_args={"on_disk": 1})
    wanted = held.search(queries, 10, arguments)
    inner = built._inner
    assert isinstance(
        faiss.downcast_InvertedLists(faiss.extract_index_ivf(inner.index).invlists), faiss.OnDiskInvertedLists
    )
    temporary = inner.lists.path.parent
    built.save(tmp_path / "a.index")
    assert not temporary.exists()
    built.save(tmp_path / "b.index")
    size = built.index_bytes
    (tmp_path / "a.index.lists").unlink()  # b has lists of its own
    again = load_index(get_backend("faiss"), tmp_path / "b.index")
    for one in (built, again):
        found = one.search(queries, 10, arguments)
        np.testing.assert_array_equal(found.rows, wanted.rows)
        np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-6)
    assert abs(again.index_bytes - size) < 100
    assert abs(held.index_bytes - size) < 1_000
    passing = [one.filtered_search(5, 0.5, arguments)(queries)[1] for one in (held, again)]
    np.testing.assert_array_equal(*passing)
    assert again._inner.accelerated() is again._inner
    assert "resizing" not in capfd.readouterr().out
    lists = tmp_path / "b.index.lists"
    lists.write_bytes(lists.read_bytes()[:-8])
    with pytest.raises(ResultsError, match=r"b\.index\.lists is not whole"):
        load_index(get_backend("faiss"), tmp_path / "b.index")


def test_an_index_that_was_never_kept_leaves_no_file(mapped, small_limits):
    built = build_index(Vectors(mapped), DIM, index="IVF8", precision="pq", build_args={"on_disk": 1})
    folder = built._inner.lists.path.parent
    assert folder.exists()
    del built
    assert not folder.exists()


def test_lists_beside_an_index_are_read_and_none_that_its_file_names(mapped, small_limits, tmp_path):
    built = build_index(Vectors(mapped), DIM, index="IVF8", precision="pq", build_args={"on_disk": 1})
    (tmp_path / "theirs").mkdir()
    built.save(tmp_path / "theirs" / "a.index")
    for name in ("a.index", "a.index.json", "a.index.lists", "a.index.rows.npz"):
        (tmp_path / "theirs" / name).rename(tmp_path / name)
    raw = (tmp_path / "a.index").read_bytes()
    assert str(tmp_path / "theirs").encode() not in raw
    assert BuiltIndex.load(tmp_path / "a.index").search(QUERIES, 5, {"nprobe": 8}).rows.shape == (30, 5)


@pytest.mark.parametrize(
    ("index", "precision", "value", "message"),
    [
        ("IVF8", "pq", 2, "on_disk=2 .* must be 1, or be left out"),
        ("HNSW8", "float32", 1, "has no on_disk; it belongs to IVF"),
        ("IVF8", "binary", 1, "cannot keep lists of 'BIVF8' on disk"),
        ("IVF8,PQ8x4fs", "float32", 1, "cannot keep lists of 'IVF8,PQ8x4fs' on disk"),
        ("IVF8,PQ8,RFlat", "float32", 1, "on disk"),
    ],
)
def test_lists_that_cannot_be_on_disk_are_refused_before_a_build(index, precision, value, message):
    with pytest.raises(PlanError, match=message):
        get_backend("faiss").check(
            IndexSpec(index, precision, DIM, {"on_disk": value}), documents=1_000, k=10
        )


def test_a_full_disk_is_said_before_faiss_writes_to_it(mapped, small_limits, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _folder: type("Usage", (), {"free": 100})())
    with pytest.raises(ResultsError, match="100 free; free some room, or set TMPDIR"):
        build_index(Vectors(mapped), DIM, index="IVF8", precision="pq", build_args={"on_disk": 1})


# Private memory that may come on top of what the program has when its packages are loaded: three quarters of what the
# rows take as float32, ids and what an index trains on included. The kernel refuses more.
BOUNDED = """
    import resource, sys, threading
    from pathlib import Path
    import numpy as np
    import toolkit
    import toolkit.experiment.grid, toolkit.search.cut_rows
    threading.stack_size(1 << 20)
    folder, rows, dim = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    toolkit.search.cut_rows._HELD_BYTES = toolkit.experiment.grid.SCANNED_BYTES = 1 << 20
    def sweep(docs, queries, out):
        return toolkit.sweep(
            embedder=(docs, queries), dims=[64, dim], precisions=["pq"], k=10, out=folder / out, progress=False,
            indexes=[{"factory": "IVF16", "build": {"niter": 2}, "search": [{"nprobe": 4}]},
                     {"factory": "IVF16", "build": {"niter": 2, "on_disk": 1}, "search": [{"nprobe": 4}]}],
            timing={"queries": 2, "rounds": 1, "threads": [1]})
    docs = np.load(folder / "rows.npy", mmap_mode="r")
    queries = np.asarray(docs[:8], dtype=np.float32)
    np.save(folder / "few.npy", docs[:5_000])
    sweep(np.load(folder / "few.npy", mmap_mode="r"), queries, "warm")  # loads what is loaded late
    status = Path("/proc/self/status").read_text()
    private = int(status.split("VmData:")[1].split()[0]) * 1024
    limit = private + 3 * rows * dim
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    if sys.argv[4] == "copy":
        docs = docs.astype(np.float32)
    print(len(sweep(docs, queries, "out").frame()))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="limits of private memory are Linux's")
def test_a_sweep_of_a_file_stays_within_a_limit_that_a_float32_copy_breaks(tmp_path):
    rows, dim = 600_000, 256
    made = np.lib.format.open_memmap(tmp_path / "rows.npy", "w+", np.float16, (rows, dim))
    rng = np.random.default_rng(0)
    for start in range(0, rows, 20_000):
        made[start : start + 20_000] = rng.standard_normal((20_000, dim), dtype=np.float32)
    made.flush()
    done = {how: run_bounded(tmp_path, rows, dim, how) for how in ("mapped", "copy")}
    assert done["mapped"].returncode == 0, done["mapped"].stderr[-2_000:]
    assert done["mapped"].stdout.strip() == "5"
    assert "MemoryError" in done["copy"].stderr


def run_bounded(folder, rows, dim, how):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(BOUNDED), str(folder), str(rows), str(dim), how],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env=os.environ | {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2", "MALLOC_ARENA_MAX": "2"},
    )


def run_benchmark(folder, *arguments):
    script = Path(__file__).resolve().parents[1] / "benchmarks" / "scale.py"
    done = subprocess.run(
        [sys.executable, str(script), "--folder", str(folder), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env=os.environ | {"PYTHONPATH": str(script.parents[1]), "TOOLKIT_CACHE": str(folder / "cache")},
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory by kind is Linux's")
def test_the_benchmark_of_sizes_measures_each_part_in_a_small_form(tmp_path):
    rows = 6_000
    found = run_benchmark(
        tmp_path,
        *("--parts", "cost_per_doc", "ten_million", "--sizes", 500, 2_000, "--rounds", 1),
        *("--rows", rows, "--dim", 64, "--dims", 32, 64, "--lists", 16, "--queries", 20),
    )
    assert [one["documents"] for one in found["cost_per_doc"]] == [500, 2_000]
    assert all(one["peak_private_gib"] >= one["private_gib_before"] > 0 for one in found["cost_per_doc"])
    assert found["peak_gib_10m"] >= found["peak_private_gib_10m"] > 0
    settings = {one["setting"]: one for one in found["ten_million"]["settings"]}
    assert settings["64 float32 Flat"]["overlap@10"] == 1.0
    kept = [settings[f"64 pq IVF16 {disk}nprobe=8"]["overlap@10"] for disk in ("", "build:on_disk=1 ")]
    assert kept[0] == kept[1] > 0
    assert not list(tmp_path.glob("tmp*"))


@pytest.mark.skipif(
    find_spec("ray") is None, reason="ray is not installed: pip install 'embedding-toolkit[ray]'"
)
def test_two_ray_workers_make_the_vectors_of_two_processes(tmp_path):
    found = run_benchmark(tmp_path, "--parts", "ray", "--ray-documents", 400, 4_000)
    assert found["ray_largest_difference"] < 1e-6
    assert found["ray_vs_two_processes_with_start"] > 0
