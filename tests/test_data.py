import json

import numpy as np
import pytest

from toolkit.data import builtin
from toolkit.data.load import load_dataset
from toolkit.data.sets import RetrievalSet
from toolkit.errors import DataError, PlanError


@pytest.fixture
def beir(tmp_path):
    """A small BEIR folder with graded judgements, and a query nobody judged."""
    folder = tmp_path / "set"
    (folder / "qrels").mkdir(parents=True)
    corpus = [{"_id": "d1", "title": "Wings", "text": "lift"}, {"_id": "d2", "title": "", "text": "drag"}]
    queries = [{"_id": "q1", "text": "what lifts"}, {"_id": "q2", "text": "unjudged"}]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, corpus)) + "\n\n")
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n")
    return folder


def test_beir_folder(beir):
    data = load_dataset(f"beir:{beir}")
    assert data.docs == ["Wings lift", "drag"]
    assert (data.query_ids, data.queries) == (["q1"], ["what lifts"])
    assert data.qrels == {"q1": {"d1": 2, "d2": 0}}


def test_content_hash_follows_the_content(beir):
    before = load_dataset(f"beir:{beir}").content_hash
    assert load_dataset(f"beir:{beir}").content_hash == before
    (beir / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    assert load_dataset(f"beir:{beir}").content_hash != before


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("corpus.jsonl", '{"_id": "d1", "text": "x"}\n{"_id": "d2", ', r"corpus\.jsonl:2: not a JSON"),
        ("corpus.jsonl", '{"_id": "d1", "text": "x"}\n{"_id": 3.5, "text": "x"}', r"corpus\.jsonl:2: each"),
        ("corpus.jsonl", "", "the corpus is empty"),
        ("corpus.jsonl", '{"_id": "d1", "text": "x"}\n{"_id": "d1", "text": "y"}', "'d1' stands more"),
        ("corpus.jsonl", '{"_id": "d1", "text": "x"}', "'d2', which is not in the corpus"),
        ("qrels/test.tsv", "q9\td1\t1", "judges query 'q9', which is not in queries.jsonl"),
        ("qrels/test.tsv", "q1\td1\thigh", r"test\.tsv:1: expected query-id, corpus-id"),
        ("qrels/test.tsv", "q1 d1 1", r"test\.tsv:1: expected query-id, corpus-id"),
        ("qrels/test.tsv", "", "no query has a judgement"),
    ],
)
def test_malformed_input_names_the_place(beir, file, text, message):
    (beir / file).write_text(text)
    with pytest.raises(DataError, match=message):
        load_dataset(f"beir:{beir}")


def test_missing_split_lists_those_there(beir):
    with pytest.raises(DataError, match="no split 'dev'; choose one of: test"):
        load_dataset(f"beir:{beir}@dev")


def test_folder_without_a_corpus(tmp_path):
    with pytest.raises(DataError, match=r"corpus\.jsonl is missing"):
        load_dataset(f"beir:{tmp_path}")


@pytest.mark.parametrize("spec", ["", "beir:", "bier:x", "scifact", "/some/where"])
def test_unknown_spec_lists_the_forms(spec):
    with pytest.raises(PlanError, match="choose one of: builtin"):
        load_dataset(spec)


def test_scored_pairs_keep_the_test_split(tmp_path):
    path = tmp_path / "sts.tsv"
    path.write_text('split\tsentence1\tsentence2\tscore\ntrain\ta\tb\t1\ntest\tsay "hi\tc\t2.5\n')
    data = load_dataset(f"pairs:{path}")
    assert (data.kind, list(data.left), list(data.right)) == ("sts", ['say "hi'], ["c"])
    assert data.scores.tolist() == [2.5]
    assert len(load_dataset(f"pairs:{path}@train").left) == 1


def test_two_columns_are_a_bitext(tmp_path):
    path = tmp_path / "de-en.tsv"
    path.write_text("de\ten\nHaus\thouse\nBaum\ttree\n")
    data = load_dataset(f"pairs:{path}")
    assert (data.kind, data.right) == ("bitext", ("house", "tree"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\tb\n", "has no pairs"),
        ("a\tb\nx\n", ":2: 1 columns"),
        ("a\tb\tc\nx\ty\tz\n", "two columns"),
        ("sentence1\tscore\nx\t1\n", "no column 'sentence2'"),
        ("sentence1\tsentence2\tscore\nx\ty\tmuch\n", ":2: score 'much' is not a number"),
        ("split\tsentence1\tsentence2\tscore\ndev\tx\ty\t1\n", "no split 'test'; choose one of: dev"),
    ],
)
def test_malformed_pairs_name_the_place(tmp_path, text, message):
    path = tmp_path / "pairs.tsv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        load_dataset(f"pairs:{path}")


def test_shared_sets_have_the_published_counts(shared_data):
    for name, documents, queries in [("scifact", 5_183, 300), ("cranfield", 1_400, 225)]:
        data = load_dataset(f"beir:{shared_data / name}")
        assert (len(data.docs), len(data.queries)) == (documents, queries)
    pairs = load_dataset(f"pairs:{shared_data / 'stsb_en' / 'stsb_en.tsv'}")
    assert len(pairs.left) == 1_379


def test_builtin_set_is_real_and_stable():
    first, second = load_dataset("builtin"), load_dataset("builtin")
    assert first.content_hash == second.content_hash
    assert 3_000 < len(first.docs) < 20_000
    words = np.array([len(query.split()) for query in first.queries])
    assert words.min() >= 5
    assert words.max() <= 40
    assert min(map(len, first.docs)) >= 200
    assert len(set(first.docs)) == len(first.docs)
    query_of = dict(zip(first.query_ids, first.queries, strict=True))
    assert (
        query_of["scipy.spatial._procrustes.procrustes"]
        == "Procrustes analysis, a similarity test for two data sets."
    )


def test_retrieval_set_without_judged_queries_is_refused():
    with pytest.raises(DataError, match="no query has a judgement"):
        RetrievalSet("x", ["d"], ["text"], [], [], {})


def test_builtin_set_of_the_core_packages_alone_has_thousands_of_documents(tmp_path, monkeypatch):
    whole = load_dataset("builtin")
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path))
    core = {name: builtin.PACKAGES[name] for name in ("matplotlib", "numpy", "pandas", "scipy")}
    monkeypatch.setattr(builtin, "PACKAGES", core)
    alone = load_dataset("builtin")
    assert 3_000 < len(alone.docs) < len(whole.docs)
    assert {name.partition(".")[0] for name in alone.doc_ids} == set(core)
