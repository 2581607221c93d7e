"""The packed engine of this checkout beside that of another one, on one GPU, in turns.

Each turn is a process of its own that imports one checkout, makes the same random weights, encodes the workloads from
strings to rows on the host and asks for single queries. Turns alternate, so that a drift of the clocks hits both.

    git archive COMMIT toolkit | tar x -C FOLDER
    python benchmarks/encode_commits.py --before FOLDER --tokenizer FOLDER [--shapes 4b 0.6b] [--turns N] [--save]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from _record import ROOT, record

_TURN = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import numpy as np, torch
from toolkit.embedding.config import LocalConfig
from toolkit.embedding.packed import PackedEmbedder
from toolkit.embedding.packed.shape import QWEN3_SHAPES
from toolkit.experiment.encode_speed import workload_texts

config = LocalConfig(model="random", device="cuda", dtype="bfloat16")
engine = PackedEmbedder.random(config, QWEN3_SHAPES[sys.argv[2]], Path(sys.argv[3]))

def seconds(texts):
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in engine.stream(texts):
        pass
    torch.cuda.synchronize()
    return time.perf_counter() - begin

found = {}
for workload in ("passages", "queries", "long"):
    texts = workload_texts(workload)
    tokens = sum(engine.token_counts(texts))
    for _ in range(2):
        seconds(texts)
    found[workload] = tokens / min(seconds(texts) for _ in range(4))
queries = workload_texts("queries")[:200]
for query in queries:
    engine.encode([query])
took = []
for query in queries * 3:
    begin = time.perf_counter()
    engine.encode([query])
    took.append(1e3 * (time.perf_counter() - begin))
found["query_p50_ms"] = float(np.percentile(took, 50))
print(json.dumps(found))
"""


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--before", type=Path, required=True, help="folder with the other checkout's toolkit/"
    )
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder with a tokenizer.json")
    parser.add_argument("--shapes", nargs="+", default=["4b", "0.6b"])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()

    checkouts = {"before": options.before.resolve(), "now": ROOT}
    turns: dict[str, dict[str, list[dict[str, float]]]] = {}
    for shape in options.shapes:
        turns[shape] = {name: [] for name in checkouts}
        for _ in range(options.turns):
            for name, folder in checkouts.items():
                found = _turn(folder, shape, options.tokenizer)
                turns[shape][name].append(found)
                print(shape, name, json.dumps(found), flush=True)
    record("encode_commits", {"ratios": _ratios(turns), "turns": turns}, options.save)


def _turn(checkout: Path, shape: str, tokenizer: Path) -> dict[str, float]:
    # Without what points at this checkout: a turn imports the one it is given.
    environment = dict(os.environ, PYTHONPATH=os.environ.get("PYTHONPATH", "").replace(str(ROOT), ""))
    command = [sys.executable, "-c", _TURN, str(checkout), shape, str(tokenizer.resolve())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd="/")
    if done.returncode:
        raise SystemExit(f"{checkout}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _ratios(turns: dict[str, dict[str, list[dict[str, float]]]]) -> dict[str, dict[str, float]]:
    """Now over before, best turns: rates above 1 and times below 1 are gains."""
    return {
        shape: {
            what: round(
                (min if what.endswith("ms") else max)(one[what] for one in sides["now"])
                / (min if what.endswith("ms") else max)(one[what] for one in sides["before"]),
                4,
            )
            for what in sides["now"][0]
        }
        for shape, sides in turns.items()
    }


if __name__ == "__main__":
    main()
