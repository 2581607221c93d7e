"""Tiny sweeps for tests of the results folder: a set in memory, the static engine, a fraction of a second."""

import warnings

import numpy as np

from toolkit.data.sets import PairSet, RetrievalSet
from toolkit.embedding.cache import VectorCache
from toolkit.embedding.static import StaticEmbedder
from toolkit.errors import DimensionWarning
from toolkit.experiment.plan import make_plan
from toolkit.experiment.sweep import run_sweep

NAMES = [
    *(
        "red",
        "green",
        "blue",
        "black",
        "white",
        "yellow",
        "brown",
        "pink",
        "gray",
        "violet",
        "orange",
        "purple",
    ),
    *(
        "gold",
        "silver",
        "copper",
        "iron",
        "oak",
        "elm",
        "ash",
        "pine",
        "fir",
        "yew",
        "larch",
        "birch",
        "beech",
    ),
    *("lime", "beech", "cat", "dog", "horse", "cow", "sheep", "goat", "pig", "hen", "duck"),
]
TIMING = {"queries": 3, "rounds": 1, "threads": [1]}
QUICK = {"dims": [64], "k": 10, "indexes": ["Flat", "HNSW8"], "timing": TIMING}
INDEXES = [{"factory": "Flat"}, {"factory": "HNSW8", "search": [{"efSearch": 16}, {"efSearch": 32}]}]


def names_set(topic="page"):
    """One document and one query per name, in four groups that share a word."""
    return RetrievalSet(
        "names",
        [f"d{i}" for i in range(len(NAMES))],
        [f"a {topic} about {one} and group {i % 4}" for i, one in enumerate(NAMES)],
        [f"q{i}" for i in range(len(NAMES))],
        [f"what is {one}?" for one in NAMES],
        {f"q{i}": {f"d{i}": 1} for i in range(len(NAMES))},
    )


def scored_pairs():
    """Pairs with scores that fall as the texts share less."""
    left = [f"a page about {one}" for one in NAMES]
    right = [f"a page about {NAMES[(i + i % 3) % len(NAMES)]}" for i in range(len(NAMES))]
    return PairSet("scored", left, right, np.array([3.0 - i % 3 for i in range(len(NAMES))]))


def translated_pairs():
    """Pairs whose sides mean the same."""
    return PairSet("translated", [f"the {one}" for one in NAMES], [f"{one}, that is" for one in NAMES])


def sweep_into(out, cache, *, data=None, exactly=None, resume=False, overwrite=False, **fields):
    """A quick sweep into `out`, with the static engine as an open object."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DimensionWarning)
        return run_sweep(
            make_plan(**(QUICK | fields)),
            out=out,
            embedder=StaticEmbedder(),
            data=names_set() if data is None else data,
            exactly=exactly,
            resume=resume,
            overwrite=overwrite,
            cache=VectorCache(cache),
            progress=False,
        )


def quality_of(results):
    """The columns that do not depend on how long anything took."""
    timed = (
        "p50_ms",
        "p95_ms",
        "p99_ms",
        "qps",
        "qps_1_thread",
        "first_stage_share",
        "build_s",
        "insert_rows_per_s",
    )
    return results.measurements.drop(columns=[name for name in timed if name in results.measurements])
