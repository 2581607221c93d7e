"""`embed-parity` 0.3 about `toolkit serve`: its /embed beside sentence-transformers, by somebody else's judgement.

    TOOLKIT_EMBED_PARITY=PYTHON python benchmarks/second_opinion.py [--save]

PYTHON is that of an environment with `pip install "embed-parity[sentence-transformers]==0.3.0"`; `make models` links
the model, and both sides have the same weights. Its thresholds are its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from _record import ROOT, record
from _servers import own, running


def report_of(python: str, root: str, model: Path) -> dict[str, Any]:
    """What it says of the server at `root`; raises RuntimeError if it could not finish."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        command = [python, "-m", "embed_parity.cli", "compare", "--model", str(model), "--tei", root]
        done = subprocess.run(
            [*command, "--device", "cpu", "--concurrent-requests", "16", "--json", str(path)],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )
        if done.returncode not in (0, 1):
            raise RuntimeError(f"embed-parity did not finish: {done.stderr.strip()[-500:]}")
        print(done.stdout)
        return json.loads(path.read_text())


def figures_of(report: dict[str, Any]) -> dict[str, Any]:
    """What it measured, without its texts and without paths of this machine."""
    vector, neighbors = report["vector"], report["neighbors"]
    batches, together = report["batch_consistency"]["candidate"], report["server_batch_consistency"]
    return {
        "passed": report["passed"],
        "tool_version": report["tool_version"],
        "probes": report["probe_count"],
        "cosine": {name: vector[name] for name in ("mean", "minimum")},
        "pairwise_spearman": report["geometry"]["spearman"],
        "top_10_overlap": neighbors["top_10_overlap"],
        "norm_max_relative_difference": report["structural"]["norm_max_relative_difference"],
        "batches": [
            {name: one[name] for name in ("batch_a", "batch_b", "mean_cosine", "passed")}
            for one in batches["comparisons"]
        ],
        "concurrent": {
            name: together[name]
            for name in ("concurrent_requests", "responses_compared", "minimum_cosine", "passed")
        },
        "lengths": {str(one["tokens"]): one["cosine"] for one in report["length_analysis"]["points"]},
        "metadata": {
            name: value for name, value in report["metadata_compatibility"].items() if name.endswith("_match")
        },
        "thresholds": report["thresholds"],
    }


def main() -> None:
    """Start the server, ask, and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--python", metavar="PYTHON", default=os.environ.get("TOOLKIT_EMBED_PARITY"))
    parser.add_argument("--model", type=Path, default=ROOT / ".models" / "all-MiniLM-L6-v2")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    if not options.python:
        parser.error(
            "neither --python nor TOOLKIT_EMBED_PARITY names an interpreter; the docstring says which"
        )
    model = options.model.resolve()
    with running(own(f"local:{model}")) as url:
        report = report_of(options.python, url.removesuffix("/v1"), model)
    record("second_opinion", figures_of(report), options.save)


if __name__ == "__main__":
    main()
