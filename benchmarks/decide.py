"""How often verdicts are reached, and how often they are wrong: labels of real sets are hidden, and drawn again.

Each set is swept with all its queries (a kept folder is taken as it is), so the share of quality that each setting
truly keeps is known. Then all labels but some are hidden, many times: none, 50 or 300 drawn evenly, or 100 drawn as
``toolkit judge`` draws them about ten settings in question (those that agree best with the reference). Queries are
drawn one by one from the set, so the truth is the mean over the set's queries, and clusters play no part.

Five settings a set are made up to lie on the line: settings that keep the quality, with total losses at random queries
until they keep just less than the share asked for.

clear : settings that truly keep 0.5 points more than asked for, or 1.5 points less. decided_* : share of verdicts on
    them that are not ``undecided``; of judged draws among the settings in question, decided_099_judged_100_all among
    all; decided_099_0 is by agreement with the reference alone, which knows nothing of the settings made up.
    decided_099_300_before : by the bound without rankings.
false_proven, false_likely : share of studies with any such verdict on a setting that keeps less, the worst case of
    all sets and ways of drawing.

    python benchmarks/decide.py ../shared/data [--studies 60] [--work FOLDER] [--save]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _record import record

import toolkit
from toolkit.experiment.results import Results
from toolkit.judge.draw import draw_density
from toolkit.measure.bounded_mean import Unseen, p_not_positive
from toolkit.measure.noninferiority import Judged, NonInferiority, Pool, non_inferiorities
from toolkit.measure.statistics import holm

KEEP = 0.99
SETS = ("builtin", "cmrc2018_sent", "policyqa", "stard_goldpool")
FULL = "256 float32 Flat"
ON_THE_LINE = 5
IN_QUESTION = 10
MOST_OTHERS = 2_000
PLAN = {
    "dims": [64, 128, 192, 256],
    "precisions": ["float32", "float16", "int8", "binary"],
    "indexes": ["Flat", {"factory": "HNSW32", "search": [{"efSearch": 64}]}],
    "rescore": [[{"dim": "full", "candidates": 100}]],
    "metrics": ["ndcg@10"],
    "max_queries": 0,
    "timing": {"queries": 5, "rounds": 1, "threads": [1]},
}


@dataclass(frozen=True, eq=False)
class Truth:
    """A set with all its labels: (queries, settings) values, bounds and agreement, (queries,) of the reference."""

    values: np.ndarray
    reference: np.ndarray
    bounds: np.ndarray
    agreement: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        """(settings,) the share that each truly keeps."""
        return self.values.mean(axis=0) / self.reference.mean()

    @property
    def clear(self) -> np.ndarray:
        """(settings,) whether a setting is not near the line."""
        return (self.kept >= KEEP + 0.005) | (self.kept <= KEEP - 0.015)


def measured(name: str, data: Path, work: Path) -> Truth:
    """Sweep a set if `work` does not hold it, and read what every setting gives at every query."""
    out = work / name
    if not (out / "measurements.parquet").is_file():
        source = "builtin" if name == "builtin" else f"beir:{data / name}"
        toolkit.sweep(embedder="static", data=source, out=out, max_unlabelled=0, **PLAN)
    results = Results.load(out)
    groups = results.same_ranking("ndcg@10")
    keys = [key for key in groups[~groups.duplicated()].index if groups[key] != groups[FULL]]
    values = (
        results.per_query.astype({"setting": str}).set_index(["query_id", "setting"])["ndcg@10"].unstack()
    )
    table = results.bounds.astype({"setting": str}).set_index(["query_id", "setting"])
    bounds = table["ndcg@10_most_lost"].unstack().loc[values.index, keys].to_numpy(dtype=float)
    agreement = table["ndcg@10_by_reference"].unstack().loc[values.index, keys].to_numpy(dtype=float)
    return _with_settings_on_the_line(
        Truth(values[keys].to_numpy(), values[FULL].to_numpy(), bounds, np.clip(agreement, 0.0, 1.0))
    )


def _with_settings_on_the_line(truth: Truth) -> Truth:
    rng = np.random.default_rng(0)
    good = np.flatnonzero(truth.kept >= KEEP)
    columns = [truth]
    for at in rng.choice(good, size=ON_THE_LINE):
        values, bounds = truth.values[:, at].copy(), truth.bounds[:, at].copy()
        order = rng.permutation(len(values))
        left = values.sum() - np.cumsum(values[order])
        lost = order[: int(np.argmax(left < KEEP * truth.reference.sum())) + 1]
        values[lost], bounds[lost] = 0.0, 1.0
        columns.append(Truth(values[:, None], truth.reference, bounds[:, None], truth.agreement[:, [at]]))
    stacked = [
        np.hstack([getattr(one, name) for one in columns]) for name in ("values", "bounds", "agreement")
    ]
    return Truth(stacked[0], truth.reference, stacked[1], stacked[2])


Study = Callable[[Truth, np.random.Generator], list[NonInferiority]]


def evenly(labels: int) -> Study:
    """Labels of queries drawn evenly; of up to 2,000 others the rankings are known."""

    def study(truth: Truth, rng: np.random.Generator) -> list[NonInferiority]:
        order = rng.permutation(len(truth.reference))
        own, others = order[:labels], order[labels : labels + MOST_OTHERS]
        sample = Judged(truth.values[own], truth.reference[own], truth.bounds[own])
        return non_inferiorities(sample, Pool(truth.bounds[others]), keep=KEEP)

    return study


def judged(draws: int, columns: np.ndarray | None = None) -> Study:
    """Queries drawn as a person is asked about them, about the settings at `columns`, or all."""

    def study(truth: Truth, rng: np.random.Generator) -> list[NonInferiority]:
        at = np.arange(truth.values.shape[1]) if columns is None else columns
        bounds = truth.bounds[:, at]
        density = draw_density(bounds, bounds)
        own = rng.choice(len(density), size=draws, p=density / density.sum())
        sample = Judged(truth.values[own][:, at], truth.reference[own], bounds[own], density=density[own])
        return non_inferiorities(sample, Pool(bounds, density=density), keep=KEEP)

    return study


def agreeing(truth: Truth, rng: np.random.Generator) -> list[NonInferiority]:
    """No label: quality is agreement with the reference's own top, of up to 2,000 queries."""
    own = rng.permutation(len(truth.reference))[:MOST_OTHERS]
    real = slice(truth.values.shape[1] - ON_THE_LINE)
    sample = Judged(truth.agreement[own, real], np.ones(len(own)), truth.bounds[own, real])
    return non_inferiorities(sample, keep=KEEP)


def before(truth: Truth, rng: np.random.Generator) -> np.ndarray:
    """(settings,) whether 300 labels decide by the bound for bounded data that knows no ranking, with Holm."""
    own = rng.permutation(len(truth.reference))[:300]
    margins = truth.values[own] - KEEP * truth.reference[own][:, None]
    keeps, loses = (
        holm(p_not_positive(sign * margins, Unseen(worst), level=0.05)) <= 0.05
        for sign, worst in ((1.0, KEEP), (-1.0, 1.0))
    )
    return keeps | loses


def in_question(truth: Truth) -> np.ndarray:
    """The settings that agree best with the reference, which a person is asked about."""
    return np.sort(np.argsort(-truth.agreement.mean(axis=0), kind="stable")[:IN_QUESTION])


def studied(truth: Truth, study: Study, studies: int, columns: np.ndarray) -> dict[str, object]:
    """Verdicts of many studies against the truth."""
    clear, bad = truth.clear[columns], truth.kept[columns] < KEEP
    decided, false = [], {"keeps (proven)": 0, "keeps (likely)": 0, "loses": 0}
    for rng in _seeds(studies):
        verdicts = np.array([one.verdict for one in study(truth, rng)])
        decided.append(verdicts[clear] != "undecided")
        for verdict in false:
            wrong = ~bad if verdict == "loses" else bad
            false[verdict] += bool(((verdicts == verdict) & wrong).any())
    return {"settings": len(columns), "clear": int(clear.sum()), "decided": float(np.mean(decided))} | {
        f"false {verdict}": count / studies for verdict, count in false.items()
    }


def _seeds(studies: int) -> Iterator[np.random.Generator]:
    return (np.random.default_rng(seed) for seed in range(studies))


def main() -> None:
    """Sweep, hide, judge and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--studies", type=int, default=60)
    parser.add_argument(
        "--work", type=Path, help="where the sweeps are kept; a temporary folder if not given"
    )
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    tables: dict[str, dict[str, dict[str, object]]] = {}
    earlier: list[tuple[int, float]] = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in SETS:
            truth = measured(name, options.data, options.work or Path(temporary))
            everything, asked = np.arange(truth.values.shape[1]), in_question(truth)
            ways = {
                "0": (agreeing, everything[: truth.values.shape[1] - ON_THE_LINE]),
                "50": (evenly(50), everything),
                "300": (evenly(300), everything),
                "judged_100": (judged(100, asked), asked),
                "judged_100_all": (judged(100), everything),
                "judged_300": (judged(300, asked), asked),
            }
            tables[name] = {
                way: studied(truth, study, options.studies, columns) for way, (study, columns) in ways.items()
            }
            clear = truth.clear
            share = np.mean([before(truth, rng)[clear] for rng in _seeds(options.studies)])
            earlier.append((int(clear.sum()), float(share)))
            print(name, tables[name], share, flush=True)
    figures: dict[str, object] = {
        f"decided_099_{way}": _mean(
            [(table[way]["clear"], table[way]["decided"]) for table in tables.values()]
        )
        for way in next(iter(tables.values()))
    }
    figures["decided_099_300_before"] = _mean(earlier)
    for grade in ("proven", "likely"):
        # By agreement alone nothing is claimed about labels.
        figures[f"false_{grade}"] = max(
            table[way][f"false keeps ({grade})"] for table in tables.values() for way in table if way != "0"
        )
    record("decide", figures | {"studies": options.studies, "keep": KEEP, "sets": tables}, options.save)


def _mean(parts: list[tuple[object, object]]) -> float:
    counts, shares = np.array(parts, dtype=float).T
    return round(float(np.average(shares, weights=counts)), 3)


if __name__ == "__main__":
    main()
