"""The words of every chart and table: measures, units, settings. Knows no matplotlib and no HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

SETTING_COLUMNS = ("dim", "precision", "index", "build_args", "search_args", "rescore", "instruction")


@dataclass(frozen=True)
class Quantity:
    """A measured column: how it is called, its unit, which way is better, and what it means."""

    column: str
    label: str
    unit: str
    maximise: bool
    meaning: str

    @property
    def axis(self) -> str:
        """Label for an axis, with the unit."""
        return f"{self.label} ({self.unit})"


def _quality(column: str, label: str, meaning: str) -> Quantity:
    return Quantity(column, label, "0 to 1", True, meaning)


QUALITIES = (
    _quality(
        "ndcg@10",
        "nDCG@10",
        "Gain of the first 10 documents, discounted by rank (1/log2(rank+1)), divided by the best possible.",
    ),
    _quality("recall@1", "recall@1", "Share of a query's relevant documents found at rank 1."),
    _quality("recall@10", "recall@10", "Share of a query's relevant documents among the first 10."),
    _quality("recall@100", "recall@100", "Share of a query's relevant documents among the first 100."),
    _quality("mrr@10", "MRR@10", "1/rank of the first relevant document, 0 if it is not among the first 10."),
    _quality("map", "MAP", "Mean over queries of the precision at each relevant document's rank, averaged."),
    _quality("spearman", "Spearman correlation", "Rank correlation of cosine similarity with human scores."),
    _quality("accuracy", "accuracy", "Share of texts whose nearest candidate is their translation."),
    _quality(
        "overlap@10",
        "overlap@10",
        "Share of the 10 neighbours that the exact search at the full dimension finds as well.",
    ),
)
COSTS = (
    Quantity(
        "p50_ms",
        "median latency, one query at a time",
        "ms",
        False,
        "Half of the single queries took at most this.",
    ),
    Quantity(
        "p95_ms",
        "p95 latency, one query at a time",
        "ms",
        False,
        "95 % of the single queries took at most this.",
    ),
    Quantity(
        "p99_ms",
        "p99 latency, one query at a time",
        "ms",
        False,
        "99 % of the single queries took at most this.",
    ),
    Quantity(
        "qps",
        "throughput, batched",
        "queries/s",
        True,
        "Queries answered in a second when given all at once.",
    ),
    Quantity("build_s", "index build time", "s", False, "Time to train the index and add all vectors."),
    Quantity("index_bytes", "index size", "bytes", False, "Size of the serialized index."),
    Quantity(
        "bytes_per_vector",
        "index bytes per vector",
        "bytes",
        False,
        "Index size divided by the number of documents; vectors kept for rescoring come on top.",
    ),
    Quantity(
        "gb_per_million", "storage", "GB per million vectors", False, "bytes per vector x 1,000,000 / 10^9."
    ),
    Quantity(
        "usd_per_month", "cost", "USD per month", False, "Monthly cost at the stated prices and corpus size."
    ),
)
_BY_COLUMN = {quantity.column: quantity for quantity in (*QUALITIES, *COSTS)}


def quantity(column: str) -> Quantity:
    """What is known of a column; an unknown one goes by its own name."""
    return _BY_COLUMN.get(column) or _quality(column, column, "")


def has(frame: pd.DataFrame, column: str) -> bool:
    """Whether a column is there with at least one value."""
    return column in frame.columns and bool(frame[column].notna().any())


def number(value: float, digits: int = 3) -> str:
    """A figure for reading: ``digits`` significant ones, thousands separated, an en dash for none."""
    if pd.isna(value):
        return "–"
    if value and abs(value) < 1:
        return f"{value:.{digits}g}"
    if abs(value) < 10 ** (digits - 1):
        return f"{value:.{digits}g}"
    return f"{value:,.0f}"


def bytes_text(value: float) -> str:
    """A number of bytes in the largest binary unit that keeps it readable."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024 or unit == "GiB":
            return f"{number(value)} {unit}"
        value /= 1024
    return ""


def amount(value: float, of: Quantity) -> str:
    """A figure with its unit."""
    return bytes_text(value) if of.unit == "bytes" else f"{number(value)} {of.unit}"


def signed(value: float) -> str:
    """A difference with its sign, three decimals."""
    rounded = round(value, 3) + 0.0  # turns -0.0 into 0.0
    return "–" if pd.isna(value) else f"{rounded:+.3f}" if rounded else "0.000"


def shorten(text: str, width: int = 44) -> str:
    """At most `width` characters on one line, an ellipsis for the rest."""
    line = " ".join(str(text).split())
    return line if len(line) <= width else line[: width - 1].rstrip() + "…"


def setting_label(row: Mapping[str, object], varying: Sequence[str]) -> str:
    """A setting by those of its parts that vary: ``128 · int8 · HNSW32 · efSearch=64``."""
    parts = []
    for column in varying:
        value = row[column]
        if value is None or value == "" or pd.isna(value):
            continue
        if column == "dim":
            value = f"{value:d}"
        elif column == "rescore":
            value = f"rescored {value}"
        parts.append(shorten(str(value), 24))
    return " · ".join(parts)


def varying(frame: pd.DataFrame, columns: Sequence[str] = SETTING_COLUMNS) -> list[str]:
    """The columns that take more than one value; the dimension always counts."""
    return [c for c in columns if c in frame and (c == "dim" or len(frame[c].unique()) > 1)]
