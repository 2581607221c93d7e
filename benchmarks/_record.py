"""What every benchmark ends with: one JSON line, and with ``--save`` the same with its circumstances.

Knows nothing of what was measured.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from _host import Rounds

from toolkit.experiment.environment import hardware, versions

ROOT = Path(__file__).resolve().parents[1]


def record(name: str, figures: Mapping[str, object], save: bool, *, rounds: Rounds | None = None) -> None:
    """Print `figures` as one JSON line; with `save` write results/benchmarks/<name>.json too.

    rounds : what was timed; every round and the state of the host are written down with the figures.
    """
    if rounds is not None:
        rounds.warn()
        figures = dict(figures) | rounds.figures()
    if save:
        path = ROOT / "results" / "benchmarks" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = dict(figures) | {
            "hardware": hardware(),
            "versions": versions(),
            "command": command(),
            "commit": _commit(),
            "date": datetime.now(UTC).date().isoformat(),
        }
        path.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps({"benchmark": name} | dict(figures), ensure_ascii=False), flush=True)


def command() -> str:
    """The command line as one types it from the repository's root."""
    script = Path(sys.argv[0]).resolve()
    shown = script.relative_to(ROOT) if script.is_relative_to(ROOT) else Path(script.name)
    return shlex.join(["python", shown.as_posix(), *sys.argv[1:]])


def _commit() -> str:
    # A copy of the tree without its history is told by whoever made it.
    if named := os.environ.get("TOOLKIT_COMMIT"):
        return named
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
