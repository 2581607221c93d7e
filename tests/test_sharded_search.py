"""A corpus in shards has the neighbours of the whole, ties and all."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.errors import PlanError, VectorError
from toolkit.search.exact.compute import Compute
from toolkit.search.exact.search import exact_search
from toolkit.search.exact.sharded import search_on_devices, sharded_search

DIMS = [4, 16, 32]


def whole_numbers(rows: int, seed: int) -> np.ndarray:
    """Rows of -1 and 1: their products are exact in float32, so equal scores are equal bits, and many are."""
    return np.random.default_rng(seed).choice([-1.0, 1.0], (rows, 32)).astype(np.float32)


@pytest.mark.parametrize("cuts", [[500], [3, 700], [100, 200, 300, 400]])
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_rows_scores_and_ties_are_those_of_one_search(cuts, backend):
    corpus, queries = whole_numbers(1_000, 0), whole_numbers(7, 1)
    corpus[[10, 600]] = 0.0  # empty texts come last
    compute = Compute(backend, "cpu", threads=1)
    whole = exact_search(corpus, queries, DIMS, k=50, compute=compute)
    merged = sharded_search(np.split(corpus, cuts), queries, DIMS, k=50, compute=compute)
    for dim in DIMS:
        assert (np.diff(whole[dim].scores) == 0).any()
        np.testing.assert_array_equal(merged[dim].rows, whole[dim].rows)
        assert merged[dim].scores.tobytes() == whole[dim].scores.tobytes()


def test_k_may_be_more_than_a_shard_holds_and_no_more_than_all_do():
    corpus, queries = whole_numbers(20, 0), whole_numbers(2, 1)
    shards = np.split(corpus, [5])
    assert sorted(sharded_search(shards, queries, [32], k=20)[32].rows[0].tolist()) == list(range(20))
    with pytest.raises(PlanError, match=r"k 21 is outside the corpus of 20 documents; choose 1\.\.20"):
        sharded_search(shards, queries, [32], k=21)
    with pytest.raises(PlanError, match="cannot be searched"):
        sharded_search([corpus, corpus[:0]], queries, [32], k=5)


def test_an_array_is_shared_among_devices(tmp_path):
    np.save(tmp_path / "corpus.npy", whole_numbers(1_000, 0))
    corpus, queries = np.load(tmp_path / "corpus.npy", mmap_mode="r"), whole_numbers(7, 1)
    whole = exact_search(corpus, queries, DIMS, k=50, compute=Compute("torch", "cpu"))
    done = []
    shared = search_on_devices(corpus, queries, DIMS, k=50, devices=["cpu"] * 3, progress=done.append)
    assert sum(done) == 1_000
    for dim in DIMS:
        np.testing.assert_array_equal(shared[dim].rows, whole[dim].rows)
        assert shared[dim].scores.tobytes() == whole[dim].scores.tobytes()
    few = search_on_devices(corpus[:2], queries, DIMS, k=2, devices=["cpu"] * 3)
    assert sorted(few[32].rows[0].tolist()) == [0, 1]


def test_a_sweep_searches_on_all_gpus_that_it_encodes_on():
    from toolkit.experiment.sweep import _on_gpus

    assert _on_gpus([0, "cuda:1", 1]).keywords == {"devices": ["cuda:0", "cuda:1"]}
    for devices in (None, [0], ["cpu", "cpu"], [0, "0"]):
        assert _on_gpus(devices) is exact_search


def test_several_gpus_find_what_one_process_finds():
    torch = pytest.importorskip("torch")
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    corpus, queries = whole_numbers(300_000, 0), whole_numbers(70, 1)
    corpus[[10, 200_000]] = 0.0
    whole = exact_search(corpus, queries, DIMS, k=100)
    shared = search_on_devices(corpus, queries, DIMS, k=100, devices=["cuda:0", "cuda:1"])
    for dim in DIMS:
        np.testing.assert_array_equal(shared[dim].rows, whole[dim].rows)
        assert shared[dim].scores.tobytes() == whole[dim].scores.tobytes()


def test_a_broken_row_is_named_with_its_shard():
    corpus, queries = whole_numbers(100, 0), whole_numbers(2, 1)
    corpus[70, 5] = np.inf
    with pytest.raises(
        VectorError, match=r"in rows 60\.\.99, counted from the first of them: corpus row 10 holds"
    ):
        sharded_search(np.split(corpus, [60]), queries, DIMS, k=5)


def test_searches_on_several_devices_keep_full_float32_until_the_last_has_ended():
    import torch

    from toolkit.search.exact.scan_torch import _full_float32

    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = "tf32"
        with _full_float32:
            with _full_float32:
                assert matmul.fp32_precision == "ieee"
            assert matmul.fp32_precision == "ieee"
        assert matmul.fp32_precision == "tf32"
    finally:
        matmul.fp32_precision = before
