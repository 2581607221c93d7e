"""The rates that ``toolkit plan`` rests on, taken from the recorded results: writes toolkit/capacity/measured.json.

Encoding is that of results/benchmarks/encode_h100.json. Of an index, one core's share of what two did:

* k-means and lists: IVF1024 less Flat over 1,000,000 x 1024 int8 vectors, and codes: that Flat (search_million.json);
* graphs: HNSW32 less Flat, and searches: single-threaded batches at 256 dimensions (results/grid-static-cmrc2018).

    python benchmarks/capacity_rates.py
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd

from toolkit.search.faiss.curve import compared

ROOT = Path(__file__).resolve().parents[1]
GRID, DIM, K = "grid-static-cmrc2018", 256, 100
SEARCHES = {
    "Flat": ("Flat", {}),
    "IVF": ("IVF64", {"nprobe": 16}),
    "HNSW": ("HNSW32", {"efSearch": 64}),
}
PRECISIONS = ("float32", "float16", "int8")


def rates() -> dict[str, object]:
    """What is written, from the files alone."""
    recorded = ROOT / "results"
    encoding = json.loads((recorded / "benchmarks" / "encode_h100.json").read_text())
    kept = {
        name: {key: row[key] for key in ("tok_s", "texts_s")}
        for name, row in encoding.items()
        if name.startswith("toolkit/") and len(name.split("/")) == 4
    }
    kept |= {name: encoding[name] for name in ("hardware", "command", "date")}
    million = json.loads((recorded / "benchmarks" / "search_million.json").read_text())
    rows, dim, cores = million["rows"], million["dim"], million["hardware"]["cores"]
    flat, lists = (
        next(b for b in million["builds"] if (b["index"], b["precision"]) == (index, "int8"))
        for index in ("Flat", "IVF1024")
    )
    operations = 2.0 * dim * 1024 * (10 * 256 * 1024 + rows)
    grid = pd.read_parquet(recorded / GRID / "measurements.parquet").set_index("setting")
    about = json.loads((recorded / GRID / "environment.json").read_text())
    documents = round(grid.loc[f"{DIM} float32 Flat", "index_bytes"] / (4 * DIM))
    graph_s = grid.loc[f"{DIM} float32 HNSW32 efSearch=64", "build_s"]
    searched = {
        kind: {
            precision: round(
                grid.loc[_setting(index, precision, arguments), "qps_1_thread"]
                * compared(index, arguments, documents=documents, k=K)
                * DIM
            )
            for precision in PRECISIONS
        }
        for kind, (index, arguments) in SEARCHES.items()
    }
    return {
        "encode": kept,
        "index": {
            "kmeans_flop_s": round(operations / (lists["build_s"] - flat["build_s"]) / cores),
            "code_numbers_s": round(rows * dim / flat["build_s"] / cores),
            "graph_numbers_s": round(
                documents * math.log(documents) * DIM / graph_s / about["hardware"]["cores"]
            ),
            "search_numbers_s": searched,
            "measured_documents": documents,
            "source": f"{rows:,} x {dim} ({million['command']}, {million['date']}); {documents:,} x {DIM} "
            f"(results/{GRID})",
        },
    }


def _setting(index: str, precision: str, arguments: dict[str, int]) -> str:
    shown = "".join(f" {name}={value}" for name, value in arguments.items())
    return f"{DIM} {precision} {index}{shown}"


if __name__ == "__main__":
    (ROOT / "toolkit" / "capacity" / "measured.json").write_text(json.dumps(rates(), indent=1) + "\n")
