"""Ray workers find what one process finds, bit for bit, and a killed one loses nothing. Real Ray, on this machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import threading
import time
import warnings
from importlib.util import find_spec

import numpy as np
import pandas as pd
import psutil
import pytest
from sweeps import quality_of, scored_pairs, sweep_into

import toolkit
from toolkit.cli import main
from toolkit.embedding.cache import VectorCache
from toolkit.errors import PlanError, ServerError, VectorError
from toolkit.experiment.results import Results
from toolkit.search.exact.compute import Compute
from toolkit.search.exact.search import exact_search

if find_spec("ray") is None:
    pytest.skip("ray is not installed: pip install 'embedding-toolkit[ray]'", allow_module_level=True)

import ray

from toolkit.scale.corpus import embed_corpus
from toolkit.scale.corpus_rows import FileRows, SentRows, cached_rows, rows_of
from toolkit.scale.ray_search import search_on_ray, search_part
from toolkit.scale.ray_workers import RayWorkers

DIMS = [4, 16, 32]
ROWS = 70_000
ON = RayWorkers(workers=2)


@pytest.fixture(scope="module")
def started():
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Two cores to Ray whatever the machine has: two workers are what is tested.
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def made(kind: str, rows: int, seed: int) -> np.ndarray:
    """`whole`: rows of -1 and 1, of whose scores many are equal; `normal`: of which hardly any are."""
    random = np.random.default_rng(seed)
    if kind == "whole":
        return random.choice([-1.0, 1.0], (rows, 32)).astype(np.float32)
    return random.standard_normal((rows, 32), dtype=np.float32)


def equal(found, expected):
    assert list(found) == list(expected)
    for dim in expected:
        np.testing.assert_array_equal(found[dim].rows, expected[dim].rows)
        assert found[dim].scores.tobytes() == expected[dim].scores.tobytes()


def alone(corpus, queries, k):
    return exact_search(corpus, queries, DIMS, k=k, compute=Compute("numpy", "cpu", threads=1))


@pytest.mark.parametrize("kind", ["whole", "normal"])
@pytest.mark.parametrize("given", ["path", "mapped", "part of a mapped file", "in memory", "float16"])
def test_rows_scores_and_ties_are_those_of_one_process(started, tmp_path, kind, given):
    corpus, queries = made(kind, ROWS, 0), made(kind, 9, 1)
    corpus[[10, 40_000, ROWS - 1]] = 0.0  # empty texts come last
    corpus[[11, 50_000], :8] = 0.0  # and so do prefixes of zeros, at their dimensions
    queries[3] = 0.0
    if given == "float16":
        corpus = corpus.astype(np.float16)
    path = tmp_path / "corpus.npy"
    np.save(path, corpus)
    if given == "part of a mapped file":
        corpus = np.load(path, mmap_mode="r")[20_000:]
    elif given != "in memory":
        corpus = np.load(path, mmap_mode="r")
    expected = alone(corpus, queries, 100)
    if kind == "whole":
        assert (np.diff(expected[32].scores) == 0).any()
    done = []
    found = search_on_ray(
        path if given == "path" else corpus, queries, DIMS, k=100, on=ON, progress=done.append
    )
    equal(found, expected)
    assert sum(done) == len(corpus)
    assert len(done) >= 8, "each worker has several parts"


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """A corpus of texts of all lengths, some of them equal and some empty, and the folder of its vectors."""
    folder = tmp_path_factory.mktemp("embedded")
    texts = [f"document {i % 14_000}" + " and more words" * (i % 20) for i in range(20_000)]
    texts[5] = texts[15_000] = ""
    (folder / "corpus.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    with toolkit.open_embedder("static") as engine:
        embed_corpus(engine, folder / "corpus.jsonl", folder / "vectors", progress=False)
        rows = toolkit.embed(engine, texts, cache=VectorCache(folder / "vectors"), progress=False)
        queries = toolkit.embed(engine, ["document about words", "more", ""], role="query", progress=False)
        return folder, engine.space, rows, queries


def test_a_folder_of_shards_is_searched_as_it_lies(started, embedded):
    folder, space, rows, queries = embedded
    corpus = cached_rows(folder / "vectors", space, folder / "corpus.jsonl")
    expected = exact_search(rows, queries, [16, 64], k=60, compute=Compute("numpy", threads=1))
    assert (np.diff(expected[64].scores) == 0).any(), "equal texts tie"
    equal(search_on_ray(corpus, queries, [16, 64], k=60, on=ON), expected)


def test_texts_without_a_vector_are_told_before_and_while_workers_read(started, embedded, tmp_path):
    folder, space, _, queries = embedded
    shutil.copytree(folder, tmp_path / "copy")
    with (tmp_path / "copy/corpus.jsonl").open("a") as file:
        file.write('{"text": "one that is new"}\n')
    with pytest.raises(PlanError, match=r"1 texts of .* have no vector in .*; embed it first"):
        cached_rows(tmp_path / "copy/vectors", space, tmp_path / "copy/corpus.jsonl")
    with pytest.raises(PlanError, match="holds no vectors of"):
        cached_rows(tmp_path, space, folder / "corpus.jsonl")
    corpus = cached_rows(tmp_path / "copy/vectors", space, folder / "corpus.jsonl")
    for shard in (tmp_path / "copy/vectors" / space.fingerprint).glob("*.safetensors"):
        with shard.open("r+b") as file:
            file.seek(-8, os.SEEK_END)
            file.write(b"\xff" * 8)
    with pytest.raises(
        ServerError, match=r"texts have no whole vector in .*; embed the corpus again"
    ) as caught:
        search_on_ray(corpus, queries, [16], k=5, on=ON)
    assert "\n" not in str(caught.value)
    shutil.copytree(folder, tmp_path / "other")
    corpus = cached_rows(tmp_path / "other/vectors", space, folder / "corpus.jsonl")
    shutil.rmtree(tmp_path / "other/vectors")
    with pytest.raises(ServerError, match="every machine mounts"):
        search_on_ray(corpus, queries, [16], k=5, on=ON)
    assert not (tmp_path / "other/vectors").exists()


def test_empty_texts_are_found_last_where_all_are_asked_for(started):
    corpus, queries = made("whole", 15_000, 0), made("whole", 2, 1)
    corpus[[0, 7_000, 14_999]] = 0.0
    found = search_on_ray(corpus, queries, [32], k=15_000, on=ON)[32]
    assert found.rows[:, -3:].tolist() == [[0, 7_000, 14_999]] * 2
    assert np.isneginf(found.scores[:, -3:]).all()
    equal({32: found}, exact_search(corpus, queries, [32], k=15_000, compute=Compute("numpy", threads=1)))


def test_only_where_the_file_cannot_be_mapped_are_rows_sent(tmp_path):
    np.save(tmp_path / "c.npy", made("normal", 100, 0))
    np.save(tmp_path / "fortran.npy", np.asfortranarray(made("normal", 100, 0)))
    mapped = np.load(tmp_path / "c.npy", mmap_mode="r")
    whole = rows_of(mapped)
    assert isinstance(whole, FileRows)
    np.testing.assert_array_equal(whole.part(10, 30).read(), mapped[10:30])
    for other in (
        mapped[10:],
        mapped[:, :8],
        np.array(mapped),
        np.load(tmp_path / "fortran.npy", mmap_mode="r"),
    ):
        sent = rows_of(other)
        assert isinstance(sent, SentRows)
        np.testing.assert_array_equal(sent.part(10, 30).read(), other[10:30])


def test_a_sweep_has_the_same_neighbours_from_ray(started, tmp_path):
    kinds = []

    def exactly(corpus, *arguments, **named):
        kinds.append(type(rows_of(corpus)))
        return search_on_ray(corpus, *arguments, **named, on=ON)

    for rescore, kind in (([], SentRows), ([{"candidates": 12}], FileRows)):
        fields = {"dims": [64, 128], "indexes": ["Flat"], "rescore": rescore}
        plain = sweep_into(tmp_path / f"plain {kind.__name__}", tmp_path / "cache", **fields)
        found = sweep_into(
            tmp_path / f"on Ray {kind.__name__}", tmp_path / "cache", exactly=exactly, **fields
        )
        assert kinds
        assert set(kinds) == {kind}
        kinds.clear()
        pd.testing.assert_frame_equal(quality_of(found), quality_of(plain))
    with pytest.raises(PlanError, match=r"pairs has no corpus .* \(ray=\)"):
        sweep_into(tmp_path / "pairs", tmp_path / "cache", exactly=exactly, data=scored_pairs())


def command(*arguments):
    """The command line's exit code."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # as in a process of its own
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
    return stop.value.code or 0


def test_the_command_line_sweeps_on_ray(started, tmp_path, capsys):
    texts = tmp_path / "texts.txt"
    texts.write_text("".join(f"A text about number {i} of many.\n" for i in range(60)))
    arguments = ["sweep", "--data", f"texts:{texts}", "--dims", "64", "--max-unlabelled", "5", "--yes"]
    assert command(*arguments, "--out", tmp_path / "one") == 0
    assert command(*arguments, "--out", tmp_path / "ray", "--ray", "--workers", "2") == 0
    one, other = (Results.load(tmp_path / name) for name in ("one", "ray"))
    pd.testing.assert_frame_equal(quality_of(other), quality_of(one))
    capsys.readouterr()
    for more, said in (
        (("--workers", "2"), "--workers .* give --ray too"),
        (("--ray", "--workers", "3"), "3 workers with 1 CPU each need more than the 2"),
        (("--ray", "--embedder", "static", "--embedder", "static"), "--ray is for one embedder"),
    ):
        assert command(*arguments, "--out", tmp_path / "none", *more) == 2
        assert re.search(said, capsys.readouterr().err)
    assert not (tmp_path / "none").exists()


def kill_a_search(killed):
    """SIGKILL a worker in the middle of a part."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for process in psutil.process_iter(["pid", "cmdline"]):
            if "ray::search_part" in " ".join(process.info["cmdline"] or []):
                process.send_signal(signal.SIGKILL)
                killed.append(process.info["pid"])
                return
        time.sleep(0.002)


def test_a_killed_worker_loses_nothing(started, tmp_path):
    corpus, queries = made("normal", 400_000, 0), made("normal", 300, 1)
    np.save(tmp_path / "corpus.npy", corpus)
    killed = []
    killer = threading.Thread(target=kill_a_search, args=(killed,))
    killer.start()
    found = search_on_ray(tmp_path / "corpus.npy", queries, DIMS, k=100, on=ON)
    killer.join()
    assert killed
    equal(found, alone(corpus, queries, 100))


def test_what_is_wrong_with_a_row_names_it_and_with_arguments_is_told_before_ray_starts(started, tmp_path):
    corpus, queries = made("normal", ROWS, 0), made("normal", 2, 1)
    corpus[60_005, 3] = np.nan
    with pytest.raises(VectorError, match=r"in rows 55296\.\.61439, .*corpus row 4709 holds NaN") as caught:
        search_on_ray(corpus, queries, DIMS, k=5, on=ON)
    assert "\n" not in str(caught.value)
    for wrong in ({"k": 0}, {"k": ROWS + 1}):
        with pytest.raises(PlanError, match=rf"choose 1\.\.{ROWS}"):
            search_on_ray(corpus, queries, DIMS, **wrong)
    with pytest.raises(VectorError, match="query row 1 holds NaN"):
        search_on_ray(corpus, np.float32([[0.0] * 32, [np.nan] * 32]), DIMS, k=5)


@pytest.mark.parametrize("written", [None, b"not an array", b"\x93NUMPY"])
def test_a_file_that_cannot_be_read_is_one_clear_line(tmp_path, written):
    path = tmp_path / "corpus.npy"
    if written is not None:
        path.write_bytes(written)
    with pytest.raises(PlanError, match=r"corpus .*corpus\.npy (cannot be read|is not a whole)") as caught:
        search_on_ray(path, made("normal", 2, 1), DIMS, k=5)
    assert "\n" not in str(caught.value)


def test_a_file_that_a_worker_does_not_see_is_one_clear_line(tmp_path):
    path = tmp_path / "corpus.npy"
    np.save(path, made("normal", 100, 0))
    rows = rows_of(path)
    for change, why in ((lambda: os.truncate(path, 2_000), "ends before"), (path.unlink, "No such file")):
        change()
        error = search_part(rows.part(50, 100), made("normal", 2, 1), DIMS, 50, 5, Compute("numpy"))
        assert isinstance(error, ServerError)
        assert why in str(error)
        assert "every machine mounts" in str(error)
        assert "\n" not in str(error)


def test_an_address_without_ray_is_one_clear_line():
    if ray.is_initialized():
        ray.shutdown()
    with pytest.raises(ServerError, match=r"127\.0\.0\.1:9 cannot be reached") as caught:
        search_on_ray(
            made("normal", 100, 0), made("normal", 2, 1), DIMS, k=5, on=RayWorkers(address="127.0.0.1:9")
        )
    assert "\n" not in str(caught.value)
