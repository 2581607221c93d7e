"""The short form of the faults in tests/faults; ``make faults`` is the long one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from toolkit.errors import ResultsError

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(sys.platform != "linux", reason="forks, and mounts a small disk where it may")
def test_what_is_disturbed_ends_as_if_nothing_had_happened():
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", "--short"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    for part in ("kills", "disk", "corruptions", "permissions", "servers"):
        assert f"{part}: " in done.stderr


def test_the_recorded_faults_lost_nothing():
    recorded = json.loads((ROOT / "results" / "faults.json").read_text())
    assert (recorded["lost"], recorded["differences"], recorded["unclear"]) == (0, 0, 0)
    assert recorded["kills"] >= 100


def test_a_full_disk_under_charts_and_tables_of_mteb_is_one_line(tmp_path, monkeypatch):
    from toolkit.report import mteb_charts

    def full(path, payload):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mteb_charts, "write_atomically", full)
    none = pd.DataFrame({"score": [1.0]})
    with pytest.raises(
        ResultsError, match=r"No space left.*its scores are kept.*run the same again"
    ) as caught:
        mteb_charts.write_mteb_report(tmp_path, frame=none, kept=none, means=none)
    assert "\n" not in str(caught.value)


def test_a_full_disk_under_mteb_itself_is_one_line_and_other_errors_pass(tmp_path):
    sweep = pytest.importorskip("toolkit.mteb_adapter.sweep", exc_type=ImportError)
    with (
        pytest.raises(ResultsError, match=r"No space left.*what was scored before is kept"),
        sweep._writing(tmp_path),
    ):
        raise OSError(28, "No space left on device")
    with pytest.raises(TimeoutError), sweep._writing(tmp_path):
        raise TimeoutError(110, "the hub does not answer")
