"""One writer at a time: a living process holds the lock, a dead one does not, whatever way it died."""

import json
import signal
import socket
import subprocess
import sys

import pytest

from toolkit.errors import ResultsError
from toolkit.experiment import lock
from toolkit.experiment.lock import sole_writer

HOLD = """
import sys
from pathlib import Path
from toolkit.experiment import lock
if sys.argv[2] == "no-flock":
    lock.fcntl = None
with lock.sole_writer(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
TAKE_TURNS = """
import os, sys
from pathlib import Path
from toolkit.errors import ResultsError
from toolkit.experiment.lock import sole_writer
path, marker = Path(sys.argv[1]), Path(sys.argv[2])
turns = 0
while turns < 40:
    try:
        with sole_writer(path):
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))  # fails if another is inside
            marker.unlink()
        turns += 1
    except ResultsError:
        pass
"""


@pytest.fixture
def path(tmp_path):
    raw = tmp_path / "sweep" / "raw"
    raw.mkdir(parents=True)
    return raw / "lock"


@pytest.fixture(params=["flock", "no-flock"])
def holder(request, path, monkeypatch):
    """Another process that holds the lock, with the system's locks and without any."""
    if request.param == "no-flock":
        monkeypatch.setattr(lock, "fcntl", None)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), request.param],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_and_told_who_writes(holder, path):
    written_by = rf"sweep is being written by process {holder.pid} on "
    with pytest.raises(ResultsError, match=written_by), sole_writer(path):
        pass
    assert holder.poll() is None


@pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_holds_nothing(holder, path, ended_by):
    holder.send_signal(ended_by)
    holder.wait(timeout=20)
    assert path.exists(), "it had no chance to tidy up"
    with sole_writer(path):
        assert json.loads(path.read_text())["pid"] != holder.pid
    assert not path.exists()


def test_the_same_process_is_refused_too(path):
    with sole_writer(path), pytest.raises(ResultsError, match="being written by process"), sole_writer(path):
        pass
    with sole_writer(path):
        pass


def test_many_processes_are_never_inside_together(path, tmp_path):
    command = [sys.executable, "-c", TAKE_TURNS, str(path), str(tmp_path / "marker")]
    racers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for racer in racers:
        _, problems = racer.communicate(timeout=120)
        assert racer.returncode == 0, problems


def test_without_system_locks_the_record_of_another_machine_is_believed_and_says_what_to_delete(
    path, monkeypatch
):
    monkeypatch.setattr(lock, "fcntl", None)
    with sole_writer(path):
        record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"host": "elsewhere"}))
    advice = rf"on elsewhere .* if that process is gone, delete {path}"
    with pytest.raises(ResultsError, match=advice), sole_writer(path):
        pass
    # Started again since: the process number may belong to anyone now.
    path.write_text(json.dumps(record | {"boot": "before", "host": socket.gethostname()}))
    with sole_writer(path):
        pass


def test_a_half_written_record_holds_nothing(path, monkeypatch):
    monkeypatch.setattr(lock, "fcntl", None)
    path.write_text('{"pid": 1')
    with sole_writer(path):
        pass
