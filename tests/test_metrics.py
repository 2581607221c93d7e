"""The metric table: complete, chosen by a plan, and each formula equal to trec_eval's or written out."""

import json
import shutil
from collections import namedtuple

import numpy as np
import pandas as pd
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

import toolkit
from toolkit.errors import DataError, PlanError
from toolkit.experiment.plan import make_plan, read_plan
from toolkit.experiment.setting import SETTING_COLUMNS
from toolkit.measure.metrics import (
    COSTS,
    FAMILIES,
    PAIR_METRICS,
    PARTS,
    choose_metrics,
    described,
    metric_named,
)
from toolkit.measure.quality import evaluate

Ranking = namedtuple("Ranking", "rows scores")
FACTS = {"dataset", "model", "setting", *SETTING_COLUMNS, "factory", "index_device", "same_ranking"}


def is_known(column: str) -> bool:
    for part in sorted(PARTS, key=len, reverse=True):
        if part and column.endswith(part) and described(column.removesuffix(part)).is_quality:
            return True
    return column in COSTS or described(column).is_quality


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    """Thirty documents with graded judgements, as a folder."""
    folder = tmp_path_factory.mktemp("data") / "letters"
    (folder / "qrels").mkdir(parents=True)
    colors = ("red", "blue", "green", "grey", "pink", "gold", "teal", "jade", "lime", "rust")
    names = [f"{kind} {color}" for kind in ("cat", "oak", "iron") for color in colors]
    docs = [{"_id": f"d{i}", "title": name, "text": f"All about {name}."} for i, name in enumerate(names)]
    queries = [{"_id": f"q{i}", "text": f"Tell me about {name}"} for i, name in enumerate(names)]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, docs)))
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    judged = [f"q{i}\td{j}\t{2 - (i != j)}" for i in range(30) for j in (i, (i + 10) % 30)]
    (folder / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]))
    return folder


def swept(letters, out, **fields):
    plan = {"dims": [64], "k": 20, "timing": {"queries": 3, "rounds": 1}} | fields
    return toolkit.sweep(data=f"beir:{letters}", out=out, progress=False, **plan).results


def test_every_column_of_a_sweep_has_an_entry(letters, tmp_path):
    results = swept(letters, tmp_path / "out", precisions=["float32", "int8"], rescore=[{"candidates": 40}])
    measured = [column for column in results.measurements if column not in FACTS]
    assert [column for column in measured if not is_known(column)] == []
    assert {"ndcg@10", "map@20", "overlap@10", "p95_ms", "bytes_per_vector"} <= set(measured)
    for column in measured:
        entry = described(column)
        if entry.name in COSTS or entry.is_quality:
            assert entry.label
            assert entry.meaning.endswith(".")
            assert entry.unit
            assert entry.formula or not entry.is_quality


def test_the_first_stages_share_of_a_real_search_is_measured(letters, tmp_path):
    results = swept(letters, tmp_path / "two", precisions=["float32", "int8"], rescore=[{"candidates": 25}])
    frame = results.measurements
    alone = frame["rescore"] == ""
    assert (frame.loc[alone, "first_stage_share"] == 1.0).all()
    rescored = frame.loc[~alone, "first_stage_share"]
    assert rescored.between(0, 1, inclusive="neither").all()
    assert rescored.nunique() == len(rescored) >= 2


def test_every_name_is_its_own_and_every_family_has_a_depth():
    names = [*FAMILIES, *PAIR_METRICS, *COSTS]
    assert len(names) == len(set(names))
    for family in FAMILIES:
        found = metric_named(f"{family}@37")
        assert (found.name, found.depth) == (f"{family}@37", 37)
        assert "37" in found.label + found.meaning
        assert "{k}" not in found.label + found.meaning + found.trec


def test_better_is_the_right_way():
    lower = {name for name, cost in COSTS.items() if not cost.higher_is_better}
    assert {"p95_ms", "build_s", "bytes_per_vector", "usd_per_month"} <= lower
    assert lower.isdisjoint({"qps", "qps_1_thread"})
    assert all(metric.higher_is_better for metric in (*FAMILIES.values(), *PAIR_METRICS.values()))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ndcg", "did you mean 'ndcg@10'"),
        ("nDCG@5", "did you mean 'ndcg@5'"),
        ("recal@100", "did you mean 'recall@100'"),
        ("map", "did you mean 'map@10'"),
        ("spearmen", "did you mean 'spearman'"),
        ("ndcg@0", "did you mean"),
        ("ndcg@010", "did you mean"),
        ("ndcg@٣", "did you mean 'ndcg@3'|did you mean"),
        ("zzz", "choose ndcg@k, recall@k, mrr@k, map@k, overlap@k"),
    ],
)
def test_an_unknown_metric_names_the_nearest(name, hint):
    with pytest.raises(PlanError, match=f"metric '{name}' is unknown; .*({hint})"):
        metric_named(name)
    with pytest.raises(PlanError, match="is unknown"):
        make_plan(metrics=[name])


# --- formulas


def judged_run(seed: int, *, documents=40, queries=4, k=25):
    rng = np.random.default_rng(seed)
    doc_ids = [f"d{number}" for number in rng.permutation(documents)]
    rows = np.stack([rng.permutation(documents)[:k] for _ in range(queries)])
    scores = -np.sort(-rng.random((queries, k)).astype(np.float32), axis=1)
    query_ids = [f"q{number}" for number in range(queries)]
    qrels = {
        query_id: {
            doc_ids[row]: int(rng.integers(0, 4)) for row in rng.choice(documents, size=12, replace=False)
        }
        for query_id in query_ids
    }
    return Ranking(rows, scores), doc_ids, query_ids, qrels


@given(st.integers(0, 2**32 - 1), st.integers(1, 25))
@settings(max_examples=60, deadline=None)
def test_each_metric_is_its_formula_at_any_depth(seed, depth):
    found, doc_ids, query_ids, qrels = judged_run(seed)
    names = [f"{family}@{depth}" for family in ("ndcg", "recall", "mrr", "map")]
    values = evaluate(found, doc_ids, query_ids, qrels, metrics=names)
    for query, query_id in enumerate(query_ids):
        gains = [qrels[query_id].get(doc_ids[row], 0) for row in found.rows[query]][:depth]
        relevant = sum(gain > 0 for gain in qrels[query_id].values())
        best = sorted(qrels[query_id].values(), reverse=True)[:depth]
        discount = 1 / np.log2(np.arange(2, 2 + depth))
        hits = np.array(gains) > 0
        ranks = np.flatnonzero(hits) + 1
        wanted = {
            "ndcg": gains @ discount[: len(gains)] / (best @ discount[: len(best)]) if relevant else 0.0,
            "recall": hits.sum() / max(relevant, 1),
            "mrr": 1 / ranks[0] if ranks.size else 0.0,
            "map": sum((n + 1) / rank for n, rank in enumerate(ranks)) / max(relevant, 1),
        }
        for family, value in wanted.items():
            assert values[f"{family}@{depth}"][query] == pytest.approx(value, abs=1e-9), (family, query_id)


def test_map_at_a_depth_is_trec_evals_and_less_than_map_in_full():
    found, doc_ids, query_ids, qrels = judged_run(5, documents=400, k=300)
    run = {
        query_id: {doc_ids[row]: float(score) for row, score in zip(rows, scores, strict=True)}
        for query_id, rows, scores in zip(query_ids, *found, strict=True)
    }
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {"map", "map_cut.100"}).evaluate(run)
    ours = evaluate(found, doc_ids, query_ids, qrels, metrics=["map@100", "map@300"])
    for query, query_id in enumerate(query_ids):
        assert ours["map@100"][query] == pytest.approx(theirs[query_id]["map_cut_100"], abs=1e-9)
        assert ours["map@300"][query] == pytest.approx(theirs[query_id]["map"], abs=1e-9)
    assert ours["map@100"].mean() < ours["map@300"].mean()


# --- what a plan chooses


def test_a_plan_chooses_its_metrics_and_the_first_one_judges(letters, tmp_path):
    out = tmp_path / "own"
    results = swept(letters, out, metrics=["recall@5", "ndcg@20", "overlap@3"])
    quality = [c for c in results.measurements if described(c).is_quality]
    assert quality == ["recall@5", "ndcg@20", "overlap@3"]
    assert list(results.per_query.columns) == ["setting", "query_id", *quality]
    assert results.measurements["recall@5"].between(0, 1).all()
    assert read_plan(out / "plan.toml").metrics == ["recall@5", "ndcg@20", "overlap@3"]
    assert "recall@5" in toolkit.load_results(out).headline


def test_auto_leaves_out_what_k_cannot_give_and_says_so():
    assert choose_metrics("auto", kind="retrieval", k=100, documents=5_000).names == (
        "ndcg@10", "recall@1", "recall@10", "recall@100", "mrr@10", "map@100", "overlap@10",
    )  # fmt: skip
    short = choose_metrics("auto", kind="retrieval", k=20, documents=5_000)
    assert "recall@100" not in short.names
    assert "map@20" in short.names
    assert short.notes == ("recall@100 not measured: only 20 neighbours of each query are kept",)
    whole = choose_metrics("auto", kind="retrieval", k=20, documents=20)
    assert "recall@100" in whole.names
    assert whole.notes == ()


def test_a_metric_deeper_than_k_is_refused_before_a_model_loads(letters, tmp_path):
    with pytest.raises(
        PlanError, match=r"'recall@25' looks at 25 neighbours.*only 20.*set k to 25 or choose recall@20"
    ):
        swept(letters, tmp_path / "deep", embedder="http://127.0.0.1:9/v1#none", metrics=["recall@25"])
    assert not (tmp_path / "deep").exists()


def test_metrics_of_pairs_and_of_searches_are_not_mixed_up():
    with pytest.raises(PlanError, match="'spearman' is for sets of pairs"):
        choose_metrics(["spearman"], kind="retrieval", k=10, documents=100)
    with pytest.raises(PlanError, match=r"'ndcg@10' does not suit .* choose spearman"):
        choose_metrics(["ndcg@10"], kind="sts", k=10, documents=0)
    assert choose_metrics("auto", kind="bitext", k=10, documents=0).names == ("accuracy",)
    with pytest.raises(PlanError, match="does not follow from judgements"):
        evaluate(*judged_run(0), metrics=["overlap@10"])


@pytest.mark.parametrize("gain", [0, -1])
def test_judgements_without_a_relevant_document_are_refused(letters, tmp_path, gain):
    folder = tmp_path / "letters"
    shutil.copytree(letters, folder)
    qrels = folder / "qrels" / "test.tsv"
    table = pd.read_csv(qrels, sep="\t").assign(score=gain)
    table.to_csv(qrels, sep="\t", index=False)
    with pytest.raises(DataError, match=r"no document is relevant .* nothing to measure"):
        swept(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_human_scores_that_are_all_equal_are_refused(tmp_path):
    file = tmp_path / "same.tsv"
    file.write_text("sentence1\tsentence2\tscore\n" + "".join(f"text {i}\tother {i}\t3\n" for i in range(8)))
    with pytest.raises(DataError, match="all 8 human scores are 3"):
        toolkit.sweep(data=f"pairs:{file}", out=tmp_path / "out", progress=False)
