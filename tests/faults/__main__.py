"""The long form: ``python -m tests.faults --save`` writes results/faults.json; exit code 1 if anything was wrong."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("TQDM_DISABLE", "1")

from tests.faults import harm
from tests.faults.commands import EMBED, JUDGE, MTEB, SWEEP
from tests.faults.server import MODES

ROOT = Path(__file__).parents[2]
SAVED = ROOT / "results" / "faults.json"
COUNTED = ("kills", "disk_full", "corruptions", "permissions", "hostile_servers", "concurrent_writers")
WRONG = ("lost", "differences", "unclear")
ALL = (SWEEP, EMBED, JUDGE, MTEB)
SHORT = {
    "kills": lambda trials: [harm.kills(trials, one, 2) for one in ALL[:3]],
    "disk": lambda trials: [harm.disk_full(trials, one, 1) for one in ALL[:3]],
    "corruptions": lambda trials: harm.corruptions(trials, EMBED, most_per_kind=1),
    "permissions": lambda trials: harm.revoked(trials, EMBED),
    "servers": lambda trials: harm.hostile_servers(trials, trials.random.sample(MODES, 2)),
}


def main() -> None:
    """Do the faults, print what was wrong, and save the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="over all commands")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="parts between commas: those of results/faults.json")
    parser.add_argument("--short", action="store_true", help="a few of each, in half a minute; saves nothing")
    parser.add_argument(
        "--save", action="store_true", help="parts that are left out keep what was saved of them"
    )
    options = parser.parse_args()
    parts = {
        **{
            f"kills of {one.name}": lambda trials, one=one, n=n: harm.kills(
                trials, one, n * options.kills // 100
            )
            for one, n in ((SWEEP, 24), (EMBED, 36), (JUDGE, 30), (MTEB, 6))
        },
        "kills of serve": lambda trials: harm.served(trials, options.kills // 10),
        "disk": lambda trials: [harm.disk_full(trials, one, 1 if one is MTEB else 4) for one in ALL],
        "corruptions": lambda trials: [harm.corruptions(trials, one, most_per_kind=2) for one in ALL],
        "permissions": lambda trials: [harm.revoked(trials, one) for one in ALL],
        "servers": harm.hostile_servers,
        "concurrent": lambda trials: harm.concurrent(trials, 4),
    }
    if options.short:
        parts = SHORT
    chosen = options.only.split(",") if options.only else list(parts)
    by_part = {}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        trials = harm.Trials(Path(folder), options.seed)
        light = options.short or not set(chosen) & {"kills of mteb", "disk", "corruptions", "permissions"}
        trials.preload(ALL[:3] if light else ALL)
        for name in chosen:
            begun, trials.counts = time.monotonic(), Counter(dict.fromkeys(WRONG, 0))
            parts[name](trials)
            by_part[name] = dict(trials.counts) | {
                "seconds": round(time.monotonic() - begun),
                "seed": options.seed,
            }
            print(f"{name}: {by_part[name]}", file=sys.stderr, flush=True)
            if options.save and not options.short:
                _save(name, by_part[name])
    sys.exit(any(by_part[name][wrong] for name in chosen for wrong in WRONG))


def _save(name: str, figures: dict[str, int]) -> None:
    from toolkit.experiment.environment import hardware, versions

    before = json.loads(SAVED.read_text())["parts"] if SAVED.exists() else {}
    by_part = before | {name: figures}
    totals = {name: sum(part.get(name, 0) for part in by_part.values()) for name in (*COUNTED, *WRONG)}
    about = {"parts": by_part, "hardware": hardware(), "versions": versions(), "command": "make faults"}
    SAVED.write_text(json.dumps(totals | about, indent=1) + "\n")


if __name__ == "__main__":
    main()
