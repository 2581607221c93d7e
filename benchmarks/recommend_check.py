"""What `recommend` says of a results folder, beside a search through every setting by brute force.

The brute force looks at every setting in plain loops: none that meets the limits and is proven to keep the
quality may be cheaper than the one recommended. It checks the choosing only: prices and the test of
quality are the package's own on both sides. A check, not a timing.

    python benchmarks/recommend_check.py results/grid-minilm-scifact [..more folders] [--save]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from _record import record

from toolkit.decide.queries import queries_of
from toolkit.decide.recommend import recommend
from toolkit.decide.recommendation import Recommendation
from toolkit.experiment.results import Results

DEMANDS = (
    {"keep": 0.95},
    {"keep": 0.97, "max_p95_ms": 0.5},
    {"keep": 0.95, "max_bytes_per_vector": 300.0, "corpus_size": 10_000_000},
)


def cheapest_by_brute_force(results: Results, found: Recommendation) -> str | None:
    """The cheapest setting within the limits that is proven or likely to keep the quality; None if there is none."""
    table, demand = found.table, found.demand
    values = results.per_query.pivot(index="query_id", columns="setting", values=demand.metric)
    allowed = []
    for _, row in table.iterrows():
        if demand.max_bytes_per_vector is not None and row["bytes_per_vector"] > demand.max_bytes_per_vector:
            continue
        if demand.max_p95_ms is not None and not row["p95_ms"] <= demand.max_p95_ms:
            continue
        allowed.append((float(row["usd_per_month"]), float(row["p95_ms"]), row["setting"]))
    full = found.reference.setting
    # All settings but the reference are tested together, whatever the limits.
    family = [setting for setting in table["setting"] if setting != full]
    tested = queries_of(results, demand.metric, full, values).tested(demand.keep)
    keeping = {setting for setting in family if tested[setting].keeps}
    return min((key for key in allowed if key[2] in keeping | {full}), default=(None,))[-1]


def main() -> None:
    """Ask, check and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    figures: dict[str, object] = {}
    for folder in options.folders:
        results = Results.load(folder)
        for demand in DEMANDS:
            found = recommend(results, **demand)
            chosen = found.advised.setting if found.advised else None
            figures[f"{folder.name} {demand}"] = {
                "recommended": chosen,
                "brute_force": cheapest_by_brute_force(results, found),
                "says": str(found).splitlines(),
            }
            print(found, end="\n\n", flush=True)
    figures["all_agree"] = all(one["recommended"] == one["brute_force"] for one in figures.values())
    record("recommend_check", figures, options.save)


if __name__ == "__main__":
    main()
