"""Charts of a dimension sweep: quality against dimension, and quality against what it costs.

Pure functions from a measurements frame to a Figure. Read no file, and know neither models nor indexes.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from toolkit.decide.dimension import keeps, keeps_alone, smallest_dim
from toolkit.decide.series import SERIES, exact_rows, focus, has, main_metric, reference, series_of
from toolkit.decide.wording import SETTING_COLUMNS, amount, series_label, setting_label, shorten, varying
from toolkit.measure.metrics import described
from toolkit.measure.noninferiority import KEEP, KEEPS
from toolkit.report.axes import cost_axis, dim_axis, share_axis
from toolkit.report.labels import label_points
from toolkit.report.pareto import pareto_front
from toolkit.report.style import (
    COLOURS,
    FAINT,
    INK,
    PAPER,
    Chart,
    colour_and_marker,
    heading,
    legend,
    new_chart,
    plain,
    styled,
)

_MOST_LINES = 8
_MOST_LABELS = 9
# Marker and filling of each verdict, so that neither needs colour.
_VERDICTS = {
    "keeps (proven)": ("o", COLOURS[0]),
    "keeps (likely)": ("D", COLOURS[0]),
    "undecided": ("o", PAPER),
    "loses": ("X", PAPER),
}
# A saving below this share of the cost is not worth a title, and for times may be noise.
_CLEARLY = 0.05


@styled
def quality_by_dimension(frame: pd.DataFrame, metric: str | None = None) -> Chart:
    """Quality of the exact search against the embedding dimension, one line per model and instruction.

    The band is the 95 % interval of the mean. The dashed line is 99 % of the best series' full dimension.
    """
    metric = metric or main_metric(frame)
    best = focus(frame, metric)
    verdict = smallest_dim(best, metric)
    chart = new_chart()
    axes = chart.add_subplot()
    parts = [column for column in varying(frame, SERIES) if len(frame[column].unique()) > 1]
    lines = series_of(frame)[:_MOST_LINES]
    for position, (_, rows) in enumerate(lines):
        line = exact_rows(rows)
        style = colour_and_marker(position)
        name = " · ".join(shorten(str(line[column].iloc[0]), 34) for column in parts)
        axes.fill_between(
            line["dim"],
            line[f"{metric}_lo"],
            line[f"{metric}_hi"],
            color=style["color"],
            alpha=0.15,
            linewidth=0,
        )
        axes.plot(line["dim"], line[metric], label=plain(name), markeredgecolor=PAPER, **style)
    threshold = KEEP * verdict.full[metric]
    axes.axhline(threshold, color=INK, linestyle=(0, (5, 3)), linewidth=1.2)
    dims = sorted(exact_rows(frame)["dim"].unique())
    dim_axis(axes.xaxis, dims)
    axes.set_xlabel("embedding dimension")
    axes.set_ylabel(described(metric).axis)
    axes.margins(x=0.04)
    axes.annotate(
        f"99 % of full: {threshold:.3f}",
        (0.0, threshold),
        xycoords=("axes fraction", "data"),
        xytext=(4, 4),
        textcoords="offset points",
        fontsize=11,
        va="bottom",
    )
    share_axis(axes, exact_rows(frame)[metric].max())
    if verdict.dim < verdict.full_dim:
        _mark_dim(
            axes, verdict.dim, verdict.row[metric], align="left" if verdict.dim == dims[0] else "center"
        )
    legend(axes, loc="lower right")
    heading(chart, verdict.finding, f"{series_label(best)} · bands: 95 % interval of the mean over queries")
    return chart


@styled
def kept_by_dimension(frame: pd.DataFrame, metric: str | None = None) -> Chart:
    """Share of the full dimension's quality at each dimension, with the interval of the paired difference.

    Pairing the queries takes out how hard each is, so these intervals are far narrower than the means'.
    """
    metric = metric or main_metric(frame)
    rows = focus(frame, metric)
    full = reference(rows, metric)
    line = exact_rows(rows)
    verdict = smallest_dim(rows, metric)
    percent = 100 / full[metric]
    kept = line[metric] * percent
    # The interval of the difference, moved to the share: the full dimension's mean is the unit.
    low = (kept - (full[metric] + line[f"{metric}_delta_lo"]) * percent).clip(lower=0)
    high = ((full[metric] + line[f"{metric}_delta_hi"]) * percent - kept).clip(lower=0)
    verdicts = _verdicts_alone(line, full, metric)

    chart = new_chart()
    axes = chart.add_subplot()
    axes.axhline(100 * KEEP, color=INK, linestyle=(0, (5, 3)), linewidth=1.2)
    axes.errorbar(
        line["dim"],
        kept,
        yerr=[low, high],
        color=COLOURS[0],
        marker="",
        linewidth=1.2,
        elinewidth=2,
        capsize=4,
    )
    for told, (marker, face) in _VERDICTS.items():
        mask = verdicts == told
        if mask.any():
            axes.plot(
                line["dim"][mask],
                kept[mask],
                marker,
                color=COLOURS[0],
                markerfacecolor=face,
                markeredgewidth=1.8,
                markersize=9,
                label=told,
                zorder=4,
            )
    dim_axis(axes.xaxis, line["dim"])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    axes.set_xlabel("embedding dimension")
    axes.set_ylabel(f"{described(metric).label} kept (% of full)")
    axes.annotate(
        "99 % of full",
        (0.0, 99),
        xycoords=("axes fraction", "data"),
        xytext=(4, 4),
        textcoords="offset points",
        fontsize=11,
        va="bottom",
    )
    legend(axes, loc="lower right")
    heading(
        chart,
        verdict.finding,
        f"{series_label(rows)} · bars: 95 % interval of the paired difference to full; each dimension tested alone",
    )
    return chart


def _verdicts_alone(line: pd.DataFrame, full: pd.Series, metric: str) -> pd.Series:
    """What is said of each dimension tested alone; of a frame without per-query values, what its intervals say."""
    if has(line, "verdict_alone"):
        told = line["verdict_alone"].where(line["verdict_alone"].isin(list(_VERDICTS)), KEEPS[0])
    else:
        told = pd.Series("undecided", index=line.index)
        told[line[f"{metric}_delta_hi"] < -(1 - KEEP) * full[metric]] = "loses"
        told[keeps_alone(line, full, metric)] = KEEPS[1]
    told[full.name] = KEEPS[0]
    return told


@styled
def tradeoff(frame: pd.DataFrame, cost: str, metric: str | None = None) -> Chart:
    """Quality against a cost (``p95_ms``, ``bytes_per_vector`` ..), the Pareto front marked and labelled.

    Shows the best series of the frame, without what has less than half of the full quality. Colour and
    marker are the index, or the precision if there is one index only.
    """
    metric = metric or main_metric(frame)
    measured = focus(frame, metric)
    full = reference(measured, metric)
    rows = measured[(measured[metric] >= full[metric] / 2) & measured[cost].notna()]
    front = rows[pareto_front(rows, cost, metric)].sort_values(cost, kind="stable")
    parts = varying(rows, SETTING_COLUMNS)
    group = next((column for column in ("index", "precision") if column in parts), None)
    groups = [("", rows)] if group is None else list(rows.groupby(group, sort=False))
    styles = {name: colour_and_marker(position) for position, (name, _) in enumerate(groups)}

    chart = new_chart(8.0 if group is None else 10.0, 5.2)
    axes = chart.add_subplot()
    cost_axis(axes.xaxis, rows[cost], described(cost).unit)
    axes.step(front[cost], front[metric], where="post", color=FAINT, linewidth=1.4, zorder=1)
    for name, members in groups:
        colour, marker = styles[name]["color"], styles[name]["marker"]
        best = members.index.isin(front.index)
        rest, top = members[~best], members[best]
        axes.scatter(
            rest[cost], rest[metric], s=34, alpha=0.4, linewidth=0, c=colour, marker=marker, zorder=2
        )
        axes.scatter(top[cost], top[metric], s=80, c=colour, marker=marker, edgecolor=INK, zorder=3)
        axes.plot([], [], linestyle="", label=plain(shorten(str(name), 24)), **styles[name])
    axes.set_xlabel(described(cost).axis)
    axes.set_ylabel(described(metric).axis)
    axes.margins(x=0.08, y=0.08)
    share_axis(axes, rows[metric].max())
    legend(axes, loc="lower right")
    dropped = len(measured) - len(rows)
    heading(
        chart,
        _tradeoff_finding(rows, full, cost, metric, parts),
        f"{series_label(rows)} · outlined: no other setting is better in both"
        + (f" · {dropped} below half of the full quality not shown" if dropped else "")
        + (
            " · vectors for rescoring not counted"
            if "bytes" in cost and (rows["rescore"] != "").any()
            else ""
        ),
    )
    if group is None:
        named = pd.concat([front, rows.drop(front.index)])
        names = [setting_label(row, parts) for _, row in named.iterrows()]
    else:
        named = _spread(front)
        names = [str(position) for position in range(1, len(named) + 1)]
        _key(chart, named, parts, styles, group)
    label_points(
        axes,
        list(zip(named[cost], named[metric], strict=True)),
        names,
        avoid=list(zip(front[cost], front[metric], strict=True)),
        fontsize=11,
    )
    return chart


def _key(
    chart: Chart, named: pd.DataFrame, parts: list[str], styles: dict[object, dict[str, str]], group: str
) -> None:
    """The numbered settings of the front, beside the axes."""
    handles = [
        Line2D([], [], linestyle="", markeredgecolor=INK, **styles[row[group]]) for _, row in named.iterrows()
    ]
    texts = [
        plain(f"{position}  {setting_label(row, parts)}")
        for position, (_, row) in enumerate(named.iterrows(), start=1)
    ]
    chart.legend(
        handles,
        texts,
        loc="outside right center",
        title="on the front",
        alignment="left",
        fontsize=10,
        title_fontsize=11,
        labelspacing=0.7,
        handletextpad=0.3,
    )


def _mark_dim(axes: Axes, dim: int, value: float, *, align: str) -> None:
    axes.plot(
        [dim, dim], [0, value], color=FAINT, linewidth=1.2, linestyle=(0, (1, 2)), scaley=False, zorder=1
    )
    axes.annotate(
        f"{dim} dimensions: {value:.3f}",
        (dim, value),
        xytext=(0, 14),
        textcoords="offset points",
        ha=align,
        fontsize=11,
        fontweight="bold",
    )


def _spread(front: pd.DataFrame) -> pd.DataFrame:
    """At most so many of the front's settings as a key can name, evenly, both ends among them."""
    places = np.linspace(0, len(front) - 1, min(_MOST_LABELS, len(front))).round().astype(int)
    return front.iloc[places]


def _less(cost: str) -> str:
    return "faster" if cost.endswith("_ms") else "smaller" if "bytes" in cost else "cheaper"


def _tradeoff_finding(rows: pd.DataFrame, full: pd.Series, cost: str, metric: str, parts: list[str]) -> str:
    what = described(metric).label
    passed = rows[keeps(rows, full, metric)]
    cheapest = passed.sort_values(cost, kind="stable").iloc[0]
    if not cheapest[cost] < (1 - _CLEARLY) * full[cost]:
        return f"No {_less(cost)} setting is proven or likely to keep 99 % of {what}"
    less, all_of_it = (amount(row[cost], described(cost)) for row in (cheapest, full))
    return f"{setting_label(cheapest, parts)} keeps 99 % of {what} at {less} instead of {all_of_it}"
