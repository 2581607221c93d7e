"""How findings read: figures with their units, settings, the headline; a recommendation is in advice.py.

Reports, notebooks and the command line show these sentences. Knows no matplotlib, no HTML and no file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from toolkit.measure.metrics import Metric, described

if TYPE_CHECKING:
    from toolkit.decide.dimension import ShortestDimension

SETTING_COLUMNS = ("dim", "precision", "index", "build_args", "search_args", "rescore", "instruction")
_SMALLEST_USD = 0.0001


# --- figures -------------------------------------------------------------------------------------


def number(value: float, digits: int = 3) -> str:
    """A figure for reading: ``digits`` significant ones, thousands separated, an en dash for none."""
    if pd.isna(value):
        return "–"
    if abs(value) < 10 ** (digits - 1):
        return np.format_float_positional(float(value), precision=digits, fractional=False, trim="-")
    return f"{value:,.0f}"


def bytes_text(value: float) -> str:
    """A number of bytes in the largest binary unit that keeps it readable."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024 or unit == "GiB":
            return f"{number(value)} {unit}"
        value /= 1024
    return ""


def seconds_text(value: float) -> str:
    """A duration in the unit that reads best: ``92 µs``, ``35 ms``, ``1.2 s``."""
    if pd.isna(value):
        return "–"
    for scale, unit in ((1.0, "s"), (1e-3, "ms")):
        if value >= scale:
            return f"{number(value / scale)} {unit}"
    return f"{number(value / 1e-6)} µs"


def usd_text(value: float) -> str:
    """An amount of money; one below a cent keeps two significant digits, so that it is never 0.00."""
    if pd.isna(value):
        return "–"
    if value >= 1:
        return f"USD {value:,.2f}"
    if 0 < value < _SMALLEST_USD:
        return f"less than USD {_SMALLEST_USD:.4f}"
    return f"USD {number(value, 2)}"


def amount(value: float, of: Metric) -> str:
    """A figure with its unit."""
    if of.unit == "bytes":
        return bytes_text(value)
    if of.unit == "s":
        return seconds_text(value)
    if of.name == "usd_per_month":
        return f"{usd_text(value)} per month"
    return f"{number(value)} {of.unit}"


def cell_text(value: float, of: Metric) -> str:
    """A figure for a column whose head names the unit, unless the unit changes from row to row."""
    if of.unit == "s":
        return seconds_text(value)
    return usd_text(value).replace("USD ", "") if of.name == "usd_per_month" else number(value)


def signed(value: float) -> str:
    """A difference with its sign, three decimals."""
    rounded = round(value, 3) + 0.0  # turns -0.0 into 0.0
    return "–" if pd.isna(value) else f"{rounded:+.3f}" if rounded else "0.000"


def percent(share: float) -> str:
    """A share as a percentage, never rounded up to a claim it does not meet."""
    return "–" if pd.isna(share) else f"{int(share * 1000 + 1e-9) / 10:g} %"


def shorten(text: str, width: int = 44) -> str:
    """At most `width` characters on one line, an ellipsis for the rest."""
    line = " ".join(str(text).split())
    return line if len(line) <= width else line[: width - 1].rstrip() + "…"


# --- settings ------------------------------------------------------------------------------------


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


def series_label(frame: pd.DataFrame) -> str:
    """Data set, model and instruction of a frame with one series, for a subtitle."""
    first = frame.iloc[0]
    parts = [shorten(str(first[column])) for column in ("model", "dataset") if column in frame]
    if "instruction" in frame and first["instruction"] not in ("default", "none", "", None):
        parts.append(f"instruction: {shorten(str(first['instruction']))}")
    return " · ".join(parts)


def instruction_text(label: str) -> str:
    """An instruction's label in a sentence."""
    return {"default": "the default instruction", "none": "no instruction"}.get(
        label, f"the instruction {shorten(label, 60)!r}"
    )


def saving(dim: int, full_dim: int) -> str:
    """``half``, ``a quarter of``, ``38 % of``: how float32 storage shrinks."""
    words = {Fraction(1, 2): "half", Fraction(1, 4): "a quarter of", Fraction(3, 4): "three quarters of"}
    return words.get(Fraction(dim, full_dim), f"{number(100 * dim / full_dim, 2)} % of")


# --- the shortest dimension ----------------------------------------------------------------------


def dimension_finding(found: ShortestDimension) -> str:
    """For a chart's title, without figures."""
    label = described(found.metric).label
    what = f"{percent(found.keep)} of {label}"
    if found.nothing_to_keep:
        return f"{label} is not above 0 at the full {found.full_dim} dimensions: there is nothing to keep"
    if found.dim == found.full_dim:
        if found.next_shorter is not None and found.may_keep(found.next_shorter):
            return f"No dimension below {found.full_dim} is proven or likely to keep {what}"
        return f"Only the full {found.full_dim} dimensions keep {what}"
    if found.certain:
        verb = "keep" if found.grade == "proven" else "are likely to keep"
        return f"{found.dim} of {found.full_dim} dimensions {verb} {what}"
    return f"{found.dim} of {found.full_dim} dimensions may keep {what}"


def dimension_sentence(found: ShortestDimension) -> str:
    """The finding with its figures, its interval, what it saves, and the instruction it holds for."""
    told = dimension_finding(found)
    if found.nothing_to_keep:
        return (
            f"{told} ({found.full[found.metric]:.3f}); check that the judgements belong to these "
            "texts, and that the model knows their language"
        )
    if found.dim == found.full_dim:
        if found.next_shorter is None:
            told += f" ({found.full[found.metric]:.3f}); no shorter one was measured"
        else:
            told += f"; {found.next_shorter['dim']} reach {_figures(found, found.next_shorter)}"
    else:
        unsure = "" if found.certain else "; by the mean alone: more queries are needed to be sure"
        told += f" ({_figures(found, found.row)}) at {saving(found.dim, found.full_dim)} the bytes{unsure}"
    return told + _instruction_clause(found)


def _figures(found: ShortestDimension, row: pd.Series) -> str:
    metric = found.metric
    values = f"{row[metric]:.3f} of {found.full[metric]:.3f}"
    if pd.isna(row.get(f"{metric}_delta_lo", np.nan)):
        return values
    low, high = signed(row[f"{metric}_delta_lo"]), signed(row[f"{metric}_delta_hi"])
    return f"{values}, 95 % interval of the difference {low}..{high}"


def _instruction_clause(found: ShortestDimension) -> str:
    """Which instruction that was, and what the others reach at the full dimension."""
    if not found.other_instructions:
        return ""
    others = ", ".join(f"{instruction_text(label)} {value:.3f}" for label, value in found.other_instructions)
    best = instruction_text(str(found.full["instruction"]))
    return (
        f"; with {best}, the best of {len(found.other_instructions) + 1} "
        f"({found.full[found.metric]:.3f} at the full dimension; {others})"
    )
