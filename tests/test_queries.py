"""What the queries of a results folder say: labels, clusters, rankings and judged draws find together."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import toolkit
from toolkit.decide.cost import Prices
from toolkit.decide.queries import queries_of
from toolkit.decide.recommend import recommend
from toolkit.experiment.results import Results
from toolkit.judge.design import FOLDER
from toolkit.judge.simulated import answer_all

FULL = "256 float32 Flat"
PLAN = {
    "dims": [64, 256],
    "precisions": ["float32", "float16", "binary"],
    "timing": {"queries": 3, "rounds": 1, "threads": [1]},
}
TOPICS = [
    "river",
    "bridge",
    "engine",
    "violin",
    "harvest",
    "market",
    "glacier",
    "planet",
    "lantern",
    "saddle",
]


@pytest.fixture(scope="module")
def docs():
    rng = np.random.default_rng(0)
    return {f"d{i}": " ".join(rng.choice(TOPICS, 6)) + f" number {i}" for i in range(240)}


@pytest.fixture(scope="module")
def swept(tmp_path_factory, docs):
    rng = np.random.default_rng(1)
    ids = list(docs)
    queries = {f"q{i}": " ".join(docs[ids[i]].split()[:4]) for i in range(120)}
    qrels = {f"q{i}": {ids[i]: 1, ids[int(rng.integers(240))]: 1} for i in range(40)}
    clusters = {query_id: f"c{i // 4}" for i, query_id in enumerate(queries)}
    data = toolkit.retrieval_set(
        docs=docs,
        queries={one: text for one, text in queries.items() if one in qrels},
        qrels=qrels,
        name="topics",
    )
    others = {one: text for one, text in queries.items() if one not in qrels}
    data = replace(
        data,
        unlabelled_ids=list(others),
        unlabelled=list(others.values()),
        unlabelled_source="given",
        clusters=clusters,
    )
    out = tmp_path_factory.mktemp("queries") / "topics"
    toolkit.sweep(data=data, out=out, progress=False, **PLAN)
    return Results.load(out), data


def found_in(results, metric="ndcg@10"):
    values = results.per_query.astype({"setting": str}).set_index(["query_id", "setting"])[metric].unstack()  # noqa: PD010
    return queries_of(results, metric, FULL, values), values


def test_labels_clusters_and_rankings_are_laid_side_by_side(swept):
    results, _ = swept
    queries, values = found_in(results)
    assert (queries.labelled, queries.unlabelled, queries.clusters) == (40, 80, 10)
    at = queries.settings.index("64 binary Flat")
    bounds = results.bounds.astype({"setting": str})
    bounds = bounds[bounds["setting"] == "64 binary Flat"].set_index("query_id")
    assert queries.plain.most_lost[:, at] == pytest.approx(bounds.loc[values.index, "ndcg@10_most_lost"])
    others = sorted(set(bounds.index) - set(values.index))
    assert queries.pool.most_lost[:, at] == pytest.approx(bounds.loc[others, "ndcg@10_most_lost"])
    assert (
        queries.plain.scores[:, at] >= queries.plain.reference - queries.plain.most_lost[:, at] - 1e-6
    ).all()
    assert recommend(results).clusters == 10


def test_the_same_folder_without_clusters_claims_more(swept):
    results, _ = swept
    queries, _ = found_in(results)
    alone = replace(
        queries, plain=replace(queries.plain, clusters=None), pool=replace(queries.pool, clusters=None)
    )
    setting = "64 float32 Flat"
    assert queries.retained_at_least(setting, "proven") < alone.retained_at_least(setting, "proven")


def test_what_a_person_judged_is_weighted_into_the_recommendation(swept, docs):
    results, data = swept
    before = recommend(results)
    session = (
        toolkit.load_results(results.folder)
        .judge(settings=["64 binary Flat", "64 float32 Flat"], most=30, data=data)
        .session
    )
    truth = {one: {next(iter(docs)): 1} for one in data.unlabelled_ids}
    truth |= {f"q{i}": {list(docs)[i]: 1} for i in range(40, 120)}
    assert answer_all(session, truth) > 0
    after = recommend(Results.load(results.folder))
    assert before.judged == 0
    assert 30 <= after.judged <= 40  # a query drawn again is judged already
    assert f"{after.judged} queries judged where settings can lose most" in str(after)
    queries, _ = found_in(Results.load(results.folder))
    assert len(queries.drawn.scores) == 40 + after.judged
    # Weights stand for all 120 queries, however they were taken.
    assert queries.drawn.weights.mean() == pytest.approx(1.0, abs=0.35)
    kept = after.table.set_index("setting")["retained"]
    assert kept["64 binary Flat"] == pytest.approx(queries.drawn.retained()[0])
    assert (results.folder / FOLDER).is_dir()


def test_a_set_without_judgements_is_advised_on_in_terms_of_agreement(tmp_path, docs):
    data = toolkit.texts(
        docs, queries={f"q{i}": " ".join(text.split()[:4]) for i, text in enumerate(docs.values())}
    )
    out = tmp_path / "unjudged"
    toolkit.sweep(data=data, out=out, progress=False, **PLAN)
    found = recommend(Results.load(out), keep=0.95, prices=Prices(vcpu_usd=0.0))
    assert found.reference.quality == pytest.approx(1.0)
    assert found.advised.setting != FULL
    assert "nobody judged them" in str(found)
    table = found.table.set_index("setting")
    assert table.loc["256 float16 Flat", "verdict"].startswith("keeps")
    assert isinstance(table, pd.DataFrame)
