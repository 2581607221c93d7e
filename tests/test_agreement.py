"""What two rankings tell without judgements: held against every judgement there can be, and against definitions."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import DataError, PlanError
from toolkit.measure.agreement import (
    RBO_PERSISTENCE,
    SideBySide,
    as_evaluated,
    bounds,
    kept_ndcg,
    most_mrr_lost,
    most_ndcg_lost,
    most_recall_lost,
    overlap,
    rank_biased_overlap,
)
from toolkit.measure.metrics import choose_metrics, metric_named
from toolkit.measure.quality import evaluate
from toolkit.search.neighbours import Neighbours

DOCS = [f"d{i}" for i in range(6)]


def ranking(*rows, scores=None):
    rows = np.array(rows)
    falling = np.broadcast_to(np.linspace(1, 0.1, rows.shape[1]), rows.shape)
    return Neighbours(rows, np.array(falling if scores is None else scores, dtype=np.float32))


def losses(found, reference, gains, k, family="ndcg"):
    """What is lost of a metric under every one of `gains` (judgements, documents), by trec_eval."""
    ids = [f"q{i}" for i in range(len(gains))]
    qrels = {i: dict(zip(DOCS, map(int, row), strict=True)) for i, row in zip(ids, gains, strict=True)}
    name = f"{family}@{k}"

    def value(one):
        every = Neighbours(np.repeat(one.rows, len(ids), axis=0), np.repeat(one.scores, len(ids), axis=0))
        return evaluate(every, DOCS, ids, qrels, metrics=[name])[name]

    return value(reference) - value(found)


ORDERS = st.permutations(range(6))
BINARY = np.array(list(product((0, 1), repeat=6)))


MOST_LOST = {"ndcg": most_ndcg_lost, "recall": most_recall_lost, "mrr": most_mrr_lost}


@pytest.mark.parametrize("family", MOST_LOST)
@settings(max_examples=40, deadline=None)
@given(ORDERS, ORDERS, st.integers(1, 6), st.integers(1, 6), st.booleans())
def test_the_bound_is_the_largest_loss_over_all_binary_judgements(family, found, reference, k, depth, ties):
    scores = [np.round(np.linspace(1, 0.6, depth), 1)] if ties else None
    found, reference = ranking(found[:depth], scores=scores), ranking(reference[:depth])
    bound = MOST_LOST[family](found, reference, DOCS, k=k)
    assert bound[0] == pytest.approx(max(0.0, losses(found, reference, BINARY, k, family).max()), abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(ORDERS, ORDERS, st.integers(1, 6), st.integers(1, 6))
def test_both_directions_and_the_kept_share_come_from_one_comparison(found, reference, k, depth):
    found, reference = ranking(found[:depth]), ranking(reference)
    pair = SideBySide.of(*(as_evaluated(one, DOCS) for one in (found, reference)))
    for family, most_lost in MOST_LOST.items():
        both = bounds(pair, family, k)
        assert both["most_lost"] == most_lost(found, reference, DOCS, k=k)
        assert both["most_gained"] == most_lost(reference, found, DOCS, k=k)
    own = np.array([[row in reference.rows[0, :k] for row in range(6)]])
    kept = 1.0 - losses(found, reference, own, k)
    assert bounds(pair, "ndcg", k)["by_reference"] == pytest.approx(kept, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(ORDERS, ORDERS, st.integers(1, 6), st.integers(0, 2**31))
def test_graded_judgements_lose_no_more(found, reference, k, seed):
    gains = np.random.default_rng(seed).integers(0, 9, size=(300, 6))
    found, reference = ranking(found), ranking(reference)
    assert losses(found, reference, gains, k).max() <= most_ndcg_lost(found, reference, DOCS, k=k)[0] + 1e-9


def test_equal_scores_are_ordered_as_trec_eval_orders_them():
    one = ranking([0, 1, 2], scores=[[0.5, 0.5, 0.1]])
    other = ranking([1, 0, 2], scores=[[0.5, 0.5, 0.1]])
    assert most_ndcg_lost(one, other, DOCS, k=3) == [0.0]
    assert losses(one, other, BINARY, 3).max() == 0.0
    assert most_ndcg_lost(one, other, k=3)[0] > 0


def test_alike_at_the_top_costs_nothing_whatever_follows():
    one, other = ranking([3, 1, 0, 2]), ranking([3, 1, 2, 0])
    assert most_ndcg_lost(one, other, k=2) == [0.0]
    assert most_ndcg_lost(one, other, k=4)[0] > 0


def test_a_search_that_found_nothing_can_lose_all():
    nothing = ranking([-1, -1, -1])
    assert most_ndcg_lost(nothing, ranking([0, 1, 2]), DOCS, k=3) == [1.0]
    assert most_ndcg_lost(nothing, nothing, DOCS, k=3) == [0.0]
    assert rank_biased_overlap(nothing, nothing, k=3) == [0.0]


def rbo_by_definition(one, other, k):
    p = RBO_PERSISTENCE
    shares = [len(set(one[:d]) & set(other[:d])) / d for d in range(1, k + 1)]
    return (1 - p) / p * sum(x * p**d for d, x in enumerate(shares, 1)) + shares[-1] * p**k


@given(ORDERS, st.permutations(range(3, 9)), st.integers(1, 6))
def test_rank_biased_overlap_is_its_definition(one, other, k):
    found = rank_biased_overlap(ranking(one), ranking(other), k=k)
    assert found[0] == pytest.approx(rbo_by_definition(one, other, k))


def test_rank_biased_overlap_weighs_the_top():
    reference = ranking([0, 1, 2, 3, 4, 5])
    top, end = ranking([1, 0, 2, 3, 4, 5]), ranking([0, 1, 2, 3, 5, 4])
    assert rank_biased_overlap(reference, reference, k=6)[0] == pytest.approx(1.0)
    assert rank_biased_overlap(top, reference, k=6) < rank_biased_overlap(end, reference, k=6)
    assert rank_biased_overlap(ranking([6, 7, 8]), ranking([0, 1, 2]), k=3) == [0.0]
    assert overlap(top, reference, k=6) == [1.0]


def test_rankings_of_other_queries_cannot_be_compared():
    for measure in (overlap, rank_biased_overlap, most_ndcg_lost):
        with pytest.raises(DataError, match="rankings of 2 and 1 queries"):
            measure(ranking([0, 1], [1, 0]), ranking([0, 1]), k=2)


def test_they_are_metrics_a_plan_can_name():
    chosen = choose_metrics(["ndcg@10", "rbo@10", "safe_ndcg@10"], kind="retrieval", k=100, documents=1_000)
    assert chosen.names == ("ndcg@10", "rbo@10", "safe_ndcg@10")
    assert metric_named("safe_ndcg@10").label == "safe nDCG@10"
    with pytest.raises(PlanError, match="safe_ndcg@k"):
        metric_named("certain_ndcg@10")


def test_of_many_queries_each_is_compared_with_its_own():
    rng = np.random.default_rng(0)
    found, reference = (np.array([rng.permutation(30)[:10] for _ in range(64)]) for _ in range(2))
    found[5, 4:], reference[7, 6:] = -1, -1
    pair = SideBySide.of(found, reference)
    for query in range(64):
        at = {row: rank for rank, row in enumerate(found[query]) if row >= 0}
        assert pair.places[query].tolist() == [at.get(row, -1) for row in reference[query]]
        at = {row: rank for rank, row in enumerate(reference[query]) if row >= 0}
        assert pair.back[query].tolist() == [at.get(row, -1) for row in found[query]]


def test_a_reference_keeps_all_of_itself():
    one, nothing = ranking([3, 1, 0, 2]), ranking([-1, -1, -1, -1])
    assert kept_ndcg(one, one, DOCS, k=3) == [1.0]
    assert kept_ndcg(nothing, one, DOCS, k=3) == [0.0]
    assert kept_ndcg(nothing, nothing, DOCS, k=3) == [1.0]


def test_agreement_is_a_share_to_the_last_digit():
    rng = np.random.default_rng(0)
    found = np.array([rng.permutation(10) for _ in range(2_000)])
    found, reference = ranking(*found), ranking(*np.sort(found, axis=1))
    for measure in (kept_ndcg, rank_biased_overlap):
        values = measure(found, reference, k=10)
        assert values.max() <= 1.0
    assert kept_ndcg(found, reference, k=10).min() == pytest.approx(1.0)
