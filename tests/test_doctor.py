"""What `toolkit doctor` finds on machines that lack something, and what `toolkit cache` lists and removes."""

import io
import json
import os
import shlex
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import version

import numpy as np
import pytest
import typer

import toolkit
from toolkit.cli import app, main
from toolkit.cli.examples import EXAMPLES
from toolkit.embedding.cache import VectorCache
from toolkit.embedding.cache_folder import cached_spaces
from toolkit.experiment import installation
from toolkit.experiment.installation import examine


def command(*arguments):
    """The command in this process: exit code, output, messages."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as stop:
            code = stop.code or 0
    return code, out.getvalue(), err.getvalue()


def found(subject, **options):
    return next(one for one in examine(hub=False, **options) if one.subject == subject)


@pytest.fixture
def cache_of_two(tmp_path, monkeypatch):
    """A cache folder with vectors of the embedded model and of another one."""
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    toolkit.embed("static", ["one", "two", "two"], cache=VectorCache(), progress=False)
    other = toolkit.EmbeddingSpace("other-model", "1", "mine", "float32", "mean", 0, full_dim=8, min_dim=8)
    part = VectorCache().for_space(other)
    part.add([bytes(16)], np.eye(1, 8, dtype=np.float32))
    part.flush()
    return tmp_path / "cache"


def test_every_lack_has_a_next_step_and_what_is_fine_has_none():
    findings = list(examine(hub=False))
    assert {one.subject for one in findings} >= {
        "GPU",
        "FAISS",
        "extra local",
        "vector cache",
        "disk",
        "threads",
    }
    assert all(bool(one.next_step) == (one.state != "ok") for one in findings)


def test_a_missing_and_an_unfit_package_name_the_extra(monkeypatch):
    real = installation._installed
    monkeypatch.setattr(installation, "_installed", lambda name: None if name == "openai" else real(name))
    lacking = found("extra remote")
    assert (lacking.state, lacking.next_step) == ("lacking", "pip install '.[remote]'")
    assert "openai" in lacking.found
    monkeypatch.setattr(installation, "_installed", lambda name: "2.1" if name == "mteb" else real(name))
    unfit = found("extra mteb")
    assert unfit.state == "problem"
    assert "mteb 2.1 (needs <2.27,>=2.20.0)" in unfit.found


def test_both_faiss_packages_are_a_problem(monkeypatch):
    monkeypatch.setattr(installation, "_installed", lambda name: "1.0" if "faiss" in name else version(name))
    assert found("FAISS").state == "problem"
    monkeypatch.setattr(installation, "_installed", lambda name: None if "faiss" in name else version(name))
    assert found("FAISS").state == "lacking"


def test_more_threads_than_the_container_may_use_are_a_problem(monkeypatch, tmp_path):
    quota = tmp_path / "cpu.max"
    quota.write_text("100000 100000\n")
    monkeypatch.setattr(installation, "_CGROUP_QUOTA", quota)
    monkeypatch.setattr(installation, "usable_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert found("threads").next_step == "export OMP_NUM_THREADS=1"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert found("threads").state != "problem"


def test_an_unreachable_hub_and_an_offline_one_are_told_apart(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    finding = next(one for one in examine() if one.subject == "model hub")
    assert finding.state == "lacking"
    assert "http://127.0.0.1:9 cannot be reached" in finding.found
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE is set" in next(one for one in examine() if one.subject == "model hub").found


def test_doctor_exits_with_1_where_something_will_fail(monkeypatch, tmp_path):
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "a file"))
    code, out, _ = command("doctor", "--no-hub")
    assert code == 1
    assert "!!  vector cache" in out
    assert "TOOLKIT_CACHE" in out
    code, out, _ = command("doctor", "--no-hub", "--json")
    assert {entry["subject"]: entry["state"] for entry in json.loads(out)}["vector cache"] == "problem"


def test_cache_ls_counts_what_is_kept(cache_of_two):
    spaces = {space.model: space for space in cached_spaces(cache_of_two)}
    assert {model: space.vectors for model, space in spaces.items()} == {
        "wordllama-l2-supercat-256": 2,
        "other-model": 1,
    }
    code, out, _ = command("cache", "ls")
    assert code == 0
    assert out.splitlines()[1].split()[1:3] == ["2", "256"]
    assert str(cache_of_two) in out


def test_a_damaged_shard_counts_nothing(cache_of_two):
    for shard in cache_of_two.glob("*/*.safetensors"):
        shard.write_bytes(b"nothing")
    assert [space.vectors for space in cached_spaces(cache_of_two)] == [0, 0]


def test_cache_clear_removes_what_is_named_and_only_when_told(cache_of_two):
    code, _, err = command("cache", "clear", "other-model")
    assert code == 1
    assert "give --yes" in err
    assert len(cached_spaces(cache_of_two)) == 2
    code, _, err = command("cache", "clear", "no-such-model", "--yes")
    assert code == 2
    assert "other-model" in err
    code, out, _ = command("cache", "clear", "other-model", "--yes")
    assert code == 0, out
    assert [space.model for space in cached_spaces(cache_of_two)] == ["wordllama-l2-supercat-256"]
    assert command("cache", "clear", "--yes")[0] == 2
    assert command("cache", "clear", "--all", "--yes")[0] == 0
    assert cached_spaces(cache_of_two) == []


def leaves(group, path=()):
    for name, one in group.commands.items():
        if hasattr(one, "commands"):
            yield from leaves(one, (*path, name))
        else:
            yield (*path, name), one


def test_examples_stand_under_every_command_and_parse():
    group = typer.main.get_command(app)
    for path, one in leaves(group):
        lines = EXAMPLES[" ".join(path).replace("-", "_")]
        shown = command(*path, "-h")[1]
        for line in lines:
            assert f"    {line}\n" in shown
            words = shlex.split(line.partition(" > ")[0], comments=True)
            assert tuple(words[: len(path) + 1]) == ("toolkit", *path)
            one.make_context(path[-1], words[len(path) + 1 :], resilient_parsing=False)


def test_a_shell_completes_commands_and_specs():
    def completed(words, asked):
        done = subprocess.run(
            [sys.executable, "-c", "from toolkit.cli import main; main()"],
            env=os.environ
            | {"_TOOLKIT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(asked)},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.split()

    assert completed("toolkit do", 1) == ["doctor"]
    assert completed("toolkit sweep --embedder st", 3) == ["static"]
    assert completed("toolkit sweep --data be", 3) == ["beir:"]
