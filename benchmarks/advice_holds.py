"""Whether advice from one half of the judgements holds on the other half.

The settings of a recorded grid are measured on a set's ``test`` judgements, with the queries of the other split as
queries without judgements, and recommended from. Then the same settings are measured on the ``train`` judgements: of
those called ``keeps``, how much does each keep there? No figure here is a timing.

    python benchmarks/advice_holds.py [--plan PLAN.toml] [--keep 0.99] [--index Flat ..] [--save]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from _record import ROOT, record

from toolkit.decide.recommend import recommend
from toolkit.experiment.plan import read_plan
from toolkit.experiment.results import Results
from toolkit.experiment.sweep import run_sweep
from toolkit.measure.statistics import paired_differences

GRID = ROOT / "results" / "grid-minilm-scifact" / "plan.toml"
QUICK = {"queries": 20, "rounds": 1, "threads": [1]}


def swept(plan: Path, split: str, folder: Path, unlabelled: int, indexes: list[str] | None) -> Results:
    """The plan's settings on one split's judgements; a finished sweep in `folder` is opened."""
    asked = read_plan(plan)
    fields = asked.model_dump(exclude_unset=True)
    fields |= {"data": f"{asked.data.split('@')[0]}@{split}", "timing": QUICK, "max_unlabelled": unlabelled}
    if indexes:
        fields["indexes"] = indexes
    return run_sweep(type(asked)(**fields), out=folder / split)


def kept_there(results: Results, metric: str, setting: str, reference: str) -> tuple[float, float, float]:
    """The share that a setting keeps on a split, and its 95 % interval (a bootstrap of the paired difference)."""
    wide = results.per_query.astype({"setting": str}).pivot(
        index="query_id", columns="setting", values=metric
    )
    full = wide[reference].mean()
    [found] = paired_differences(wide[[setting]].to_numpy(), wide[reference].to_numpy())
    return 1 + found.difference / full, 1 + found.low / full, 1 + found.high / full


def main() -> None:
    """Sweep both splits, recommend from one, look at the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--plan", type=Path, default=GRID)
    parser.add_argument("--keep", type=float, default=0.99)
    parser.add_argument(
        "--index", action="append", help="measure these of the plan's indexes alone; repeatable"
    )
    parser.add_argument("--work", type=Path, help="where the two sweeps lie, to go on from")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.work or Path(temporary)
        test = swept(options.plan, "test", folder, 2_000, options.index)
        train = swept(options.plan, "train", folder, 0, options.index)
        found = recommend(test, keep=options.keep)
        advised = found.advised or found.reference
        metric, reference = found.demand.metric, found.reference.setting
        kept, low, high = kept_there(train, metric, advised.setting, reference)
        keeps = found.table.loc[found.table["verdict"].str.startswith("keeps"), ["setting", "verdict"]]
        shares = {key: float(kept_there(train, metric, key, reference)[0]) for key in keeps["setting"]}
        print(found)
    figures = {
        "keep": options.keep,
        "metric": metric,
        "labelled": found.labelled,
        "unlabelled": found.unlabelled,
        "settings": len(found.table),
        "advised": advised.setting,
        "verdict": advised.verdict,
        "kept": float(advised.retained),
        "kept_on_train": float(kept),
        "kept_on_train_95": [float(low), float(high)],
        "train_queries": int(train.per_query["query_id"].nunique()),
        "called_proven": int((keeps["verdict"] == "keeps (proven)").sum()),
        "called_likely": int((keeps["verdict"] == "keeps (likely)").sum()),
        "of_those_kept_on_train": sum(share >= options.keep for share in shares.values()),
        "lowest_of_those_on_train": min(shares.values(), default=None),
    }
    record("advice_holds", figures, options.save)


if __name__ == "__main__":
    main()
