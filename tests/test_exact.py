"""The one-pass exact search against brute force in float64 and against FAISS Flat."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from toolkit.errors import DimensionError, PlanError, VectorError
from toolkit.search.exact.compute import Compute
from toolkit.search.exact.search import exact_search
from toolkit.vectors import normalize, truncate

SMALL = Compute(backend="numpy", threads=2, block_rows=7)


def brute_force(corpus, queries, dim):
    """(q, n) cosines of the prefixes in float64; -inf for zero prefixes, which come last."""

    def unit(rows):
        cut = rows[:, :dim].astype(np.float64)
        norms = np.linalg.norm(cut, axis=1, keepdims=True)
        return np.divide(cut, norms, out=np.zeros_like(cut), where=norms > 0)

    cosines = unit(queries) @ unit(corpus).T
    cosines[:, ~corpus[:, :dim].any(axis=1)] = -np.inf
    return cosines


def assert_exact(found, corpus, queries, dim, k, tolerance=1e-6):
    truth = brute_force(corpus, queries, dim)
    assert found.rows.shape == found.scores.shape == (len(queries), k)
    for row, score, cosines in zip(found.rows, found.scores, truth, strict=True):
        assert len(set(row.tolist())) == k
        np.testing.assert_allclose(score, cosines[row], atol=tolerance)
        np.testing.assert_allclose(score, np.sort(cosines)[::-1][:k], atol=tolerance)
        assert (score[:-1] >= score[1:]).all()
        equal = score[:-1] == score[1:]
        assert (row[:-1][equal] < row[1:][equal]).all()


def decaying(rows, dim, seed=0):
    """Unit rows whose numbers shrink along the vector, as those of Matryoshka models do."""
    generator = np.random.default_rng(seed)
    scale = (1.0 + np.arange(dim)) ** -0.4
    return normalize((generator.standard_normal((rows, dim)) * scale).astype(np.float32))


numbers = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5]),
    st.floats(-1, 1, width=32),
    st.floats(-(2.0**-50), 2.0**-50, width=32),
)


@settings(max_examples=150, deadline=None)
@given(
    data=st.data(),
    n=st.integers(1, 40),
    q=st.integers(1, 5),
    full_dim=st.integers(1, 12),
    block_rows=st.integers(1, 50),
    backend=st.sampled_from(["numpy", "torch"]),
)
def test_equals_brute_force_on_any_rows(data, n, q, full_dim, block_rows, backend):
    def unit_rows(count):
        return normalize(data.draw(hnp.arrays(np.float32, (count, full_dim), elements=numbers)))

    corpus, queries = unit_rows(n), unit_rows(q)
    dims = data.draw(st.lists(st.integers(1, full_dim), min_size=1, max_size=4))
    k = data.draw(st.integers(1, n))
    compute = Compute(backend=backend, device="cpu", threads=2, block_rows=block_rows)
    found = exact_search(corpus, queries, dims, k=k, compute=compute)
    assert list(found) == sorted(set(dims))
    for dim, neighbours in found.items():
        assert_exact(neighbours, corpus, queries, dim, k)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_same_neighbours_as_faiss_flat(backend):
    faiss = pytest.importorskip("faiss", reason="the comparison needs FAISS (extra cpu)")
    corpus, queries, k = decaying(5_000, 96), decaying(40, 96, seed=1), 50
    compute = Compute(backend=backend, device="cpu")
    for dim, found in exact_search(corpus, queries, [1, 8, 32, 96], k=k, compute=compute).items():
        index = faiss.IndexFlatIP(dim)
        index.add(truncate(corpus, dim))
        scores, rows = index.search(truncate(queries, dim), k)
        np.testing.assert_allclose(found.scores, scores, atol=1e-6)
        different = found.rows != rows
        # Rows may differ only where the scores leave the order open.
        truth = np.take_along_axis(brute_force(corpus, queries, dim), np.maximum(rows, 0), axis=1)
        mine = np.take_along_axis(brute_force(corpus, queries, dim), found.rows, axis=1)
        assert np.abs(truth - mine)[different].max(initial=0.0) <= 1e-6


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_equal_scores_go_to_the_lower_row(backend):
    corpus = np.tile(np.eye(4, dtype=np.float32), (30, 1))
    queries = np.eye(4, dtype=np.float32)[:2]
    compute = Compute(backend=backend, device="cpu", threads=3, block_rows=16)
    found = exact_search(corpus, queries, [4], k=40, compute=compute)[4]
    others = [row for row in range(120) if row % 4 != 1][:10]
    assert found.rows[1].tolist() == [*range(1, 120, 4), *others]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    kinds=st.integers(1, 12),
    n=st.integers(2, 400),
    scale=st.sampled_from([1.0, 0.37, 1e-3]),
    backend=st.sampled_from(["numpy", "torch"]),
)
def test_equal_scores_come_by_row_among_many_duplicates(seed, kinds, n, scale, backend):
    generator = np.random.default_rng(seed)
    corpus = normalize(generator.standard_normal((kinds, 16)))[generator.integers(0, kinds, n)]
    queries = (normalize(generator.standard_normal((6, 16))) * scale).astype(np.float32)
    compute = Compute(backend=backend, device="cpu", threads=2, block_rows=33)
    for dim, found in exact_search(corpus, queries, [3, 16], k=n // 2 + 1, compute=compute).items():
        for row, score in zip(found.rows, found.scores, strict=True):
            equal = np.flatnonzero(score[:-1] == score[1:])
            assert (row[equal] < row[equal + 1]).all(), (dim, row, score)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_zero_rows_and_prefixes_come_last(backend):
    corpus = np.array([[0, 0, 0], [0, 0, 1], [1, 0, 0], [-1, 0, 0]], dtype=np.float32)
    queries = np.array([[1, 0, 0], [0, 0, 1], [0, 0, 0]], dtype=np.float32)
    found = exact_search(corpus, queries, [2, 3], k=4, compute=Compute(backend=backend, device="cpu"))
    none = -np.inf
    assert found[2].rows.tolist() == [[2, 3, 0, 1]] * 3
    assert found[2].scores.tolist() == [[1, -1, none, none], [0, 0, none, none], [0, 0, none, none]]
    assert found[3].rows.tolist() == [[2, 1, 3, 0], [1, 2, 3, 0], [1, 2, 3, 0]]
    assert found[3].scores.tolist() == [[1, 0, -1, none], [1, 0, 0, none], [0, 0, 0, none]]


@pytest.mark.parametrize("order", [1, -1])
def test_rows_that_come_in_order_of_similarity(order):
    angles = np.linspace(0, np.pi, 600, dtype=np.float32)[::order]
    corpus = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    queries = np.array([[1, 0]], dtype=np.float32)
    found = exact_search(corpus, queries, [2], k=5, compute=Compute(threads=1, block_rows=64))[2]
    nearest = range(5) if order == 1 else range(599, 594, -1)
    assert found.rows[0].tolist() == list(nearest)


def test_memory_mapped_corpus_many_queries_and_progress(tmp_path):
    corpus, queries = decaying(900, 24), decaying(600, 24, seed=2)
    np.save(tmp_path / "corpus.npy", corpus)
    mapped = np.load(tmp_path / "corpus.npy", mmap_mode="r")
    done = []
    found = exact_search(mapped, queries, [5, 24], k=10, compute=SMALL, progress=done.append)
    assert sum(done) == 900
    for dim in (5, 24):
        assert_exact(found[dim], corpus, queries, dim, 10)


def test_bfloat16_tensor_is_searched_as_it_is_stored():
    torch = pytest.importorskip("torch")
    stored = torch.from_numpy(decaying(300, 32)).bfloat16()
    queries = decaying(10, 32, seed=3)
    found = exact_search(stored, queries, [8, 32], k=20)
    for dim in (8, 32):
        assert_exact(found[dim], stored.float().numpy(), queries, dim, 20)


def test_threads_and_blocks_do_not_change_the_neighbours():
    corpus, queries = decaying(2_000, 64), decaying(20, 64, seed=4)
    one, other = (
        exact_search(corpus, queries, [16, 64], k=100, compute=Compute("numpy", "cpu", threads, rows))
        for threads, rows in ((1, 2_000), (3, 130))
    )
    for dim in (16, 64):
        np.testing.assert_allclose(one[dim].scores, other[dim].scores, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"k": 11}, PlanError, r"k 11 is outside the corpus of 10 documents; choose 1\.\.10"),
        ({"k": 0}, PlanError, "k 0"),
        ({"dims": [9]}, DimensionError, r"dimension 9 .* choose 1\.\.8"),
        ({"dims": []}, DimensionError, "no dimension"),
        ({"queries": np.ones((2, 7), np.float32)}, VectorError, "rows of equal length"),
        ({"queries": np.ones((0, 8), np.float32)}, VectorError, "at least one"),
        ({"queries": np.full((2, 8), np.nan, np.float32)}, VectorError, "query row 0"),
        ({"compute": Compute(backend="numpy", device="cuda")}, PlanError, "torch"),
        ({"compute": Compute(backend="jax")}, PlanError, "unknown backend"),
        ({"compute": Compute(threads=0)}, PlanError, "threads 0"),
    ],
)
def test_impossible_arguments_are_refused(change, error, message):
    arguments = {"corpus": decaying(10, 8), "queries": decaying(2, 8), "dims": [4], "k": 3} | change
    with pytest.raises(error, match=message):
        exact_search(arguments.pop("corpus"), arguments.pop("queries"), arguments.pop("dims"), **arguments)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_a_broken_corpus_row_is_named(backend):
    corpus = decaying(50, 8).copy()
    corpus[33, 2] = np.nan
    compute = Compute(backend=backend, device="cpu", block_rows=20)
    with pytest.raises(VectorError, match="corpus row 33"):
        exact_search(corpus, decaying(2, 8), [4, 8], k=3, compute=compute)
