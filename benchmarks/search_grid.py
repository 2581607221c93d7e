"""A grid of dimension x precision x index x search arguments x rescoring, against a plain loop over FAISS.

The loop cuts, trains, adds and searches anew for every setting, as a script around FAISS does. This
package builds the indexes of a dimension as a family: one k-means, one graph, one training of codes,
and one build for all search arguments and second stages. Both sides use the same threads and give
the same rows; their mean overlap with the exact result is recorded side by side.

Overhead is that of `BuiltIndex.bare_search` over calling the FAISS index, in turns, one query at a time.

    python benchmarks/search_grid.py [--rows N] [--dims 256,1024] [--precisions ..] [--indexes ..] [--save]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass

import faiss
import numpy as np
from _host import Rounds
from _record import ROOT, record
from all_dims import decaying_vectors

from toolkit.measure.timing import Timed, interleaved
from toolkit.search.backend import IndexSpec
from toolkit.search.cut_rows import CutRows
from toolkit.search.exact.compute import available_cores
from toolkit.search.exact.search import exact_search
from toolkit.search.faiss.backend import build_index
from toolkit.search.faiss.factory import factory_string
from toolkit.search.faiss.index import BuiltIndex, pack_signs, threads
from toolkit.search.faiss.shared_builds import SharedBuilds
from toolkit.search.funnel import Funnel, Rescorer, Stage
from toolkit.vectors import Vectors, truncate

K, CANDIDATES = 10, 100
SEARCHES = {"HNSW": ({"efSearch": 32}, {"efSearch": 128}), "IVF": ({"nprobe": 4}, {"nprobe": 16})}


@dataclass(frozen=True)
class Cell:
    """One setting of the grid."""

    dim: int
    precision: str
    index: str
    search_args: tuple[tuple[str, int], ...]
    rescored: bool


def cells(dims: list[int], precisions: list[str], indexes: list[str]) -> Iterator[Cell]:
    """All settings, those of one dimension together."""
    for dim in dims:
        for precision in precisions:
            for index in indexes:
                family = index.rstrip("0123456789")
                for search_args in SEARCHES.get(family, ({},)):
                    for rescored in (False, True):
                        yield Cell(dim, precision, index, tuple(search_args.items()), rescored)


def plain_loop(grid: list[Cell], corpus: np.ndarray, queries: np.ndarray) -> dict[Cell, np.ndarray]:
    """Everything anew for each setting; returns the rows found."""
    found = {}
    for cell in grid:
        rows, asked = truncate(corpus, cell.dim), truncate(queries, cell.dim)
        factory = factory_string(cell.index, cell.precision, cell.dim)
        if cell.precision == "binary":
            index, rows, asked = (
                faiss.index_binary_factory(cell.dim, factory),
                pack_signs(rows),
                pack_signs(asked),
            )
        else:
            index = faiss.index_factory(cell.dim, factory, faiss.METRIC_INNER_PRODUCT)
        _seed(index)
        index.train(rows)
        index.add(rows)
        name, value = cell.search_args[0] if cell.search_args else ("", 0)
        parameters = None
        if name == "efSearch":
            parameters = faiss.SearchParametersHNSW(efSearch=value)
        elif name == "nprobe":
            parameters = faiss.SearchParametersIVF(nprobe=value)
        best = index.search(asked, CANDIDATES if cell.rescored else K, params=parameters)[1]
        if cell.rescored:
            scores = np.einsum("qd,qcd->qc", queries, corpus[best])
            scores[best < 0] = -np.inf
            best = np.take_along_axis(best, np.argsort(-scores, axis=1)[:, :K], axis=1)
        found[cell] = best
    return found


def _seed(index: faiss.Index) -> None:
    """The seed that a family has: luck of the k-means alone moves overlap at nprobe=4 by 0.06."""
    if hasattr(index, "cp"):
        index.cp.seed = 0
    if hasattr(index, "hnsw"):
        index.hnsw.rng = faiss.RandomGenerator(0)


def family_grid(grid: list[Cell], corpus: np.ndarray, queries: np.ndarray) -> dict[Cell, np.ndarray]:
    """The same settings from shared builds."""
    vectors = Vectors(corpus)
    rescorer = Rescorer(vectors, vectors.full_dim)
    found: dict[Cell, np.ndarray] = {}
    family, built, made_for = None, None, None
    for cell in grid:
        if made_for is None or made_for[0] != cell.dim:
            family = SharedBuilds(CutRows(vectors, cell.dim))
        key = (cell.dim, cell.precision, cell.index)
        if key != made_for:
            built, made_for = family.build(IndexSpec(cell.index, cell.precision, cell.dim)), key
        if cell.rescored:
            funnel = Funnel(built, [Stage(rescorer, CANDIDATES)], search_args=dict(cell.search_args))
            found[cell] = funnel.search(funnel.prepare(queries), K)[0].rows
        else:
            found[cell] = built.search(truncate(queries, cell.dim), K, dict(cell.search_args)).rows
    return found


def overhead(built: BuiltIndex, queries: np.ndarray, width: int) -> float:
    """p50 of a single query through this package over that of the FAISS call, minus 1."""
    parameters = faiss.SearchParametersHNSW(efSearch=width)
    ours = built.bare_search(K, {"efSearch": width})
    with threads(1):
        samples = interleaved(
            {
                "faiss": Timed(lambda some: built.index.search(some, K, params=parameters), queries),
                "toolkit": Timed(ours, queries),
            },
            rounds=11,
            batched=False,
        )
    return samples["toolkit"].p50_ms / samples["faiss"].p50_ms - 1


def million_peak() -> dict[str, float]:
    """Peak memory over 1,000,000 vectors, as ``search_million.py --save`` recorded it here; empty if not."""
    recorded = ROOT / "results" / "benchmarks" / "search_million.json"
    if not recorded.is_file():
        return {}
    return {"peak_gib_1m": json.loads(recorded.read_text(encoding="utf-8"))["peak_gib_1m"]}


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--dims", default="256,1024")
    parser.add_argument("--precisions", default="float32,int8,uint4,pq")
    parser.add_argument("--indexes", default="Flat,HNSW32,IVF256")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()

    corpus = decaying_vectors(options.rows, options.dim, seed=1)
    queries = decaying_vectors(200, options.dim, seed=2)
    dims = [int(dim) for dim in options.dims.split(",")]
    grid = list(cells(dims, options.precisions.split(","), options.indexes.split(",")))
    exact = exact_search(corpus, queries, [options.dim], k=K)[options.dim].rows
    overlaps, rounds = {}, Rounds()
    with threads(available_cores()):
        for name, side in (("family", family_grid), ("loop", plain_loop)):
            with rounds.timed(name):
                found = side(grid, corpus, queries)
            overlaps[name] = {
                cell: np.mean([np.isin(a, b).mean() for a, b in zip(found[cell], exact, strict=True)])
                for cell in grid
            }
            print(f"{name}: {rounds.best(name):.1f} s for {len(grid)} settings", flush=True)
    gaps = {cell: overlaps["family"][cell] - overlaps["loop"][cell] for cell in grid}
    worst = min(gaps, key=gaps.get)
    print(f"largest loss of overlap@{K}: {gaps[worst]:.3f} at {worst}")
    built = build_index(Vectors(corpus[:10_000]), dims[0], index="HNSW32")
    figures = {
        "speedup_vs_loop": rounds.ratio("loop", "family")["best"],
        "harness_overhead_p50": round(overhead(built, truncate(queries, dims[0]), 32), 4),
        "family_s": round(rounds.best("family"), 1),
        "loop_s": round(rounds.best("loop"), 1),
        "settings": len(grid),
        "mean_overlap_family": round(float(np.mean(list(overlaps["family"].values()))), 4),
        "mean_overlap_loop": round(float(np.mean(list(overlaps["loop"].values()))), 4),
        "largest_overlap_loss": round(float(gaps[worst]), 4),
        "rows": options.rows,
        "dims": dims,
        "threads": available_cores(),
    } | million_peak()
    record("search_grid", figures, options.save, rounds=rounds)


if __name__ == "__main__":
    main()
