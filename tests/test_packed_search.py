"""The GPU path of the exact search, run on the CPU: preselecting groups changes nothing, ties included."""

import numpy as np
import pytest
import torch

from toolkit.search.exact.compute import Compute
from toolkit.search.exact.scan_torch import _keep_best, _promising
from toolkit.search.exact.search import exact_search


@pytest.mark.parametrize("copies", [1, 40])
@pytest.mark.parametrize("rows", [2_000, 2_017])
def test_same_neighbours_as_numpy(copies, rows):
    rng = np.random.default_rng(rows)
    corpus = np.tile(rng.standard_normal((-(-rows // copies), 48), dtype=np.float32), (copies, 1))[:rows]
    queries = rng.standard_normal((9, 48), dtype=np.float32)
    compute = Compute(backend="torch", device="cpu", block_rows=1_500)
    found = exact_search(corpus, queries, [16, 48], k=7, compute=compute)
    expected = exact_search(corpus, queries, [16, 48], k=7, compute=Compute(backend="numpy"))
    for dim in (16, 48):
        np.testing.assert_allclose(found[dim].scores, expected[dim].scores, atol=1e-5)
        if copies == 1:
            np.testing.assert_array_equal(found[dim].rows, expected[dim].rows)


def test_few_columns_are_looked_at_unless_scores_tie():
    scores = torch.from_numpy(
        np.random.default_rng(0).permuted(np.arange(3 * 1_290.0).reshape(3, -1), axis=1)
    )
    scores = scores.float()
    rows = torch.arange(1_290)
    kept, kept_rows, tie = _promising(scores, rows, 5)
    assert kept.shape == kept_rows.shape == (3, 5 * 32 + 1_290 % 32)
    assert not tie
    tied = torch.zeros(3, 1_290)
    assert _promising(tied, rows, 5)[2]
    best = _keep_best(None, tied, rows, 5)
    assert ((0xFFFF_FFFF - (best & 0xFFFF_FFFF)) == torch.arange(5)).all()
