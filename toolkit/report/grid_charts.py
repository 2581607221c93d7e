"""Charts of the whole grid: dimension x precision, and an index's recall against its throughput.

Pure functions from a measurements frame to a Figure, beside those of a plain dimension sweep.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from toolkit.decide.dimension import keeps
from toolkit.decide.series import focus, main_metric, reference
from toolkit.decide.wording import bytes_text, number, percent, series_label, shorten
from toolkit.errors import ResultsError
from toolkit.measure.metrics import described
from toolkit.measure.noninferiority import KEEP
from toolkit.report.axes import cost_axis
from toolkit.report.style import (
    INK,
    PAPER,
    Chart,
    colour_and_marker,
    heading,
    new_chart,
    plain,
    styled,
    text_on,
)

_PRECISIONS = ("float32", "float16", "bfloat16", "int8", "uint4", "pq", "binary")
_MOST_PANELS = 3


@styled
def precision_heat_map(frame: pd.DataFrame, metric: str | None = None) -> Chart:
    """Share of the full quality at each dimension x precision of the exhaustive search.

    Each second stage has a panel of its own. Outlined cells keep 99 % with 95 % confidence, all settings
    tested together where the frame has their verdicts.
    """
    metric = metric or main_metric(frame)
    rows = focus(frame, metric)
    full = reference(rows, metric)
    flat = rows[rows["index"] == "Flat"]
    stages = list(dict.fromkeys(sorted(flat["rescore"], key=len)))[:_MOST_PANELS]
    precisions = sorted(flat["precision"].unique(), key=_precision_order)
    dims = sorted(flat["dim"].unique())
    passed = keeps(flat, full, metric)
    kept = 100 * flat[metric] / full[metric]
    colours, scale = colormaps["cividis"], Normalize(max(0.0, min(kept.min(), 90.0)), 100.0)

    chart = new_chart(
        1.2 + max(6.8, 0.95 * len(dims)), 1.7 + 0.5 * len(precisions) * len(stages) + 0.4 * len(stages)
    )
    grid = chart.subplots(len(stages), 1, sharex=True, squeeze=False)[:, 0]
    for axes, stage in zip(grid, stages, strict=True):
        here = flat[flat["rescore"] == stage]
        shown = [p for p in precisions if (here["precision"] == p).any()]
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.set_xlim(-0.5, len(dims) - 0.5)
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_xticks(range(len(dims)), dims)
        axes.set_yticks(range(len(shown)), shown)
        axes.tick_params(length=0)
        axes.set_ylabel(plain(f"rescored {stage}") if stage else ("one stage" if len(stages) > 1 else ""))
        for index, row in here.iterrows():
            x, y = dims.index(row["dim"]), shown.index(row["precision"])
            if pd.isna(kept[index]):
                continue
            fill = colours(scale(kept[index]))
            axes.add_patch(
                Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=fill, edgecolor=PAPER, linewidth=1.5)
            )
            sure = bool(passed[index])
            if sure:
                axes.add_patch(
                    Rectangle(
                        (x - 0.43, y - 0.4), 0.86, 0.8, fill=False, edgecolor=text_on(fill), linewidth=2
                    )
                )
            axes.text(
                x,
                y,
                f"{kept[index]:.1f}",
                ha="center",
                va="center",
                color=text_on(fill),
                fontsize=11,
                fontweight="bold" if sure else "normal",
            )
    grid[-1].set_xlabel("embedding dimension")
    heading(
        chart,
        _heat_map_finding(flat[passed], full, metric),
        f"{series_label(rows)} · {described(metric).label} in % of {full['dim']} x float32 · "
        "outlined: keeps 99 % with 95 % confidence",
    )
    return chart


@styled
def recall_by_throughput(frame: pd.DataFrame, recall: str = "overlap@10") -> Chart:
    """Throughput (log) against recall of the true neighbours, one curve per index over its search arguments.

    The form of ann-benchmarks: up and to the right is better. One panel per dimension, the full one last.
    """
    rows = focus(frame, main_metric(frame))
    rows = rows[(rows["rescore"] == "") & rows["qps"].notna() & rows[recall].notna()]
    curves = rows[rows["search_args"] != ""]
    if curves.empty:
        raise ResultsError(
            "no index with search arguments was measured, so there is no recall-throughput curve; "
            "sweep one, for example HNSW32"
        )
    flat = rows[(rows["index"] == "Flat") & (rows["precision"] == "float32")]
    dims = _spread(sorted(curves["dim"].unique()))
    names = list(dict.fromkeys(zip(curves["index"], curves["precision"], strict=True)))
    one_precision = len(curves["precision"].unique()) == 1
    chart = new_chart(2.0 + 3.2 * len(dims), 5.0) if len(dims) > 1 else new_chart()
    panels = chart.subplots(1, len(dims), sharey=True, squeeze=False)[0]
    for axes, dim in zip(panels, dims, strict=True):
        for position, (index, precision) in enumerate(names):
            curve = curves[
                (curves["dim"] == dim) & (curves["index"] == index) & (curves["precision"] == precision)
            ]
            curve = curve.sort_values(["qps", recall], ascending=[False, True], kind="stable")
            name = shorten(index if one_precision else f"{index} {precision}", 28)
            axes.plot(
                curve[recall],
                curve["qps"],
                label=plain(name),
                markeredgecolor=PAPER,
                **colour_and_marker(position),
            )
        exact = flat[flat["dim"] == dim]
        axes.scatter(
            exact[recall], exact["qps"], s=110, marker="*", color=INK, label="Flat float32", zorder=4
        )
        axes.annotate(f"{dim} dimensions", (0.03, 0.03), xycoords="axes fraction", fontweight="bold")
        axes.margins(0.06)
        # A panel is narrow, and at a short dimension recall spans so little that its labels are long.
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel(f"{recall} (0 to 1)")
    cost_axis(panels[0].yaxis, curves["qps"], "queries/s")
    panels[0].set_ylabel(described("qps").axis)
    handles, labels = panels[-1].get_legend_handles_labels()
    chart.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))
    heading(
        chart,
        _throughput_finding(curves, flat, recall, dims[-1]),
        f"{series_label(rows)} · {recall} against the exact search at the full dimension",
    )
    return chart


def _precision_order(name: str) -> tuple[int, str]:
    return (_PRECISIONS.index(name) if name in _PRECISIONS else len(_PRECISIONS), name)


def _spread(dims: list[int]) -> list[int]:
    """At most three dimensions: the shortest, one between, the longest."""
    if len(dims) <= _MOST_PANELS:
        return dims
    return [dims[int(place)] for place in np.linspace(0, len(dims) - 1, _MOST_PANELS)]


def _heat_map_finding(passed: pd.DataFrame, full: pd.Series, metric: str) -> str:
    what = f"{percent(KEEP)} of {described(metric).label}"
    cheaper = passed[passed["bytes_per_vector"] < full["bytes_per_vector"]]
    if cheaper.empty:
        return f"No smaller vector is proven or likely to keep {what}"
    best = cheaper.sort_values(["bytes_per_vector", "dim"], kind="stable").iloc[0]
    stage = ", rescored," if best["rescore"] else ""
    return (
        f"{best['dim']} x {best['precision']}{stage} keeps {what} "
        f"with {bytes_text(best['bytes_per_vector'])} of index per vector"
    )


def _throughput_finding(curves: pd.DataFrame, flat: pd.DataFrame, recall: str, dim: int) -> str:
    curves, flat = curves[curves["dim"] == dim], flat[flat["dim"] == dim]
    for level in (0.99, 0.95, 0.9):
        enough = curves[curves[recall] >= level]
        if not enough.empty:
            best = enough.sort_values("qps", kind="stable").iloc[-1]
            exhaustive = flat.loc[flat[recall] >= level, "qps"].max()
            if exhaustive >= best["qps"]:
                speed = f"{number(exhaustive, 2)} queries/s"
                return f"{dim} dimensions: Flat float32 is fastest at {recall} of {level} with {speed}"
            setting = " ".join(
                str(best[part]) for part in ("precision", "index", "search_args") if best[part]
            )
            speed = number(best["qps"], 2)
            return f"{dim} dimensions: {shorten(setting)} gives {speed} queries/s at {recall} of {level}"
    best = curves.sort_values(recall, kind="stable").iloc[-1]
    return f"{dim} dimensions: no index reaches {recall} of 0.9; the best is {best[recall]:.2f}"
