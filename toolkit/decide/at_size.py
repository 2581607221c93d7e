"""Bytes, latency and cost of every measured setting at the corpus size one plans for.

Knows nothing of quality and chooses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from toolkit.decide.cost import MIN_SIZES, Extrapolation, Footprint, Prices, extrapolate, monthly_cost
from toolkit.experiment.setting import Setting
from toolkit.experiment.work import Work, bytes_added

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Pricing:
    """Every measured setting, ready to be priced at any corpus size.

    documents : the measured corpus.
    """

    measured: pd.DataFrame
    prices: Prices
    settings: tuple[SizedSetting, ...]
    documents: int

    @classmethod
    def of(
        cls, measured: pd.DataFrame, prices: Prices, scaling: pd.DataFrame | None, documents: int, k: int
    ) -> Pricing:
        """scaling : times and sizes at smaller corpora, if there are; k : neighbours that the sweep asked for."""
        sized = dict(list(scaling.groupby("setting", observed=True))) if scaling is not None else {}
        settings = tuple(
            SizedSetting(row, sized.get(row["setting"]), documents, k) for row in measured.to_dict("records")
        )
        return cls(measured, prices, settings, documents)

    def at(self, size: int) -> tuple[pd.DataFrame, tuple[str, ...]]:
        """Bytes, latency and cost with so many documents, cheapest first, and what to know about them."""
        documents, measured = self.documents, self.measured
        rows = [setting.at(size) for setting in self.settings]
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
            monthly_cost(row.memory_bytes, row.disk_bytes, row.qps if timed else None, self.prices)
            for row in rows
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


@dataclass(frozen=True, eq=False)
class SizedSetting:
    """One measured setting at any corpus size.

    row : its measurements. sizes : its rows of the scaling table, None if there are none. documents : the measured
    corpus. k : neighbours that the sweep asked for.
    """

    row: Mapping[str, Any]
    sizes: pd.DataFrame | None
    documents: int
    k: int

    def at(self, size: int) -> AtSize:
        """Bytes and times of the setting one would run there, from what a comparison took in the measured corpus."""
        row, documents = self.row, self.documents
        # Whatever a setting holds beside its index, such as the vectors of a second stage, grows with the corpus.
        beside = row["bytes_per_vector"] - row["index_bytes"] / documents
        disk_bytes = row.get("disk_bytes_per_vector", 0.0) * size
        setting = self._setting
        grown = self._work.at(size, measured=documents)
        run_as = _renamed(row["setting"], setting, grown.setting)
        added_bytes = bytes_added(setting, grown.setting, size)
        unknown = f"measured at {documents:,} documents"
        if size == documents or self.sizes is None:
            memory_bytes = row["bytes_per_vector"] * size + added_bytes
            known = size == documents
            qps = row[self._rate] if known else None
            return AtSize(run_as, memory_bytes, disk_bytes, known, row["p95_ms"], qps, unknown)
        footprint = Footprint.through(self.sizes["documents"], self.sizes["index_bytes"])
        memory_bytes = footprint.bytes_at(size) + beside * size + added_bytes
        fit, pace = self._fits
        if fit is None or pace is None or len(fit.sizes) < MIN_SIZES:
            several = len(self.sizes) > 1
            return AtSize(run_as, memory_bytes, disk_bytes, several, row["p95_ms"], None, unknown)
        low, high = fit.sizes[0], fit.sizes[-1]
        source = (
            f"extrapolated{'' if fit.fitted else ' (at most)'} from {len(fit.sizes)} sizes, "
            f"{low:,}..{high:,} documents, to {size / high:,.1f} times the largest"
        )
        p95_ms, qps = fit.at(size, work=grown), 1.0 / pace.at(size, work=grown)
        return AtSize(run_as, memory_bytes, disk_bytes, True, p95_ms, qps, source)

    @property
    def _rate(self) -> str:
        return "qps_1_thread" if "qps_1_thread" in self.row else "qps"

    @cached_property
    def _setting(self) -> Setting:
        return Setting.from_columns({**self.row, "rescore": ""})

    @cached_property
    def _work(self) -> Work:
        return Work.of_row(self.row, k=self.k)

    @cached_property
    def _fits(self) -> tuple[Extrapolation | None, Extrapolation | None]:
        """How p95 in ms and seconds per query grow."""
        sizes, work = self.sizes, self._work
        fit = extrapolate(sizes["documents"], sizes["p95_ms"], work=work, per_s=1e3)
        return fit, extrapolate(sizes["documents"], 1.0 / sizes[self._rate], work=work, per_s=1.0)


def _renamed(key: str, measured: Setting, grown: Setting) -> str:
    """A setting's key with the index and search arguments of another size, later stages and instruction kept."""
    if grown == measured:
        return key
    there = Setting.parse(key)
    return replace(there, index=grown.index, search_args=grown.search_args).key
