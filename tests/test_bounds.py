"""The table of bounds in a results folder: against judgements, against definitions, and across runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.sweeps import names_set, sweep_into
from toolkit.experiment.bounds import bounded_metrics
from toolkit.experiment.results import Results

INDEXES = ["Flat", {"factory": "HNSW8", "search": [{"efSearch": 10}, {"efSearch": 64}]}, "IVF4"]
METRICS = ["ndcg@10", "recall@5", "mrr@10", "map@10", "safe_ndcg@10"]


def clustered(**more):
    data = names_set()
    return replace(
        data,
        unlabelled_ids=["u0", "u1", "u2"],
        unlabelled=["where do red dogs go?", "an old oak", "a silver pig"],
        clusters={"q0": "first", "q1": "first", "u0": "last"},
        **more,
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    base = tmp_path_factory.mktemp("bounds")
    fields = {"dims": [32, 64], "indexes": INDEXES, "precisions": ["float32", "float16", "binary"]}
    sweep_into(base / "out", base / "cache", data=clustered(), metrics=METRICS, **fields)
    return Results.load(base / "out")


def test_one_row_for_each_setting_and_query(results):
    table = results.bounds
    assert list(table.columns[:4]) == ["setting", "query_id", "labelled", "cluster"]
    assert set(table.columns[4:]) == {
        *(f"{name}_{part}" for name in METRICS[:3] for part in ("most_lost", "most_gained")),
        "ndcg@10_by_reference",
    }
    assert set(table.dtypes[4:]) == {np.dtype(np.float32)}
    assert isinstance(table["setting"].dtype, pd.CategoricalDtype)
    assert not table.duplicated(["setting", "query_id"]).any()
    assert len(table) == len(results.measurements) * (len(names_set().queries) + 3)
    about = table.drop_duplicates("query_id").set_index("query_id")
    assert about.index[~about["labelled"]].tolist() == ["u0", "u1", "u2"]
    assert about["cluster"].loc[["q0", "q1", "q2", "u0", "u1"]].tolist() == ["first", "first", "", "last", ""]


def test_no_judged_query_leaves_its_bounds(results):
    """Judgements made for one purpose and bounds made for none must fit."""
    quality = results.per_query.astype({"setting": str}).set_index(["setting", "query_id"])
    table = results.bounds[results.bounds["labelled"]].astype({"setting": str})
    table = table.set_index(["setting", "query_id"]).loc[quality.index]
    full = quality.xs("256 float32 Flat").loc[quality.index.get_level_values("query_id")]
    for name in METRICS[:3]:
        change = quality[name].to_numpy() - full[name].to_numpy()
        assert (change >= -table[f"{name}_most_lost"].to_numpy() - 1e-6).all()
        assert (change <= table[f"{name}_most_gained"].to_numpy() + 1e-6).all()
        assert (change != 0).any(), "nothing was lost or gained, so nothing was tested"
    np.testing.assert_allclose(1 - quality["safe_ndcg@10"], table["ndcg@10_most_lost"], atol=1e-6)


def test_the_reference_loses_nothing_of_itself(results):
    own = results.bounds[results.bounds["setting"] == "256 float32 Flat"]
    assert (own.filter(like="most_").to_numpy() == 0).all()
    assert (own["ndcg@10_by_reference"] == 1).all()


def test_settings_that_rank_alike_are_one_group(results):
    frame = results.measurements
    groups = results.same_ranking("ndcg@10")
    assert groups["256 float32 Flat"] == 0
    assert frame["same_ranking"].tolist() == groups.tolist()
    assert 1 < groups.nunique() < len(groups)
    values = results.bounds.groupby("setting", observed=True, sort=False)
    lost = {key: tuple(rows["ndcg@10_most_lost"]) for key, rows in values}
    for group in groups.unique():
        assert len({lost[key] for key in groups.index[groups == group]}) == 1
    assert groups["64 binary Flat"] != groups["64 float32 Flat"]


def test_a_deeper_metric_leaves_each_setting_alone(results):
    groups = results.same_ranking("map@64")
    assert sorted(groups) == list(range(len(groups)))
    assert groups["256 float32 Flat"] == 0


def test_what_is_bounded_follows_the_plan():
    assert bounded_metrics(["map@100", "recall@5"]) == ["recall@5"]
    assert bounded_metrics(["safe_ndcg@7", "ndcg@7", "ndcg@10"]) == ["ndcg@7", "ndcg@10"]
    assert bounded_metrics(["overlap@10"]) == ["ndcg@10"]


def test_queries_without_judgements_can_be_added_and_cost_no_timing(tmp_path):
    first = sweep_into(tmp_path / "out", tmp_path / "cache", max_unlabelled=0)
    assert first.bounds["labelled"].all()
    timings = {path.name: path.read_bytes() for path in (tmp_path / "out" / "raw").glob("*.timing.npz")}
    found = set((tmp_path / "out" / "raw").glob("*.neighbours.npz"))
    later = sweep_into(tmp_path / "out", tmp_path / "cache", data=clustered(), resume=True)
    assert (~later.bounds["labelled"]).sum() == 3 * len(later.measurements)
    assert later.measurements["p95_ms"].tolist() == first.measurements["p95_ms"].tolist()
    assert timings == {
        path.name: path.read_bytes() for path in (tmp_path / "out" / "raw").glob("*.timing.npz")
    }
    assert len(set((tmp_path / "out" / "raw").glob("*.neighbours.npz")) - found) == len(later.measurements)


def test_a_folder_without_bounds_says_so(tmp_path):
    results = sweep_into(tmp_path / "out", tmp_path / "cache")
    (tmp_path / "out" / "bounds.parquet").unlink()
    older = replace(results, measurements=results.measurements.drop(columns="same_ranking"))
    assert older.bounds is None
    assert older.same_ranking("ndcg@10")["256 float32 Flat"] == 0
    assert older.same_ranking("ndcg@10").is_unique
