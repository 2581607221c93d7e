"""Where queries without judgements and clusters come from: files, folders, programs, and the documents themselves."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import toolkit
from tests.sweeps import QUICK, names_set, sweep_into
from toolkit.data.load import load_dataset
from toolkit.data.sentences import sentences_of
from toolkit.data.sets import GIVEN, SENTENCES, UNJUDGED
from toolkit.errors import DataError, PlanError
from toolkit.experiment.plan import make_plan
from toolkit.experiment.queries import asked_queries, given_queries, read_queries, with_queries
from toolkit.experiment.results import Results
from toolkit.experiment.sweep import as_measured

DOCS = ["The cat sleeps on the warm stove. It purrs.", "狗在院子里大声地叫着。猫在炉子上睡觉很久了。", "x"]


def beir(folder, *, clusters="", judged=True, queries=None):
    folder.mkdir()
    queries = queries or [{"_id": f"q{i}", "text": f"question {i}"} for i in range(4)]
    (folder / "corpus.jsonl").write_text(
        "\n".join(json.dumps({"_id": f"d{i}", "text": t}) for i, t in enumerate(DOCS))
    )
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    if judged:
        (folder / "qrels").mkdir()
        (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td0\t1\n")
    if clusters:
        (folder / "clusters.tsv").write_text(clusters)
    return f"beir:{folder}"


def test_queries_of_a_folder_that_nobody_judged_are_its_unlabelled_ones(tmp_path):
    data = load_dataset(beir(tmp_path / "s"))
    assert (data.query_ids, data.unlabelled_ids) == (["q1"], ["q0", "q2", "q3"])
    assert (data.unlabelled[0], data.unlabelled_source) == ("question 0", UNJUDGED)
    made = toolkit.retrieval_set(["a", "b"], ["one", "two"], {1: [0]})
    assert (made.queries, made.unlabelled, made.unlabelled_source) == (["two"], ["one"], UNJUDGED)


def test_a_folder_without_judgements_is_a_set_without_judgements(tmp_path):
    spec = beir(tmp_path / "s", judged=False)
    data = load_dataset(spec)
    assert (data.labelled, len(data.queries), data.unlabelled_source) == (False, 4, GIVEN)
    with pytest.raises(DataError, match="has no judgements"):
        load_dataset(f"{spec}@dev")
    (tmp_path / "s" / "queries.jsonl").unlink()
    bare = load_dataset(spec)
    assert (bare.labelled, bare.unlabelled_source) == (False, SENTENCES)
    assert "The cat sleeps on the warm stove." in bare.queries


def test_clusters_of_a_folder(tmp_path):
    data = load_dataset(
        beir(tmp_path / "a", clusters="query-id\tpage\tmore\nq1\tp1\tx\nq2\tp1\tx\nq9\tp2\tx\n")
    )
    assert data.clusters == {"q1": "p1", "q2": "p1"}
    about = [
        {"_id": "q1", "text": "a", "metadata": {"cluster": 7}},
        {"_id": "q2", "text": "b", "cluster": "z"},
    ]
    assert load_dataset(beir(tmp_path / "b", queries=about)).clusters == {"q1": "7", "q2": "z"}
    with pytest.raises(DataError, match=r"clusters\.tsv:2: expected query-id and cluster between tabs"):
        load_dataset(beir(tmp_path / "c", clusters="query-id\tpage\nq1\n"))
    with pytest.raises(DataError, match=r"query 'q1' is in two clusters, 'a' and 'b'"):
        load_dataset(beir(tmp_path / "d", clusters="q1\ta\nq1\tb\n"))


def test_clusters_of_tables_and_programs(tmp_path):
    (tmp_path / "j.csv").write_text("query,document,cluster\nwhat purrs?,a cat,pets\nwhat barks?,a dog,\n")
    assert load_dataset(f"csv:{tmp_path / 'j.csv'}").clusters == {"q0": "pets"}
    queries = pd.DataFrame({"id": ["a", "b"], "text": ["one", "two"], "cluster": ["x", None]})
    docs, qrels = pd.DataFrame({"id": ["d"], "text": ["doc"]}), {"a": ["d"], "b": ["d"]}
    assert toolkit.retrieval_set(docs, queries, qrels).clusters == {"a": "x"}
    assert toolkit.retrieval_set(docs, queries, qrels, clusters={"b": 3}).clusters == {"a": "x", "b": "3"}
    with pytest.raises(DataError, match="clusters name none of the 2 queries"):
        toolkit.retrieval_set(docs, queries, qrels, clusters={"z": "x"})


@pytest.mark.parametrize("kind", ["txt", "csv", "tsv", "jsonl", "parquet", "jsonl.gz", "csv.gz"])
def test_a_file_of_documents_and_a_log_of_queries(tmp_path, kind):
    frame, path = pd.DataFrame({"text": DOCS}), tmp_path / f"docs.{kind}"
    if kind == "txt":
        path.write_text("\n\n".join(DOCS) + "\n")
    elif kind == "parquet":
        frame.to_parquet(path)
    elif kind.startswith("jsonl"):
        frame.to_json(path, orient="records", lines=True, force_ascii=False)
    else:
        frame.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
    data = load_dataset(f"texts:{path}")
    assert (data.name, data.docs, data.labelled) == ("docs", DOCS, False)
    assert data.unlabelled_source == SENTENCES
    assert read_queries(path).texts == DOCS
    assert toolkit.texts(DOCS).content_hash == data.content_hash


def test_tables_without_qrels(tmp_path):
    (tmp_path / "documents.csv").write_text("id,text\n1,a cat\n2,a dog\n")
    assert load_dataset(f"csv:{tmp_path}").unlabelled_source == SENTENCES
    (tmp_path / "queries.csv").write_text("id,text,cluster\na,what purrs?,x\n")
    data = load_dataset(f"csv:{tmp_path}")
    assert (data.queries, data.unlabelled_source, data.clusters) == (["what purrs?"], GIVEN, {"a": "x"})
    (tmp_path / "queries.csv").unlink()
    (tmp_path / "qrels.csv").write_text("query_id,document_id\na,1\n")
    with pytest.raises(DataError, match=r"no queries\.csv; it needs"):
        load_dataset(f"csv:{tmp_path}")
    assert load_dataset(f"csv:{tmp_path / 'documents.csv'}").labelled is False


def test_what_is_no_file_of_texts_is_said(tmp_path):
    with pytest.raises(DataError, match="is not a file; give one with a text per line"):
        load_dataset(f"texts:{tmp_path}")
    (tmp_path / "log.csv").write_text("question\nwhy?\n")
    with pytest.raises(DataError, match=r"log\.csv: a column is missing: .*text or query; found question"):
        read_queries(tmp_path / "log.csv")
    with pytest.raises(DataError, match="there are no queries"):
        toolkit.texts(["", " "])


def test_sentences_are_stable_different_and_of_usual_length():
    found = sentences_of(DOCS * 2, most=50, seed=3)
    assert found.texts == sentences_of(DOCS * 2, most=50, seed=3).texts
    assert set(found.texts) == {
        "The cat sleeps on the warm stove.",
        "狗在院子里大声地叫着。",
        "猫在炉子上睡觉很久了。",
        "x",  # a document without any sentence of usual length gives its beginning
    }
    assert len(sentences_of(DOCS, most=2).texts) == 2
    assert max(map(len, sentences_of(["word " * 500]).texts)) <= 200
    assert sentences_of([" ", ""]).texts == []


def test_the_order_of_sources_given_then_unjudged_then_sentences(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("first\n\nsecond\nthird\n")
    own = load_dataset(beir(tmp_path / "s"))
    data, _ = asked_queries(own, make_plan(unlabelled=str(log)))
    assert (data.unlabelled, data.unlabelled_source) == (["first", "second", "third"], GIVEN)
    data, notes = asked_queries(own, make_plan(max_unlabelled=2))
    assert (len(data.unlabelled), data.unlabelled_source) == (2, UNJUDGED)
    assert "2 queries without judgements" in notes[0]
    assert "of 3, drawn at random" in notes[0]
    data, notes = asked_queries(names_set(), make_plan(max_unlabelled=7))
    assert (len(data.unlabelled), data.unlabelled_source) == (7, SENTENCES)
    assert "7 sentences of the documents stand in for queries" in notes[0]
    data, notes = asked_queries(names_set(), make_plan(max_unlabelled=0))
    assert (len(data.unlabelled), notes) == (0, [])


def test_given_queries_and_judged_ones_of_the_same_id():
    with pytest.raises(DataError, match="'q0' has the id of a judged query with another text"):
        asked_queries(names_set(), make_plan(), unlabelled=given_queries({"q0": "something else"}))
    same = dict(zip(names_set().query_ids, names_set().queries, strict=True))
    data, _ = asked_queries(names_set(), make_plan(), unlabelled=given_queries(same | {"u": "more"}))
    assert data.unlabelled_ids == ["u"]


def test_a_file_of_clusters(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text("query_id,cluster\nq0,a\nsentence-1,b\n")
    data, _ = asked_queries(names_set(), make_plan(clusters=str(path)))
    assert data.clusters["q0"] == "a"
    path.write_text("query_id,cluster\nzz,a\n")
    with pytest.raises(DataError, match="names none of the 36 queries of names"):
        asked_queries(names_set(), make_plan(clusters=str(path)))


def test_a_sweep_of_texts_alone_is_judged_by_agreement(tmp_path):
    bare = toolkit.texts(names_set().docs, names_set().queries, clusters={"query-0": "c"}, name="bare")
    results = toolkit.sweep(data=bare, out=tmp_path / "out", progress=False, **QUICK).results
    loaded = Results.load(tmp_path / "out")
    assert (loaded.labelled, loaded.unlabelled_source) == (False, GIVEN)
    frame = loaded.measurements.set_index("setting")
    for name in ("kept_ndcg@10", "overlap@10", "rbo@10", "safe_ndcg@10"):
        assert frame.loc["256 float32 Flat", name] == 1
        assert frame.loc["64 float32 Flat", name] < 1
    assert not [name for name in frame if name.startswith(("ndcg@", "recall@", "mrr@", "map@"))]
    assert not loaded.bounds["labelled"].any()
    assert (loaded.bounds["cluster"] == "c").sum() == len(frame)
    both = loaded.per_query.astype({"setting": str}).merge(
        loaded.bounds.astype({"setting": str}), on=["setting", "query_id"], validate="one_to_one"
    )
    assert len(both) == len(loaded.bounds)
    np.testing.assert_allclose(both["kept_ndcg@10"], both["ndcg@10_by_reference"], atol=1e-6)
    assert any("no judgements" in note for note in results.notes)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "kept nDCG@10" in page
    assert "no judgements" in page
    advice = toolkit.recommend(tmp_path / "out", keep=0.5)
    assert advice.reference.quality == 1.0
    assert "kept nDCG@10" in str(advice)


def test_metrics_that_need_judgements_are_refused_without_them(tmp_path):
    with pytest.raises(
        PlanError, match=r"'ndcg@10' needs judgements, and the set has none; choose kept_ndcg@10"
    ):
        sweep_into(tmp_path / "o", tmp_path / "c", data=toolkit.texts(names_set().docs), metrics=["ndcg@10"])


def test_unlabelled_queries_have_no_place_in_a_set_of_pairs(tmp_path):
    pairs = toolkit.pair_set(["a cat", "a dog"], ["a kitten", "a car"], [4.5, 0.3])
    with pytest.raises(PlanError, match="unlabelled has no effect on a set of pairs"):
        toolkit.sweep(data=pairs, unlabelled=["why?"], out=tmp_path / "out", progress=False)


def test_the_set_that_was_measured_can_be_made_again(tmp_path):
    given = given_queries(["why?", "how?"])
    with_them = with_queries(names_set(), given)
    plan = make_plan(unlabelled="object:2 queries")
    assert as_measured(plan, names_set(), unlabelled=given).content_hash == with_them.content_hash
    with pytest.raises(PlanError, match=r"'object:2 queries' was an object .* pass it as unlabelled="):
        as_measured(plan, names_set())
    (tmp_path / "log.txt").write_text("why?\nhow?\n")
    from_file = make_plan(unlabelled=str(tmp_path / "log.txt"))
    assert as_measured(from_file, names_set()).content_hash == with_them.content_hash


def test_real_folders_have_what_their_descriptions_say(shared_data):
    scifact = load_dataset(f"beir:{shared_data / 'scifact'}")
    assert (len(scifact.unlabelled), scifact.unlabelled_source) == (809, UNJUDGED)
    for name, units in {"policyqa": 20, "qmsum": 70, "csfcube": 34}.items():
        data = load_dataset(f"beir:{shared_data / name}")
        assert len({data.clusters[i] for i in data.query_ids}) == units
