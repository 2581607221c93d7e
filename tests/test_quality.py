"""Quality measures: equal to mteb's numbers and to the formulas written out, ties included."""

from collections import namedtuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from toolkit.errors import DataError, PlanError
from toolkit.measure.agreement import overlap
from toolkit.measure.quality import bitext_hits, evaluate, spearman

Ranking = namedtuple("Ranking", "rows scores")
METRICS = ("ndcg@10", "recall@1", "recall@10", "recall@100", "mrr@10", "map@100")


def ranking(rows, scores) -> Ranking:
    return Ranking(np.asarray(rows, dtype=np.int64), np.asarray(scores, dtype=np.float32))


def by_hand(found: Ranking, doc_ids, gains: dict[str, int], query: int) -> dict[str, float]:
    """The formulas written out: order by score, then id, both descending."""
    pairs = [(s, doc_ids[r]) for r, s in zip(found.rows[query], found.scores[query], strict=True) if r >= 0]
    order = [doc for _, doc in sorted(pairs, reverse=True)]
    relevant = {doc for doc, gain in gains.items() if gain >= 1}

    def dcg(levels):
        return sum(level / np.log2(rank + 2) for rank, level in enumerate(levels[:10]))

    ideal = dcg(sorted(gains.values(), reverse=True))
    ranks = [rank for rank, doc in enumerate(order, start=1) if doc in relevant]
    count = max(len(relevant), 1)
    return {
        "ndcg@10": dcg([gains.get(doc, 0) for doc in order]) / ideal if ideal else 0.0,
        **{f"recall@{k}": sum(rank <= k for rank in ranks) / count for k in (1, 10, 100)},
        "mrr@10": 1.0 / ranks[0] if ranks and ranks[0] <= 10 else 0.0,
        "map@100": sum(nth / rank for nth, rank in enumerate(ranks, start=1)) / count,
    }


@st.composite
def cases(draw):
    """Small searches with many equal scores, graded judgements, and rows that were not found."""
    seed = draw(st.integers(0, 2**32 - 1))
    documents, queries = draw(st.integers(1, 40)), draw(st.integers(1, 5))
    k = draw(st.integers(1, documents))
    levels = draw(st.sampled_from([2, 5, 1000]))
    rng = np.random.default_rng(seed)
    doc_ids = [f"d{number}" for number in rng.permutation(documents)]
    rows = np.stack([rng.permutation(documents)[:k] for _ in range(queries)])
    rows[rng.random(rows.shape) < 0.1] = -1
    scores = np.sort(rng.integers(0, levels, size=rows.shape) / levels, axis=1)[:, ::-1]
    query_ids = [f"q{number}" for number in range(queries)]
    qrels = {
        query_id: {
            doc_ids[row]: int(rng.integers(0, 4))
            for row in rng.choice(documents, size=rng.integers(1, documents + 1), replace=False)
        }
        for query_id in query_ids
    }
    return ranking(rows, scores), doc_ids, query_ids, qrels


@given(cases())
@settings(max_examples=150, deadline=None)
def test_equals_the_formulas(case):
    found, doc_ids, query_ids, qrels = case
    values = evaluate(found, doc_ids, query_ids, qrels, metrics=METRICS)
    assert tuple(values) == METRICS
    for query, query_id in enumerate(query_ids):
        for metric, wanted in by_hand(found, doc_ids, qrels[query_id], query).items():
            assert values[metric][query] == pytest.approx(wanted, abs=1e-9), (metric, query_id)


def test_equals_mteb():
    from toolkit.mteb_adapter.compat import retrieval_scores

    rng = np.random.default_rng(3)
    documents, queries, k = 500, 60, 100
    doc_ids = [f"doc-{number}" for number in range(documents)]
    query_ids = [f"q{number}" for number in range(queries)]
    rows = np.stack([rng.permutation(documents)[:k] for _ in range(queries)])
    scores = -np.sort(-np.round(rng.random((queries, k)), 2), axis=1)
    qrels = {
        query_id: {
            doc_ids[row]: int(gain) for row, gain in zip(rows[i, ::7], rng.integers(0, 3, 15), strict=True)
        }
        for i, query_id in enumerate(query_ids)
    }
    found = ranking(rows, scores)
    run = {
        query_id: {doc_ids[r]: float(s) for r, s in zip(found.rows[i], found.scores[i], strict=True)}
        for i, query_id in enumerate(query_ids)
    }
    theirs = retrieval_scores(run, qrels, [1, 10, 100])
    means = evaluate(found, doc_ids, query_ids, qrels, metrics=METRICS)
    ours = {name: column.mean() for name, column in means.items()}
    # mteb rounds its means to five places.
    assert ours["ndcg@10"] == pytest.approx(theirs.ndcg["NDCG@10"], abs=6e-6)
    assert ours["map@100"] == pytest.approx(theirs.map["MAP@100"], abs=6e-6)
    assert ours["mrr@10"] == pytest.approx(theirs.mrr["MRR@10"], abs=6e-6)
    for cut in (1, 10, 100):
        assert ours[f"recall@{cut}"] == pytest.approx(theirs.recall[f"Recall@{cut}"], abs=6e-6)
    for i, query_id in enumerate(query_ids):
        per_query = theirs.all_scores[query_id]
        values = evaluate(found, doc_ids, query_ids, qrels, metrics=["ndcg@10", "map@100"])
        assert values["ndcg@10"][i] == pytest.approx(per_query["ndcg_cut_10"], abs=1e-9)
        assert values["map@100"][i] == pytest.approx(per_query["map_cut_100"], abs=1e-9)


def test_equal_scores_are_ordered_by_id_whatever_the_index_returned():
    qrels = {"q": {"b": 1}}
    for rows in ([0, 1], [1, 0]):
        values = evaluate(ranking([rows], [[0.5, 0.5]]), ["a", "b"], ["q"], qrels, metrics=["recall@1"])
        assert values["recall@1"][0] == 1.0


def test_queries_without_a_relevant_or_a_found_document_get_zero():
    values = evaluate(
        ranking([[0, 1], [-1, -1], [1, -1]], [[2, 1], [0, 0], [1, 0]]),
        ["a", "b"],
        ["none relevant", "none found", "found"],
        {"none relevant": {"a": 0}, "none found": {"a": 1}, "found": {"b": 2}},
        metrics=METRICS,
    )
    for column in values.values():
        assert column.tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("metric", ["ndcg", "ndcg@0", "ndcg@x", "precision@10", "map", "mrr@-1"])
def test_unknown_metric(metric):
    with pytest.raises(PlanError, match=f"'{metric}' is unknown; choose ndcg@k"):
        evaluate(ranking([[0]], [[1]]), ["a"], ["q"], {"q": {"a": 1}}, metrics=[metric])


def test_rankings_that_do_not_fit_the_ids():
    with pytest.raises(DataError, match="does not fit 2 queries"):
        evaluate(ranking([[0]], [[1]]), ["a"], ["q", "r"], {}, metrics=METRICS)
    with pytest.raises(DataError, match="names document 7, but there are 1"):
        evaluate(ranking([[7]], [[1]]), ["a"], ["q"], {}, metrics=METRICS)
    with pytest.raises(DataError, match="cannot be compared"):
        overlap(ranking([[0]], [[1]]), ranking([[0], [0]], [[1], [1]]), k=1)


def test_overlap():
    exact = ranking([[0, 1, 2, 3], [4, 5, -1, -1], [-1, -1, -1, -1]], np.zeros((3, 4)))
    found = ranking([[1, 0, 9, 2], [5, 4, -1, -1], [0, 1, 2, 3]], np.zeros((3, 4)))
    assert overlap(found, exact, k=3).tolist() == [2 / 3, 1.0, 0.0]
    assert overlap(found, exact, k=2).tolist() == [1.0, 1.0, 0.0]
    assert overlap(exact, exact, k=4)[:2].tolist() == [1.0, 1.0]


@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 50]))
@settings(max_examples=30, deadline=None)
def test_spearman_equals_scipy(seed, levels):
    rng = np.random.default_rng(seed)
    x = rng.random(40)
    y = rng.integers(0, levels, 40)
    if len(set(y)) > 1:
        assert spearman(x, y) == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)


def test_spearman_of_a_constant_is_nan():
    assert np.isnan(spearman(np.ones(4), np.arange(4)))
    with pytest.raises(DataError, match="3 similarities for 4 scores"):
        spearman(np.ones(3), np.arange(4))


def test_bitext_hits():
    assert bitext_hits(ranking([[0, 1], [0, 1], [2, 0]], np.zeros((3, 2)))).tolist() == [1.0, 0.0, 1.0]
