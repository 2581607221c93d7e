"""The words of every chart and table: figures, units, settings. Knows no matplotlib and no HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from toolkit.measure.metrics import Metric

SETTING_COLUMNS = ("dim", "precision", "index", "build_args", "search_args", "rescore", "instruction")


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


def amount(value: float, of: Metric) -> str:
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
