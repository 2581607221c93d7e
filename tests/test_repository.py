"""What the repository holds: recorded results stay small, and generated parts of the documents are current."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MOST_BYTES = 8 * 2**20


def tracked(folder: str) -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z", folder], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).exists()]


def test_recorded_results_are_small():
    """Tables, plans and one report each; charts are drawn again by `toolkit report`."""
    files = tracked("results")
    assert sum(path.stat().st_size for path in files) < MOST_BYTES
    assert not [path for path in files if path.suffix in {".png", ".svg"}]


def test_screenshots_are_few_and_small():
    """What `make screenshots` writes, looked at before it is committed; it stays in the history for good."""
    files = tracked("results/screenshots")
    assert files
    assert {path.suffix for path in files} == {".webp"}
    assert sum(path.stat().st_size for path in files) < 300_000
