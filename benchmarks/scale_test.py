"""A quarter of a real corpus, padded to its full size, beside the real one: recall, latency and memory of real indexes.

The quarter holds the documents that are relevant to the queries asked, up to half of it; distractors are drawn after
the rest, which is what the other three quarters are like. Recall is of the exact search's first ten.
With ``--million`` the last corpus is also padded to 1,000,000 documents, and an exact scan and IVF measured there.
p95 is a timing: run it on an idle host.

    python benchmarks/scale_test.py [--data DIR ..] [--million] [--save]
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _host import Rounds
from _record import ROOT, record

import toolkit
from toolkit.at_scale.measure import measure
from toolkit.at_scale.padded import pad
from toolkit.data.load import load_dataset
from toolkit.embedding.cache import VectorCache
from toolkit.experiment.corpus_parts import corpus_parts
from toolkit.experiment.setting import Setting
from toolkit.experiment.work import scaled_setting
from toolkit.search.exact.search import exact_search
from toolkit.vectors import Vectors

DATA = tuple(ROOT.parent / "shared" / "data" / name for name in ("cmrc2018_sent", "icecat_chorus"))
SETTINGS = (
    Setting(256, "int8"),
    Setting(256, "binary", rescore=[(256, 100)]),
    Setting(256, "pq"),
    Setting(256, index="IVF64", search_args={"nprobe": 4}),
    Setting(256, index="IVF64", search_args={"nprobe": 16}),
    Setting(256, index="HNSW32", search_args={"efSearch": 32}),
    Setting(256, index="HNSW32", search_args={"efSearch": 128}),
)
MILLION = 1_000_000


@dataclass(frozen=True, eq=False)
class Quartered:
    """All document rows, those of the queries asked, which documents the quarter holds, and its random ones."""

    docs: np.ndarray
    queries: np.ndarray
    quarter: np.ndarray
    random: np.ndarray


def quartered(folder: Path) -> Quartered:
    """A data set's vectors and a quarter of it."""
    data = load_dataset(f"beir:{folder}")
    embedder, cache = toolkit.open_embedder("static"), VectorCache()
    docs = toolkit.embed(embedder, data.docs, cache=cache, progress=False)
    queries = toolkit.embed(embedder, data.queries, role="query", cache=cache, progress=False)
    nearest = exact_search(docs, queries, [docs.shape[1]], k=1)[docs.shape[1]]
    parts = corpus_parts(data, nearest, seed=0)
    size = round(len(docs) / 4)
    return Quartered(docs, queries[parts.queries], parts.rows(size), np.sort(parts.order[parts.kept : size]))


def beside(data: Quartered, seeds: int) -> list[dict[str, object]]:
    """Each setting over the real corpus and over the padded quarter, the mean of `seeds` builds of each."""
    found = []
    docs, queries = data.docs, data.queries
    quarter, random = docs[data.quarter], docs[data.random]
    with tempfile.TemporaryDirectory() as folder:
        # The order in which a corpus comes is that of its topics; a padded one is in no order.
        order = np.random.default_rng(0).permutation(len(docs))
        real = Vectors(np.ascontiguousarray(docs[order]))
        for setting in SETTINGS:
            sides: dict[str, list] = {"real": [], "padded": []}
            for seed in range(seeds):
                path = Path(folder) / f"{seed}.npy"
                padded = pad(quarter, len(docs), path, like=random, seed=seed, progress=False)
                for side, vectors in (("real", real), ("padded", padded)):
                    sides[side].append(measure(vectors, queries, setting, seed=seed))
            mean = {side: float(np.mean([one.recall for one in runs])) for side, runs in sides.items()}
            best = {side: min(one.p95_ms for one in runs) for side, runs in sides.items()}
            found.append(
                {
                    "setting": setting.key,
                    "recall_real": round(mean["real"], 4),
                    "recall_padded": round(mean["padded"], 4),
                    "recall_difference": round(mean["padded"] - mean["real"], 4),
                    "p95_ms_real": round(best["real"], 4),
                    "p95_ms_padded": round(best["padded"], 4),
                    "p95_ratio": round(best["padded"] / best["real"], 3),
                }
            )
            print(found[-1], flush=True)
    return found


def million(docs: np.ndarray, queries: np.ndarray) -> list[dict[str, object]]:
    """The real corpus padded to a million, with the settings one would run there."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        vectors = pad(docs, MILLION, Path(folder) / "rows.npy")
        for setting in (SETTINGS[0], SETTINGS[4]):
            there = scaled_setting(setting, MILLION, measured=len(docs))
            found.append({"measured_as": setting.key} | measure(vectors, queries, there).as_dict())
            print(found[-1], flush=True)
    return found


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", default=DATA, help="BEIR folders")
    parser.add_argument("--seeds", type=int, default=3, help="builds of each index on each side")
    parser.add_argument("--million", action="store_true")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    rounds, sets = Rounds(), {}
    figures: dict[str, object] = {"sets": sets}
    for folder in options.data:
        data = quartered(folder)
        with rounds.timed(folder.name):
            rows = beside(data, options.seeds)
        sets[folder.name] = {
            "documents": len(data.docs),
            "quarter": len(data.quarter),
            "drawn_after": len(data.random),
            "queries": len(data.queries),
            "rows": rows,
        }
    every = [row for one in sets.values() for row in one["rows"]]
    worst = max(every, key=lambda row: abs(row["recall_difference"]))
    slowest = max(every, key=lambda row: abs(np.log(row["p95_ratio"])))
    figures |= {
        "recall_difference": abs(worst["recall_difference"]),
        "recall_difference_of": worst["setting"],
        "recall_difference_mean": round(float(np.mean([abs(row["recall_difference"]) for row in every])), 4),
        "p95_ratio": slowest["p95_ratio"],
        "p95_ratio_of": slowest["setting"],
        "p95_ratio_median": round(float(np.median([row["p95_ratio"] for row in every])), 3),
    }
    if options.million:
        with rounds.timed("a million"):
            figures["million"] = million(data.docs, data.queries)
    record("scale_test", figures, options.save, rounds=rounds)


if __name__ == "__main__":
    main()
