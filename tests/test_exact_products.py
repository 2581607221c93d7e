"""Products added segment by segment: SciPy's BLAS through its address, and numpy where that cannot be had."""

import numpy as np
import pytest

from toolkit.search.exact import products as module
from toolkit.search.exact.products import SegmentProducts


@pytest.fixture(params=["blas", "numpy"])
def way(request, monkeypatch):
    if request.param == "numpy":
        monkeypatch.setattr(module, "_sgemm", lambda: None)
    return request.param


def test_the_blas_of_the_installed_scipy_is_the_one_known():
    assert module._sgemm() is not None


def test_segments_add_up_to_the_products_of_each_prefix(way):
    generator = np.random.default_rng(0)
    # Chunks of queries and narrow products are views into larger arrays, as the scan makes them.
    queries = generator.standard_normal((9, 21), dtype=np.float32)[2:7]
    block = generator.standard_normal((13, 21), dtype=np.float32)
    room = np.full(5 * 40, np.nan, dtype=np.float32)
    products = room[: 5 * 13].reshape(5, 13)
    scratch = np.full_like(products, np.nan)
    adder, previous = SegmentProducts(queries), 0
    for dim in (1, 4, 20, 21):
        adder.add(block, slice(previous, dim), products, scratch=scratch)
        wanted = queries[:, :dim].astype(np.float64) @ block[:, :dim].astype(np.float64).T
        np.testing.assert_allclose(products, wanted, atol=1e-5)
        previous = dim
    assert np.isnan(room[5 * 13 :]).all()
