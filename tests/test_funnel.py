"""Search in stages, against one exact search and against rescoring by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import PlanError, VectorError
from toolkit.search.exact.search import exact_search
from toolkit.search.faiss.backend import build_index
from toolkit.search.faiss.index import threads
from toolkit.search.funnel import Funnel, Rescorer, Stage
from toolkit.search.threads import limited
from toolkit.vectors import Vectors, normalize, truncate

pytest.importorskip("faiss", reason="searching in stages needs FAISS (extra cpu)")


def decaying(rows, dim, seed=0):
    generator = np.random.default_rng(seed)
    return normalize(generator.standard_normal((rows, dim)) * (1.0 + np.arange(dim)) ** -0.4)


@pytest.fixture(scope="module")
def corpus():
    return Vectors(decaying(600, 64))


@pytest.fixture(scope="module")
def queries():
    return decaying(12, 64, seed=1)


def test_with_all_rows_as_candidates_it_is_the_exact_search(corpus, queries):
    first = build_index(corpus, 8, precision="binary")
    funnel = Funnel(first, [Stage(Rescorer(corpus, 64), candidates=600)])
    found, seconds = funnel.search(funnel.prepare(queries), 10)
    exact = exact_search(corpus.rows, queries, [64], k=10)[64]
    np.testing.assert_array_equal(found.rows, exact.rows)
    np.testing.assert_allclose(found.scores, exact.scores, atol=1e-6)
    assert len(seconds) == 2
    assert min(seconds) > 0


@settings(max_examples=30, deadline=None)
@given(
    dim=st.integers(1, 64),
    candidates=st.integers(20, 300),
    k=st.integers(1, 20),
    workers=st.sampled_from([1, 3]),
)
def test_equals_rescoring_by_hand(dim, candidates, k, workers):
    corpus, queries = Vectors(decaying(200, 64)), decaying(5, 64, seed=2)
    first = build_index(corpus, 16, precision="int8")
    funnel = Funnel(first, [Stage(Rescorer(corpus, dim), candidates)])
    with limited(workers), threads(workers):
        found, _ = funnel.search(funnel.prepare(queries), k)
    handed = first.search(truncate(queries, 16), min(200, candidates)).rows
    cosines = truncate(queries, dim).astype(np.float64) @ truncate(corpus.rows, dim).T.astype(np.float64)
    for i in range(len(queries)):
        best = np.sort(cosines[i][handed[i]])[::-1][:k]
        np.testing.assert_allclose(found.scores[i], best, atol=1e-6)
        np.testing.assert_allclose(cosines[i][found.rows[i]], best, atol=1e-6)
        assert set(found.rows[i]) <= set(handed[i])


def test_three_stages_narrow_down(corpus, queries):
    stages = [Stage(Rescorer(corpus, 32), 100), Stage(Rescorer(corpus, 64), 20)]
    funnel = Funnel(build_index(corpus, 8), stages)
    found, seconds = funnel.search(funnel.prepare(queries), 5)
    assert len(seconds) == len(funnel.stage_bytes) == 3
    at = {dim: truncate(queries, dim) @ truncate(corpus.rows, dim).T for dim in (8, 32, 64)}
    for i in range(len(queries)):
        first = np.argsort(-at[8][i], kind="stable")[:100]
        second = first[np.argsort(-at[32][i][first], kind="stable")[:20]]
        third = second[np.argsort(-at[64][i][second], kind="stable")[:5]]
        assert found.rows[i].tolist() == third.tolist()


def test_rescoring_from_a_mapped_file_is_the_same(corpus, queries, tmp_path):
    np.save(tmp_path / "rows.npy", corpus.rows)
    mapped = Rescorer(Vectors.open(tmp_path / "rows.npy"), 48)
    held = Rescorer(corpus, 48)
    assert mapped.mapped
    assert not held.mapped
    candidates = np.arange(0, 600, 3)[None].repeat(12, axis=0)
    one, other = (r.best(truncate(queries, 48), candidates, 7) for r in (mapped, held))
    np.testing.assert_array_equal(one.rows, other.rows)
    np.testing.assert_array_equal(one.scores, other.scores)


def test_missing_candidates_come_last_and_equal_scores_by_row():
    corpus = Vectors(np.array([[1, 0], [0, 1], [1, 0], [0, 0]], dtype=np.float32))
    candidates = np.array([[2, -1, 0, 3, 1]])
    found = Rescorer(corpus, 2).best(np.array([[1, 0]], dtype=np.float32), candidates, 5)
    assert found.rows[0].tolist() == [0, 2, 1, 3, -1]
    assert found.scores[0].tolist() == [1, 1, 0, -np.inf, -np.inf]


def test_bytes_are_those_of_each_stage(corpus):
    first = build_index(corpus, 16, precision="int8")
    funnel = Funnel(first, [Stage(Rescorer(corpus, 64), 4)])
    assert funnel.stage_bytes == (first.index_bytes, 600 * 64 * 4 + 600 * 4)


def test_what_cannot_work_is_refused(corpus, queries):
    first = build_index(corpus, 16)
    rescorer = Rescorer(corpus, 64)
    with pytest.raises(PlanError, match="at least one rescoring stage"):
        Funnel(first, [])
    with pytest.raises(PlanError, match=r"candidates \[2, 5\]"):
        Funnel(first, [Stage(rescorer, 2), Stage(rescorer, 5)])
    with pytest.raises(PlanError, match="same vectors"):
        Funnel(first, [Stage(Rescorer(corpus.take(range(5)), 64), 2)])
    with pytest.raises(PlanError, match=r"dimension 65 .* 1\.\.64"):
        Rescorer(corpus, 65)
    funnel = Funnel(first, [Stage(rescorer, 2)])
    with pytest.raises(PlanError, match=r"k 601 .* 1\.\.600"):
        funnel.search(funnel.prepare(queries), 601)
    with pytest.raises(PlanError, match=r"2 candidates cannot give 3 neighbours; .* at least k = 3"):
        funnel.search(funnel.prepare(queries), 3)
    with pytest.raises(VectorError, match="prepare"):
        funnel.search(queries, 2)
