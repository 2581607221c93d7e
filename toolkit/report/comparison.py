"""Several models and data sets as one page and one chart. Decides nothing, and reads no folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from markupsafe import Markup

from toolkit.decide.compare import Comparison
from toolkit.decide.wording import shorten, signed
from toolkit.measure.metrics import described
from toolkit.report.axes import cost_axis
from toolkit.report.html import templates_of
from toolkit.report.labels import label_points
from toolkit.report.pareto import pareto_front
from toolkit.report.style import (
    FAINT,
    INK,
    PAPER,
    colour_and_marker,
    heading,
    inline_svg,
    legend,
    new_chart,
    plain,
    styled,
    svg_bytes,
)

if TYPE_CHECKING:
    from toolkit.report.style import Chart

_HERE = Path(__file__).parent
_CAPTION = "Quality and bytes of a stored float32 vector, one line per model, one point per dimension."


@styled
def models_by_bytes(points: pd.DataFrame, metric: str, context: str) -> Chart:
    """Quality against bytes per vector, one line per model, what no other point beats in both outlined.

    points : columns model, dim, quality, bytes_per_vector, as `Comparison.means` and `Comparison.grid` give them.
    """
    chart = new_chart(9.0, 5.2)
    axes = chart.add_subplot()
    cost_axis(axes.xaxis, points["bytes_per_vector"], "bytes")
    on_front = points[pareto_front(points, "bytes_per_vector", "quality")].sort_values("bytes_per_vector")
    for position, (model, rows) in enumerate(points.groupby("model", sort=False)):
        line = rows.sort_values("bytes_per_vector")
        label = plain(shorten(str(model), 34))
        style = colour_and_marker(position)
        axes.plot(line["bytes_per_vector"], line["quality"], label=label, markeredgecolor=PAPER, **style)
    axes.scatter(
        on_front["bytes_per_vector"], on_front["quality"], s=130, facecolor="none", edgecolor=INK, zorder=4
    )
    axes.step(
        on_front["bytes_per_vector"], on_front["quality"], where="post", color=FAINT, linewidth=1.0, zorder=1
    )
    axes.set_xlabel(described("bytes_per_vector").axis)
    axes.set_ylabel(described(metric).axis)
    axes.margins(x=0.06, y=0.1)
    legend(axes, loc="lower right")
    models = list(dict.fromkeys(on_front["model"]))
    finding = (
        f"{models[0]} is never beaten in both quality and size"
        if len(models) == 1
        else f"{len(models)} models have a dimension that no other beats in both quality and size"
    )
    heading(chart, finding, f"{context} · outlined: no other is better in both")
    label_points(
        axes,
        list(zip(on_front["bytes_per_vector"], on_front["quality"], strict=True)),
        [str(dim) for dim in on_front["dim"]],
        fontsize=10,
    )
    return chart


def comparison_chart(found: Comparison) -> Chart | None:
    """The chart over the mean of all data sets, or over the first where there is no mean; None without judgements."""
    points, grid = found.means(), found.grid()
    if grid.empty:
        return None
    sets = list(dict.fromkeys(grid["dataset"]))
    context = f"mean of {len(sets)} data sets"
    if points.empty or len(sets) == 1:
        name = sets[0]
        points, context = grid[grid["dataset"] == name], str(name)
    return models_by_bytes(points, str(grid["metric"].iloc[0]), context)


def comparison_html(found: Comparison) -> str:
    """The whole page; every text from users is escaped."""
    chart = comparison_chart(found)
    picture = "" if chart is None else inline_svg(svg_bytes(chart), "p0", _CAPTION)
    return (
        templates_of(_HERE)
        .get_template("comparison.html.j2")
        .render(
            headline=found.headline,
            notes=found.notes,
            picture=Markup(picture),  # noqa: S704 - of this package
            caption=_CAPTION,
            ranks=ranks_rows(found),
            grids=_grids(found),
            folders=[one.name for one in found.results],
            css=Markup((_HERE / "report.css").read_text(encoding="utf-8")),  # noqa: S704
        )
    )


def comparison_fragment(found: Comparison) -> str:
    """Headline, chart and ranks for a notebook; every text from users is escaped."""
    chart = comparison_chart(found)
    picture = "" if chart is None else inline_svg(svg_bytes(chart), "p0", _CAPTION)
    rows = Markup(templates_of(_HERE).get_template("ranks.html.j2").render(ranks=ranks_rows(found)))  # noqa: S704
    return Markup("<div><p><strong>{}</strong></p>{}{}{}</div>").format(
        found.headline,
        Markup("").join(Markup("<p>{}</p>").format(note) for note in found.notes),
        Markup(picture),  # noqa: S704
        rows,
    )


def ranks_rows(found: Comparison) -> list[dict[str, str]]:
    """The ranks as texts, one dictionary per row."""
    rows = []
    for row in found.ranks().to_dict("records"):
        first, last = row["best_rank"], row["worst_rank"]
        interval = "" if pd.isna(row["low"]) else f" ({signed(row['low'])}..{signed(row['high'])})"
        best = row["difference"] == 0 and row["p"] == 1 and row["best_rank"] == 1
        rows.append(
            {
                "dataset": row["dataset"],
                "rank": f"{first}" if first == last else f"{first} to {last}",
                "model": row["model"],
                "dim": f"{row['dim']}",
                "quality": f"{row['quality']:.3f}",
                "metric": described(row["metric"]).label,
                "difference": "" if best else f"{signed(row['difference'])}{interval}",
                "groups": row["groups"],
                "queries": f"{row['queries']:,}",
            }
        )
    return rows


def _grids(found: Comparison) -> list[dict[str, object]]:
    """For each data set the qualities as texts: a row per model, a column per dimension."""
    grid = found.grid()
    tables = []
    for name, rows in grid.groupby("dataset", sort=False):
        dims = sorted(rows["dim"].unique())
        cells = {
            model: {
                row.dim: (f"{row.quality:.3f}", f"{100 * row.kept:.1f} % of full")
                for row in of_model.itertuples()
            }
            for model, of_model in rows.groupby("model", sort=False)
        }
        tables.append(
            {
                "name": name,
                "metric": described(str(rows["metric"].iloc[0])).label,
                "dims": dims,
                "rows": [
                    (model, [by_dim.get(dim, ("", "")) for dim in dims]) for model, by_dim in cells.items()
                ],
            }
        )
    return tables
