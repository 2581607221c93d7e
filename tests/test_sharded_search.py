"""A corpus in shards has the neighbours of the whole, ties and all."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.errors import PlanError
from toolkit.search.exact.search import exact_search
from toolkit.search.exact.sharded import sharded_search

DIMS = [4, 16, 32]


def whole_numbers(rows: int, seed: int) -> np.ndarray:
    """Rows of -1 and 1: their products are exact in float32, so equal scores are equal bits, and many are."""
    return np.random.default_rng(seed).choice([-1.0, 1.0], (rows, 32)).astype(np.float32)


@pytest.mark.parametrize("cuts", [[500], [3, 700], [100, 200, 300, 400]])
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_rows_scores_and_ties_are_those_of_one_search(cuts, backend):
    from toolkit.search.exact.compute import Compute

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
