"""What a run writes down of itself: the machine, the commit that is really its own, and no secrets."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import toolkit
from toolkit.embedding.static import StaticEmbedder
from toolkit.experiment import machine
from toolkit.experiment.environment import command_line, conditions, environment, search_versions
from toolkit.redact import redacted_arguments

PACKAGE = Path(toolkit.__file__).parent
ROOT = PACKAGE.parent
ASK = "from toolkit.experiment.environment import commit; print(commit())"


def git(folder, *arguments):
    settings = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", str(folder), *settings, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def commit_seen_from(folder):
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    """A user's repository with a commit of its own."""
    git(tmp_path, "init", "-q")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "shop"\n')
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def copied(target, *, project=False):
    shutil.copytree(PACKAGE, target / "toolkit", ignore=shutil.ignore_patterns("__pycache__"))
    if project:
        shutil.copy(ROOT / "pyproject.toml", target)
    return target


def test_a_package_inside_a_users_repository_has_no_commit(repository):
    assert commit_seen_from(copied(repository)) == "None", "installed, not tracked"
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "vendored")
    assert commit_seen_from(repository) == "None", "tracked, but the project is another"


def test_an_unpacked_copy_with_its_own_project_file_has_no_commit_either(repository):
    (repository / "vendor").mkdir()
    copied(repository / "vendor", project=True)
    assert commit_seen_from(repository / "vendor") == "None"
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "vendored")
    assert commit_seen_from(repository / "vendor") == "None", "the commit is the user's"


def test_a_checkout_of_its_own_has_its_commit_and_says_when_files_differ(tmp_path):
    copied(tmp_path, project=True)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert commit_seen_from(tmp_path) == head
    with (tmp_path / "toolkit" / "errors.py").open("a") as module:
        module.write("# changed\n")
    assert commit_seen_from(tmp_path) == f"{head}+"


@pytest.mark.parametrize(
    ("arguments", "secret"),
    [
        (["--embedder", "https://me:hunter2@host/v1#m"], "hunter2"),
        (["--embedder", "https://tok3n@host/v1#m"], "tok3n"),
        (["--embedder", "https://host/v1?api_key=abc123&x=1#m"], "abc123"),
        (["--embedder", "https://host/v1?key=abc123#m"], "abc123"),
        (["--api-key", "abc123"], "abc123"),
        (["--api-key=abc123"], "abc123"),
        (["--hf-token", "abc123"], "abc123"),
        (["OPENAI_API_KEY=abc123"], "abc123"),
        (["--header", "Authorization: Bearer abc.def"], "abc.def"),
        (["--note", "bearer abc.def"], "abc.def"),
        (["sk-abcdefghijklmnopqrstuv"], "abcdefghijklmnopqrstuv"),
        (["hf_abcdefghijklmnopqrstuv"], "abcdefghijklmnopqrstuv"),
        (["--password", "pass word"], "pass word"),
    ],
)
def test_keys_and_passwords_are_not_written_down(arguments, secret, monkeypatch):
    assert secret not in " ".join(redacted_arguments(arguments))
    monkeypatch.setattr(sys, "argv", ["toolkit", "sweep", *arguments])
    assert secret not in command_line()
    assert command_line().startswith("toolkit sweep ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--embedder", "http://host:8000/v1#org/model", "--dims", "32,64"],
        [
            "--embedder",
            "local:hf-internal-testing/tiny-random",
            "--max-tokens",
            "512",
            "--batch-tokens",
            "64",
        ],
        ["--instruction", "Find the secret of the keeper; tokens: many"],
        ["--data", "beir:me@work/data@dev"],
    ],
)
def test_what_is_no_secret_stays(arguments):
    assert redacted_arguments(arguments) == arguments


def test_conditions_tell_hosts_apart_and_do_not_change_by_themselves():
    import faiss  # noqa: F401 - its libraries are part of the answer

    found = conditions()
    assert found == conditions()
    hardware = found["hardware"]
    assert hardware["cores"] == machine.usable_cores() >= 1
    assert hardware["cpu"]
    if sys.platform == "linux":
        assert set(hardware["instruction_sets"].split()) & {"avx2", "asimd", "sse4_2"}
        assert "L1d" in hardware["caches_kib"]
    assert "uses " in found["libraries"]["faiss"]
    assert len(found["libraries"]["numpy_blas"].split()) >= 2, "library, version and the kernel it chose"
    assert set(found["versions"]) >= {"python", "numpy", "faiss-cpu"}


def test_thread_limits_are_conditions(monkeypatch):
    before = conditions()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("UNRELATED", "1")
    after = conditions()
    assert after["threads"]["OMP_NUM_THREADS"] == "1"
    assert {name for name in before if before[name] != after[name]} <= {"threads"}


def test_environment_has_all_that_a_reader_asks_for():
    about = environment(StaticEmbedder().space)
    assert {"date_utc", "command", "commit", "hardware", "libraries", "threads", "versions", "space"} == set(
        about
    )
    assert about["versions"]["embedding-toolkit"]


def test_own_work_is_not_taken_for_that_of_others(monkeypatch):
    clock = {"busy": 100.0, "own": 40.0, "wall": 0.0}
    monkeypatch.setattr(machine, "_busy_s", lambda: clock["busy"])
    monkeypatch.setattr(machine, "_own_s", lambda: clock["own"])
    monkeypatch.setattr(machine, "monotonic", lambda: clock["wall"])
    load = machine.HostLoad()
    clock |= {"busy": 116.0, "own": 50.0, "wall": 10.0}
    assert load.facts()["cores_used_by_others"] == 0.6
    load = machine.HostLoad()
    clock |= {"busy": 120.0, "own": 54.1, "wall": 20.0}
    assert load.facts()["cores_used_by_others"] == 0.0


def test_the_package_of_a_foreign_backend_is_among_the_versions_neighbors_depend_on():
    import packaging.version

    from toolkit.search.exact.backend import ExactBackend

    own = search_versions([ExactBackend()])
    assert own == search_versions()
    assert {"embedding-toolkit", "faiss-cpu"} <= set(own)
    assert set(search_versions([packaging.version.Version("1")])) == {*own, "packaging"}


def test_a_busy_machine_is_said():
    from toolkit.experiment.sweep import _busy

    assert _busy({"cores_used_by_others": 0.3}, cores=4) == []
    (note,) = _busy({"cores_used_by_others": 0.5}, cores=4)
    assert note.startswith("other programs used 0.5 of 4 cores")
