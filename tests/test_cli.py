"""The command line as a person uses it: real sweeps, real output, exit codes; signals to real processes."""

import ast
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from contextlib import chdir, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer

import toolkit as package
from toolkit.cli import app, main
from toolkit.cli.words import as_options
from toolkit.experiment.results import Results


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def toolkit(*arguments, cwd=None):
    """The command, in this process: its exit code and what it wrote."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with warnings.catch_warnings(), redirect_stdout(out), redirect_stderr(err):
        warnings.simplefilter("default")  # as in a process of its own
        with chdir(cwd) if cwd else nullcontext():
            try:
                main([str(argument) for argument in arguments])
            except SystemExit as stop:
                code = stop.code or 0
    return Done(code, out.getvalue(), err.getvalue())


def process(*arguments, **more):
    """The command, as a process that an interrupt reaches even where the shell's background jobs ignore it."""
    return subprocess.Popen(
        [sys.executable, "-m", "toolkit", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **more,
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
    done = process("--version")
    out, _ = done.communicate()
    assert done.returncode == 0
    assert out.startswith("toolkit 0.")


def test_an_error_is_one_line_of_a_process_and_exit_code_2():
    done = process("sweep", "--embedder", "statik")
    out, err = done.communicate()
    assert (done.returncode, out) == (2, "")
    assert err.startswith("error: embedder: unknown embedder 'statik'; did you mean 'static'?")
    assert err.count("\n") == 1


def commands(group, path=()):
    """The words of every command there is, with its options."""
    found = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found |= commands(command, (*path, name))
        else:
            found[(*path, name)] = {opt for one in command.params for opt in (*one.opts, *one.secondary_opts)}
    return found


COMMANDS = commands(typer.main.get_command(app))


@pytest.mark.parametrize("command", [(), ("bench",), *COMMANDS], ids=" ".join)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_every_command_has_help(command, flag):
    done = toolkit(*command, flag)
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: {' '.join(('toolkit', *command))} ")
    for option in COMMANDS.get(command, ()):
        assert option in done.stdout


def test_every_field_of_a_plan_but_timing_has_an_option():
    singular = {
        "precisions": "precision",
        "indexes": "index",
        "instructions": "instruction",
        "metrics": "metric",
    }
    for field in set(package.SweepPlan.model_fields) - {"timing"}:
        assert f"--{singular.get(field, field).replace('_', '-')}" in COMMANDS[("sweep",)]


# Options of other programs that messages and calls may name.
FOREIGN = {"--head", "--is-primary", "--output-loading-info", "--upgrade", "--api-key", "--served-model-name"}
FOREIGN_FILES = {"machine.py", "environment.py", "cuda.py", "probes.py"}  # nvidia-smi, git, nvrtc, servers


def test_messages_speak_python_and_what_they_name_exists_as_an_option_too():
    known = {option for options in COMMANDS.values() for option in options}
    named, translated, commands = set(), set(), set()
    for path in Path(package.__file__).parent.rglob("*.py"):
        if path.name in FOREIGN_FILES or path.parent.name == "cli":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found = re.compile(r"(?<![\w(-])--[a-z][a-z-]+")  # not CSS: var(--x)
                # A claim is recorded with the command that measures it.
                (commands if path.parent.name == "claims" else named).update(found.findall(node.value))
                if re.search(r"\b[a-z_]+=(True|[,.;:)])", node.value):
                    translated |= set(found.findall(as_options(node.value)))
    assert named <= FOREIGN
    assert commands <= known | FOREIGN
    assert {"--resume", "--precision", "--overwrite"} <= translated, "messages are found"
    assert translated <= known | FOREIGN


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


def test_lists_may_be_written_between_commas(beir, tmp_path):
    options = ["--data", f"beir:{beir}", "--dims", "64", "--k", "20", "--precision", "float32, int8"]
    options += ["--metric", "recall@10,ndcg@10", "--rescore", "20", "--max-queries", "12", "--seed", "3"]
    done = toolkit("sweep", *options, "--out", tmp_path / "o")
    assert done.returncode == 0, done.stderr
    results = Results.load(tmp_path / "o")
    assert results.plan.precisions == ["float32", "int8"]
    assert results.plan.metrics == ["recall@10", "ndcg@10"]
    assert [stages[0].candidates for stages in results.plan.rescore] == [20]
    assert (results.plan.max_queries, results.plan.seed) == (12, 3)
    assert results.per_query["query_id"].nunique() == 12
    assert "note: 12 of 30 queries were measured, drawn at random with seed 3" in done.stdout


def test_max_queries_0_measures_all_and_says_nothing(beir, tmp_path):
    (tmp_path / "plan.toml").write_text("max_queries = 12\n")
    options = ["--data", f"beir:{beir}", "--dims", "64", "--k", "20", "--max-queries", "0"]
    done = toolkit("sweep", tmp_path / "plan.toml", *options, "--out", tmp_path / "o")
    assert done.returncode == 0, done.stderr
    assert Results.load(tmp_path / "o").per_query["query_id"].nunique() == 30
    assert "queries were measured" not in done.stdout


def interrupted_at(pipe, started):
    """What a process says that is interrupted while it waits for what a named pipe will hold."""
    writer = None
    for _ in range(3_000):
        try:
            writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
            break
        except OSError:  # nobody reads yet
            assert started.poll() is None, started.communicate()
            time.sleep(0.02)
    assert writer is not None, "the command never read its file"
    time.sleep(0.5)  # from having opened the pipe to waiting for what is in it
    started.send_signal(signal.SIGINT)
    try:
        out, err = started.communicate(timeout=60)
    finally:
        os.close(writer)
    return started.returncode, out, err


@pytest.mark.parametrize(
    ("command", "advice"),
    [
        ("embed {pipe} --out v.npy", "what was computed is kept; continue with"),
        ("sweep {pipe} --out o --overwrite", "what was computed is kept; continue with"),
        ("recommend {swept} --price-file {pipe}", "start again with"),
    ],
    ids=["embed", "sweep", "recommend"],
)
def test_an_interrupted_command_says_in_one_line_how_to_go_on(swept, tmp_path, command, advice):
    os.mkfifo(tmp_path / "a pipe")
    typed = [word.format(pipe="a pipe", swept=swept[0]) for word in command.split()]
    code, out, err = interrupted_at(tmp_path / "a pipe", process(*typed, cwd=tmp_path))
    again = "toolkit " + command.format(pipe="'a pipe'", swept=swept[0])
    assert (code, out, err) == (130, "", f"interrupted; {advice}: {again}\n")


def test_a_sweep_interrupted_after_it_replaced_another_goes_on_without_replacing(beir, swept, tmp_path):
    out = tmp_path / "o"
    shutil.copytree(swept[0], out)
    before = (out / "raw" / "plan.toml").read_text()
    # Rounds enough to outlast the test, were it not interrupted.
    (tmp_path / "plan.toml").write_text(
        f'data = "beir:{beir}"\ndims = [96]\nk = 20\ntiming.rounds = 100_000\n'
    )

    def begun():
        """Whether the new sweep has its plan there and something measured; files go and come one by one."""
        plan = out / "raw" / "plan.toml"
        try:
            return plan.read_text() != before and any((out / "raw").glob("*.npz"))
        except FileNotFoundError:
            return False

    started = process("sweep", tmp_path / "plan.toml", "--overwrite", "--out", out)
    try:
        for _ in range(3_000):
            time.sleep(0.02)
            assert started.poll() is None, started.communicate()
            if begun():
                break
        assert begun()
        started.send_signal(signal.SIGINT)
        _, err = started.communicate(timeout=60)
    finally:
        started.kill()
    assert started.returncode == 130
    assert err.splitlines()[-1] == (
        "interrupted; what was computed is kept; continue with: "
        f"toolkit sweep {tmp_path / 'plan.toml'} --out {out}"
    )
    kept = {path.name for path in (out / "raw").glob("*.npz")}
    (tmp_path / "plan.toml").write_text((tmp_path / "plan.toml").read_text().replace("100_000", "1"))
    done = toolkit("sweep", tmp_path / "plan.toml", "--out", out, "--resume")
    assert done.returncode == 0, done.stderr
    assert kept <= {path.name for path in (out / "raw").glob("*.npz")}


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
        (
            ["sweep", "--data", "beir:{beir}", "--k", "0"],
            "k: Input should be greater than or equal to 10 (got 0)",
        ),
        (["sweep", "--data", "beir:{beir}", "--max-queries", "1"], "choose at least 2, or 0 for all"),
        (["sweep", "--data", "beir:{beir}", "--precision", "int8,int9"], "precisions[1]"),
        (["embed", "{beir}/corpus.jsonl", "--out", "v.npy", "--instruction", "x"], "no effect on documents"),
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
