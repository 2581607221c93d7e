"""Bytes, latency and cost of every measured setting at the corpus size one plans for.

Knows nothing of quality and chooses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from toolkit.decide.cost import MIN_SIZES, Footprint, Prices, extrapolate, monthly_cost
from toolkit.decide.recommendation import Constraints
from toolkit.experiment.setting import Setting
from toolkit.experiment.work import Work, bytes_added

if TYPE_CHECKING:
    import pandas as pd


def priced(
    measured: pd.DataFrame,
    demand: Constraints,
    prices: Prices,
    scaling: pd.DataFrame | None,
    documents: int,
    k: int,
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Bytes, latency and cost at the corpus size asked for, cheapest first, and what to know about them."""
    size = demand.corpus_size or documents
    sized = dict(list(scaling.groupby("setting", observed=True))) if scaling is not None else {}
    rows = [
        at_size(row, sized.get(row["setting"]), size=size, documents=documents, k=k)
        for row in measured.to_dict("records")
    ]
    timed = all(row.qps is not None for row in rows)
    notes = []
    if any(not row.bytes_exact for row in rows):
        notes.append(
            f"bytes per vector are those at {documents:,} documents, codebooks and centroids included, so "
            f"indexes that have them come out too large at {size:,}; a second timed size tells them apart"
        )
    if not timed:
        notes.append(
            f"latency was measured at {documents:,} documents and is not known at {size:,}: computing is "
            "left out of the cost, and a limit on p95 is held against the measured one; "
            f"time {MIN_SIZES} corpus sizes or more to extrapolate"
        )
    if any(row.run_as != key for row, key in zip(rows, measured["setting"], strict=True)):
        notes.append(
            f"lists, probes and graph width follow the corpus (run_as): quality was measured at {documents:,} "
            "documents with the setting named; toolkit scale-test measures recall, latency and memory at that size"
        )
    table = measured.copy()
    table["cost"] = [
        monthly_cost(row.memory_bytes, row.disk_bytes, row.qps if timed else None, prices) for row in rows
    ]
    table["run_as"] = [row.run_as for row in rows]
    table["usd_per_month"] = [cost.usd for cost in table["cost"]]
    table["bytes_per_vector"] = [row.memory_bytes / size for row in rows]
    table["p95_ms"] = [row.p95_ms for row in rows]
    table["latency"] = [row.latency for row in rows]
    order = ["usd_per_month", "p95_ms", "setting"]
    return table.sort_values(order, kind="stable", ignore_index=True), tuple(notes)


@dataclass(frozen=True)
class AtSize:
    """A setting at the corpus size asked for; qps of one thread, None where it is not known.

    run_as : key of the setting one would run there: lists, probes and graph width follow the corpus.
    """

    run_as: str
    memory_bytes: float
    disk_bytes: float
    bytes_exact: bool
    p95_ms: float
    qps: float | None
    latency: str


def at_size(
    row: Mapping[str, Any], sizes: pd.DataFrame | None, *, size: int, documents: int, k: int
) -> AtSize:
    """One setting at `size` documents: `sizes` are its rows of the scaling table, `documents` the measured corpus.

    Bytes and times are those of the setting one would run there, from what a comparison took in the measured one.
    """
    rate = "qps_1_thread" if "qps_1_thread" in row else "qps"
    # Whatever a setting holds beside its index, such as the vectors of a second stage, grows with the corpus.
    beside = row["bytes_per_vector"] - row["index_bytes"] / documents
    disk_bytes = row.get("disk_bytes_per_vector", 0.0) * size
    setting = Setting.from_columns({**row, "rescore": ""})
    work = Work.of_row(row, k=k)
    grown = work.at(size, measured=documents)
    run_as = _renamed(row["setting"], setting, grown.setting)
    added_bytes = bytes_added(setting, grown.setting, size)
    unknown = f"measured at {documents:,} documents"
    if size == documents or sizes is None:
        memory_bytes = row["bytes_per_vector"] * size + added_bytes
        known = size == documents
        qps = row[rate] if known else None
        return AtSize(run_as, memory_bytes, disk_bytes, known, row["p95_ms"], qps, unknown)
    footprint = Footprint.through(sizes["documents"], sizes["index_bytes"])
    memory_bytes = footprint.bytes_at(size) + beside * size + added_bytes
    fit = extrapolate(sizes["documents"], sizes["p95_ms"], work=work, per_s=1e3)
    pace = extrapolate(sizes["documents"], 1.0 / sizes[rate], work=work, per_s=1.0)
    if fit is None or pace is None or len(fit.sizes) < MIN_SIZES:
        return AtSize(run_as, memory_bytes, disk_bytes, len(sizes) > 1, row["p95_ms"], None, unknown)
    low, high = fit.sizes[0], fit.sizes[-1]
    source = (
        f"extrapolated{'' if fit.fitted else ' (at most)'} from {len(fit.sizes)} sizes, "
        f"{low:,}..{high:,} documents, to {size / high:,.1f} times the largest"
    )
    p95_ms, qps = fit.at(size, work=grown), 1.0 / pace.at(size, work=grown)
    return AtSize(run_as, memory_bytes, disk_bytes, True, p95_ms, qps, source)


def _renamed(key: str, measured: Setting, grown: Setting) -> str:
    """A setting's key with the index and search arguments of another size, later stages and instruction kept."""
    if grown == measured:
        return key
    there = Setting.parse(key)
    return replace(there, index=grown.index, search_args=grown.search_args).key
