"""Quality at growing parts of a corpus, and its trend."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sweeps import sweep_into

from toolkit.data.sets import RetrievalSet
from toolkit.decide.size_trend import SizeTrends
from toolkit.experiment.corpus_parts import corpus_parts
from toolkit.experiment.results import Results
from toolkit.search.neighbours import Neighbours

FULL = "256 float32 Flat"


def topics(documents, queries=60, *, labelled=True):
    """Queries that share two words with their document and one with many others."""
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(400)]
    docs = [" ".join(rng.choice(words, 6)) for _ in range(documents)]
    asked = [" ".join([*docs[7 * i].split()[:2], *rng.choice(words, 2)]) for i in range(queries)]
    qrels = {f"q{i}": {f"d{7 * i}": 1} for i in range(queries)} if labelled else {}
    ids = [f"d{i}" for i in range(documents)], [f"q{i}" for i in range(queries)]
    return RetrievalSet("topics", ids[0], docs, ids[1], asked, qrels)


def nearest_of(data):
    rows = np.array([[7 * i] for i in range(len(data.queries))])
    return Neighbours(rows, np.ones(rows.shape, np.float32))


@pytest.mark.parametrize("labelled", [True, False])
def test_parts_are_nested_and_hold_what_is_relevant(labelled):
    data = topics(4_000, labelled=labelled)
    parts = corpus_parts(data, nearest_of(data), seed=3)
    assert parts.sizes == (500, 1_000, 2_000)
    assert sorted(parts.order) == list(range(4_000))
    relevant = {7 * row for row in parts.queries}
    inside = [set(parts.rows(size)) for size in parts.sizes]
    assert relevant <= inside[0] < inside[1] < inside[2]
    assert len(parts.queries) == 60
    other = corpus_parts(data, nearest_of(data), seed=4)
    assert set(other.rows(500)) != inside[0]


def test_relevant_documents_are_never_most_of_a_part():
    data = topics(4_000, queries=500)
    parts = corpus_parts(data, nearest_of(data), seed=0)
    assert len(parts.queries) == 500
    assert parts.sizes == (1_000, 2_000)
    assert corpus_parts(topics(800), nearest_of(topics(800)), seed=0).sizes == ()


def test_a_sweep_measures_quality_at_parts_and_the_reference_keeps_all(tmp_path):
    data = topics(2_000)
    plan = {
        "dims": [32],
        "precisions": ["float32", "binary"],
        "indexes": ["Flat", "IVF8"],
        "timing": {"queries": 2, "rounds": 1, "threads": [1], "fractions": [0.5]},
    }
    results = sweep_into(tmp_path / "out", tmp_path / "cache", data=data, **plan)
    table = Results.load(tmp_path / "out").by_size
    pd.testing.assert_frame_equal(table, Results.load(tmp_path / "out").by_size)
    assert sorted(table["documents"].unique()) == [500, 1_000, 2_000]
    trends = SizeTrends(table, FULL)
    assert trends.metric == "ndcg@10"
    assert [trends.at(FULL, size).kept for size in trends.sizes] == [1.0, 1.0, 1.0]
    assert trends.sizes_of("32 binary Flat") == [500, 1_000, 2_000]
    assert trends.sizes_of("32 binary IVF8 nprobe=1") == [1_000, 2_000], "built only where it is timed"
    whole = results.measurements.set_index("setting")["ndcg@10"]
    found = trends.at("32 binary Flat", 2_000)
    assert found.kept == pytest.approx(whole["32 binary Flat"] / whole[FULL], rel=1e-6)
    assert found.low < found.kept < found.high
    assert found.measured
    # The reference finds less among more documents, whatever it keeps of itself.
    of_reference = table[table["setting"] == FULL].groupby("documents")["ndcg@10"].mean()
    assert of_reference.is_monotonic_decreasing
    frame = trends.frame()
    assert list(frame.columns) == ["setting", "documents", "metric", "kept", "low", "high"]
    again = sweep_into(tmp_path / "out", tmp_path / "cache", data=data, **plan)
    pd.testing.assert_frame_equal(again.by_size, table)


def table_of(sizes, share, *, queries=200, noise=0.05, clusters=None, seed=0):
    """A setting whose kept share at each size is `share(size)` in expectation, beside a reference of 0.8."""
    rng = np.random.default_rng(seed)
    names = [f"q{i}" for i in range(queries)]
    in_cluster = [""] * queries if clusters is None else [f"c{i % clusters}" for i in range(queries)]
    # A query's own share of what is lost is the same at every size.
    own = rng.normal(0.0, 1.0, queries if clusters is None else clusters)
    own = own if clusters is None else np.tile(own, queries // clusters)
    parts = []
    for size in sizes:
        for setting, kept in (("ref", 1.0), ("one", share(size))):
            spread = own * noise if setting == "one" else 0.0
            values = 0.8 * (kept + spread)
            parts.append(
                pd.DataFrame(
                    {
                        "setting": setting,
                        "documents": size,
                        "query_id": names,
                        "cluster": in_cluster,
                        "ndcg@10": values,
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)


def test_a_line_over_the_logarithm_is_recovered_and_its_interval_widens():
    def share(size):
        return 1.0 - 0.02 * np.log2(size / 1_000)

    table = table_of([1_000, 2_000, 4_000, 8_000], share, noise=0.0)
    trends = SizeTrends(table, "ref")
    assert trends.at("one", 64_000).kept == pytest.approx(share(64_000), abs=1e-6)
    assert trends.at("one", 64_000).decides
    assert not trends.at("one", 81_000).decides
    assert "decides nothing" in trends.at("one", 10**7).source
    assert "decides nothing" not in trends.at("one", 64_000).source
    assert trends.at("one", 8_000).source == "measured at 8,000 documents"
    assert trends.at("one", 3_000).kept == pytest.approx(share(3_000), abs=1e-6)
    assert trends.at("nothing", 3_000) is None


def test_a_bend_is_within_the_interval():
    table = table_of([1_000, 2_000, 4_000, 8_000], {1_000: 1.0, 2_000: 1.0, 4_000: 0.98, 8_000: 0.93}.get)
    found = SizeTrends(table, "ref").at("one", 16_000)
    assert found.low < 0.88 < found.high


def test_queries_of_a_cluster_are_resampled_together():
    def share(size):
        return 0.9

    alone = SizeTrends(table_of([1_000, 2_000], share), "ref").at("one", 2_000)
    together = SizeTrends(table_of([1_000, 2_000], share, clusters=10), "ref").at("one", 2_000)
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_intervals_at_a_measured_size_hold_the_truth():
    def share(size):
        return 0.95 - 0.01 * np.log2(size / 1_000)

    held = 0
    for seed in range(60):
        found = SizeTrends(table_of([1_000, 2_000, 4_000], share, noise=0.2, seed=seed), "ref").at(
            "one", 16_000
        )
        held += found.low <= share(16_000) <= found.high
    assert held >= 52
