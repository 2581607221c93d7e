"""The command line as a person uses it: real processes, real output, exit codes."""

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest


def toolkit(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "toolkit", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        env=os.environ | {"COLUMNS": "200"},
    )


@pytest.fixture(scope="module")
def beir(tmp_path_factory):
    """A set small enough to sweep in a second: thirty documents, each with its question."""
    folder = tmp_path_factory.mktemp("data") / "animals"
    (folder / "qrels").mkdir(parents=True)
    names = [
        ["cat", "dog", "horse", "cow", "sheep", "goat", "pig", "hen", "duck", "goose"],
        ["oak", "elm", "ash", "pine", "fir", "yew", "larch", "birch", "beech", "lime"],
        ["iron", "gold", "lead", "zinc", "tin", "silver", "copper", "nickel", "cobalt", "chrome"],
    ]
    names = [name for group in names for name in group]
    documents = [
        {"_id": f"d{i}", "title": name, "text": f"All about {name} and where it is found."}
        for i, name in enumerate(names)
    ]
    questions = [{"_id": f"q{i}", "text": f"Tell me about {name}"} for i, name in enumerate(names)]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, documents)))
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, questions)))
    lines = ["query-id\tcorpus-id\tscore", *(f"q{i}\td{i}\t1" for i in range(len(names)))]
    (folder / "qrels" / "test.tsv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def swept(beir, tmp_path_factory):
    """A finished sweep, made by the command."""
    out = tmp_path_factory.mktemp("results") / "animals"
    arguments = ["--data", f"beir:{beir}", "--dims", "64,128", "--index", "Flat", "--index", "HNSW8"]
    done = toolkit("sweep", *arguments, "--k", "20", "--out", out)
    assert done.returncode == 0, done.stderr
    return out, done


def test_version():
    done = toolkit("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("toolkit 0.")


def test_sweep_writes_the_whole_folder_and_ends_with_report_and_headline(swept):
    out, done = swept
    lines = done.stdout.strip().splitlines()
    assert lines[-2] == f"report: {out / 'report.html'}"
    assert "dimensions" in lines[-1]
    names = {path.name for path in out.iterdir()}
    assert names >= {
        "plan.toml",
        "environment.json",
        "raw",
        "measurements.csv",
        "measurements.parquet",
        "per_query.parquet",
        "charts",
        "report.html",
    }
    assert "\r" not in done.stderr, "no progress bar when piped"


def test_measurements_have_the_promised_columns(swept):
    frame = pd.read_parquet(swept[0] / "measurements.parquet")
    promised = [
        "dataset",
        "model",
        "instruction",
        "dim",
        "precision",
        "index",
        "search_args",
        "ndcg@10",
        "recall@1",
        "recall@10",
        "mrr@10",
        "map@20",
        "overlap@10",
        "p50_ms",
        "p95_ms",
        "p99_ms",
        "qps",
        "build_s",
        "index_bytes",
        "bytes_per_vector",
    ]
    promised += [f"ndcg@10_{part}" for part in ("lo", "hi", "delta")]
    assert set(promised) <= set(frame.columns)
    assert frame["setting"].is_unique
    full = frame[(frame["dim"] == 256) & (frame["index"] == "Flat")].iloc[0]
    assert full["ndcg@10_delta"] == 0
    assert full["overlap@10"] == 1
    csv = pd.read_csv(swept[0] / "measurements.csv")
    assert list(csv.columns) == list(frame.columns)


def test_environment_says_what_it_ran_on(swept):
    about = json.loads((swept[0] / "environment.json").read_text())
    assert about["hardware"]["cores"] >= 1
    assert about["versions"]["torch"]
    assert about["data"]["hash"]
    assert about["space"]["fingerprint"]


def test_existing_results_are_not_overwritten_without_resume(beir, swept):
    again = toolkit("sweep", "--data", f"beir:{beir}", "--dims", "64", "--k", "20", "--out", swept[0])
    assert again.returncode == 2
    assert "--resume" in again.stderr


def test_resume_measures_only_what_is_missing(beir, swept):
    out, _ = swept
    raw = {path: path.stat().st_mtime_ns for path in (out / "raw").glob("*.npz")}
    plan = ["--data", f"beir:{beir}", "--dims", "64,96,128", "--index", "Flat", "--index", "HNSW8"]
    done = toolkit("sweep", *plan, "--k", "20", "--out", out, "--resume")
    assert done.returncode == 0, done.stderr
    assert all(path.stat().st_mtime_ns == written for path, written in raw.items())
    assert 96 in set(pd.read_parquet(out / "measurements.parquet")["dim"])


def test_report_is_drawn_again_without_model_or_faiss(swept):
    out, _ = swept
    (out / "report.html").unlink()
    probe = (
        "import sys\n"
        "for name in ('faiss', 'torch', 'wordllama'): sys.modules[name] = None\n"
        "sys.argv = ['toolkit', 'report', sys.argv[1]]\n"
        "from toolkit.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (out / "report.html").stat().st_size > 10_000


def test_embed_writes_unit_rows(tmp_path):
    (tmp_path / "texts.txt").write_text("one\ntwo\n")
    done = toolkit("embed", tmp_path / "texts.txt", "--dim", 64, "--out", tmp_path / "v.npy")
    assert done.returncode == 0, done.stderr
    rows = np.load(tmp_path / "v.npy")
    assert rows.shape == (2, 64)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep", "--embedder", "statik"], "unknown embedder 'statik'"),
        (["sweep", "--data", "scifact"], "unknown data set 'scifact'"),
        (["sweep", "--data", "beir:{beir}", "--dims", "64,512"], "dimension 512 is outside"),
        (["sweep", "--data", "beir:{beir}", "--dims", "x"], "whole numbers between commas"),
        (["sweep", "--data", "beir:{beir}", "--k", "31"], "k 31 is more than the corpus"),
        (["sweep", "--data", "beir:{beir}", "--k", "20", "--index", "HNSWx"], "HNSWx"),
        (
            ["sweep", "--data", "beir:{beir}", "--k", "20", "--out", "{beir}/corpus.jsonl"],
            "cannot be written",
        ),
        (["sweep", "no-such-plan.toml"], "no-such-plan.toml cannot be read"),
        (["sweep", "--embedder", "http://127.0.0.1:9/v1#m", "--data", "beir:{beir}"], "127.0.0.1:9"),
        (["sweep", "--embedder", "local:/no/such/model", "--data", "beir:{beir}"], "/no/such/model"),
        (["report", "{beir}"], "holds no finished sweep"),
        (["embed", "no-such-file", "--out", "v.npy"], "no-such-file cannot be read"),
        (["embed", "{beir}/corpus.jsonl", "--out", "v.npy", "--dim", "300"], "choose 1..256"),
        (["embed", "{beir}/corpus.jsonl", "--out", "/no/such/folder/v.npy"], "cannot be written"),
        (["embed", "{beir}/corpus.jsonl", "--out", "v.npy", "--role", "judge"], "choose query or document"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(beir, tmp_path, arguments, message):
    done = toolkit(*(argument.format(beir=beir) for argument in arguments), cwd=tmp_path)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    assert len(errors) == 1, done.stderr
    assert errors[0].startswith("error: ")
    assert message in errors[0]


def test_bench_encode_times_each_dimension(tmp_path):
    (tmp_path / "texts.txt").write_text("one\ntwo words\n" * 20)
    options = ["--workload", tmp_path / "texts.txt", "--dims", "64,256", "--repeats", 1]
    done = toolkit("bench", "encode", *options)
    assert done.returncode == 0, done.stderr
    assert "texts/s" in done.stdout
    assert "64" in done.stdout
    assert "256" in done.stdout
