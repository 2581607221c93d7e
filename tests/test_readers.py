"""Files of strangers: encodings, line ends, ids and gains in every form met with, gzip, tables."""

from __future__ import annotations

import gzip
import json

import pandas as pd
import pytest

from toolkit.data.load import load_dataset
from toolkit.data.text_files import read_texts
from toolkit.errors import DataError, PlanError


def beir(folder, *, corpus=None, queries=None, qrels="q0\td0\t1\n", end=""):
    (folder / "qrels").mkdir(parents=True)
    corpus = corpus or [{"_id": f"d{i}", "text": f"text {i}"} for i in range(3)]
    queries = queries or [{"_id": "q0", "text": "query"}]
    for name, records in (("corpus", corpus), ("queries", queries)):
        lines = "\n".join(json.dumps(record, ensure_ascii=True) for record in records)
        (folder / f"{name}.jsonl").write_text(lines + end)
    (folder / "qrels" / "test.tsv").write_text(qrels)
    return f"beir:{folder}"


def test_a_lone_surrogate_in_a_text_stops_nothing(tmp_path):
    data = load_dataset(beir(tmp_path / "s", corpus=[{"_id": "d0", "text": "half an emoji \ud83d"}]))
    other = load_dataset(beir(tmp_path / "t", corpus=[{"_id": "d0", "text": "half an emoji \ud83e"}]))
    assert data.content_hash != other.content_hash


def test_lines_end_at_newlines_only(tmp_path):
    texts = ["first\x0cstill first", "second\u2028still second", "third\x85 still", ""]
    (tmp_path / "t.txt").write_bytes("\r\n".join(texts).encode() + b"\r\n")
    assert read_texts(tmp_path / "t.txt") == texts
    (tmp_path / "t.jsonl").write_text(
        json.dumps({"text": texts[1]}, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    assert read_texts(tmp_path / "t.jsonl") == [texts[1]]


def test_gzip_and_a_byte_order_mark_are_read(tmp_path):
    (tmp_path / "t.txt.gz").write_bytes(gzip.compress("\ufeffeins\nzwei\n".encode()))
    assert read_texts(tmp_path / "t.txt.gz") == ["eins", "zwei"]
    beir(tmp_path / "s")
    for file in [*(tmp_path / "s").glob("*.jsonl"), *(tmp_path / "s" / "qrels").glob("*.tsv")]:
        file.with_name(file.name + ".gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    assert load_dataset(f"beir:{tmp_path / 's'}").qrels == {"q0": {"d0": 1}}
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(b"eins\n" * 999)[:-9])
    with pytest.raises(DataError, match=r"cut\.txt\.gz cannot be read"):
        read_texts(tmp_path / "cut.txt.gz")


@pytest.mark.parametrize("file", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
def test_what_is_not_utf8_is_named_by_line_and_byte_with_the_fix(tmp_path, file):
    spec = beir(tmp_path / "s")
    first = b"q0\td0\t1" if file.endswith("tsv") else b""
    (tmp_path / "s" / file).write_bytes(first + b"\nca\xf1on\n")
    with pytest.raises(
        DataError, match=r":2: not UTF-8 text \(byte 3 of the line is 0xf1\).*iconv"
    ) as caught:
        load_dataset(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "qrels",
    [
        "query-id\tcorpus-id\tscore\nq0\td0\t1.0\n\n",
        "q0 0 d0 1\n",
        "q0\t0\td0\t1\n",
        "\ufeffquery-id\tcorpus-id\tscore\r\nq0\td0\t1\r\n",
    ],
    ids=["decimal and blank line", "TREC", "TREC with tabs", "BOM and CRLF"],
)
def test_judgements_in_every_form(tmp_path, qrels):
    assert load_dataset(beir(tmp_path / "s", qrels=qrels)).qrels == {"q0": {"d0": 1}}


def test_ids_may_be_numbers_and_gains_must_be_whole(tmp_path):
    spec = beir(
        tmp_path / "s", corpus=[{"_id": 7, "text": "x"}], queries=[{"_id": 1, "text": "q"}], qrels="1\t7\t2"
    )
    assert load_dataset(spec).qrels == {"1": {"7": 2}}
    (tmp_path / "s" / "qrels" / "test.tsv").write_text("1\t7\t0.5")
    with pytest.raises(DataError, match="whole-number score"):
        load_dataset(spec)


def test_a_query_id_that_stands_twice_is_refused(tmp_path):
    twice = [{"_id": "q0", "text": "one"}, {"_id": "q0", "text": "another"}]
    with pytest.raises(DataError, match=r"queries\.jsonl:2: query id 'q0' stands more than once"):
        load_dataset(beir(tmp_path / "s", queries=twice))


def test_json_nested_too_deeply_is_an_error_of_one_line(tmp_path):
    spec = beir(tmp_path / "s")
    (tmp_path / "s" / "corpus.jsonl").write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"corpus\.jsonl:1: not a JSON object"):
        load_dataset(spec)


def test_folders_without_judgements_and_paths_with_an_at_sign(tmp_path):
    at = tmp_path / "me@host"
    assert len(load_dataset(beir(at / "s@home")).docs) == 3
    (at / "s@home" / "qrels" / "test.tsv").unlink()
    with pytest.raises(DataError, match=r"no judgements: its folder qrels needs a file test\.tsv"):
        load_dataset(f"beir:{at / 's@home'}")


def test_long_fields_of_pair_files_are_texts_like_others(tmp_path):
    (tmp_path / "p.tsv").write_text("a\tb\n" + "x" * 140_000 + '\t"y\n')
    pairs = load_dataset(f"pairs:{tmp_path / 'p.tsv'}")
    assert (len(pairs.left[0]), pairs.right) == (140_000, ('"y',))


JUDGED = pd.DataFrame(
    {
        "query": ["what purrs?", "what barks?", "what purrs?"],
        "document": ["a cat", "a dog", "a dog"],
        "score": [2, 1, 0],
    }
)


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet", "jsonl", "jsonl.gz"])
def test_one_table_of_judged_pairs(tmp_path, kind):
    path = tmp_path / f"faq.{kind}"
    if kind.startswith("csv"):
        JUDGED.to_csv(path, index=False)
    elif kind == "parquet":
        JUDGED.to_parquet(path)
    else:
        JUDGED.to_json(path, orient="records", lines=True)
    data = load_dataset(f"{kind.removesuffix('.gz')}:{path}")
    assert (data.name, data.docs, data.queries) == ("faq", ["a cat", "a dog"], ["what purrs?", "what barks?"])
    assert data.qrels == {"q0": {"d0": 2, "d1": 0}, "q1": {"d1": 1}}


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
def test_a_folder_of_three_tables(tmp_path, kind):
    tables = {
        "documents": pd.DataFrame({"id": [1, 2], "title": ["NA", ""], "text": ["a cat", 'a "dog", barking']}),
        "queries": pd.DataFrame({"id": ["a"], "text": ["what purrs?"]}),
        "qrels": pd.DataFrame({"query_id": ["a"], "document_id": [1], "score": [1.0]}),
    }
    for part, table in tables.items():
        path = tmp_path / f"{part}.{kind}"
        if kind == "csv":
            table.to_csv(path, index=False)
        elif kind == "parquet":
            table.to_parquet(path)
        else:
            table.to_json(path, orient="records", lines=True)
    data = load_dataset(f"{kind}:{tmp_path}")
    assert data.docs == ["NA a cat", 'a "dog", barking']
    assert data.qrels == {"a": {"1": 1}}


def test_a_table_of_sentence_pairs_is_a_pair_set(tmp_path):
    (tmp_path / "sts.csv").write_text("sentence1,sentence2,score\na cat,a kitten,4.5\na cat,a car,0\n")
    pairs = load_dataset(f"csv:{tmp_path / 'sts.csv'}")
    assert (pairs.kind, pairs.scores.tolist()) == ("sts", [4.5, 0.0])


def test_columns_found_and_needed_are_named(tmp_path):
    (tmp_path / "t.csv").write_text("question,answer\na,b\n")
    with pytest.raises(DataError, match="takes the columns query, document; found question, answer"):
        load_dataset(f"csv:{tmp_path / 't.csv'}")
    with pytest.raises(DataError, match=r"does not exist; give a csv file with columns query, document"):
        load_dataset(f"csv:{tmp_path / 'absent.csv'}")
    with pytest.raises(PlanError, match="did you mean parquet:"):
        load_dataset("parket:x")
