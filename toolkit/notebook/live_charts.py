"""The explorer's two charts as plotly figures that are redrawn in place.

Draws what it is given and decides nothing. Text and lines take the notebook's own colours (`STYLE`), so that the light
and the dark theme both read; marks are told apart by shape as well as by colour.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

import pandas as pd
import plotly.graph_objects as go

from toolkit.decide.wording import amount, number, percent
from toolkit.measure.metrics import described
from toolkit.report.pareto import pareto_front
from toolkit.report.style import COLOURS

_GREY = "#7F7F7F"  # what shows where no style reaches; reads on white and on black
# Verdict: symbol and colour, each at least 3:1 against either theme's background.
_MARKS = {
    "keeps (proven)": ("circle", COLOURS[2]),
    "keeps (likely)": ("square", COLOURS[0]),
    "undecided": ("triangle-up", _GREY),
    "loses": ("x", COLOURS[1]),
    "reference": ("diamond", COLOURS[3]),
}
_COSTS = ("bytes_per_vector", "p95_ms", "usd_per_month")
_OUTSIDE = 0.2  # opacity of what a limit rules out
# plotly writes its colours into each element; the theme's go over them.
STYLE = """<style>
.toolkit-explorer .js-plotly-plot .main-svg text:not(.hovertext text) {
  fill: var(--jp-ui-font-color1, var(--vscode-foreground, #7f7f7f)) !important; }
.toolkit-explorer .js-plotly-plot .hoverlayer text { fill: #ffffff !important; }
.toolkit-explorer .js-plotly-plot .gridlayer path {
  stroke: var(--jp-border-color2, #7f7f7f55) !important; }
.toolkit-explorer table { border-collapse: collapse; margin: 0.4em 0; }
.toolkit-explorer th, .toolkit-explorer td { text-align: left; padding: 0.15em 0.9em 0.15em 0; vertical-align: top; }
.toolkit-explorer pre { overflow-x: auto; line-height: 1.4; padding: 0.5em 0.8em;
  border: 1px solid var(--jp-border-color2, #7f7f7f55); }
</style>"""


def hover_texts(table: pd.DataFrame, metric: str) -> list[str]:
    """Each setting of a recommendation's table with its figures, as the mouse shows them."""
    label, costs = described(metric).label, [described(name) for name in _COSTS]
    texts = []
    for setting, verdict, quality, kept, *values in zip(
        *(table[name].tolist() for name in ("setting", "verdict", "quality", "retained", *_COSTS)),
        strict=True,
    ):
        size, time, usd = (amount(value, cost) for value, cost in zip(values, costs, strict=True))
        texts.append(
            f"<b>{escape(setting)}</b><br>{label} {number(quality)}, {percent(kept)} kept: {verdict}"
            f"<br>{size} per vector · p95 {time} · {usd}"
        )
    return texts


class TradeoffChart:
    """Quality against a cost: one mark per setting, the front, what is recommended and what is pinned.

    pick : called with the key of a setting that was clicked.
    """

    def __init__(self, pick: Callable[[str], None]) -> None:
        self._keys: dict[str, list[str]] = {verdict: [] for verdict in _MARKS}
        marks = [
            go.Scatter(
                name=verdict,
                mode="markers",
                marker={"symbol": symbol, "color": colour, "size": 9},
                hovertemplate="%{text}<extra></extra>",
            )
            for verdict, (symbol, colour) in _MARKS.items()
        ]
        line = {"color": _GREY, "width": 1.5}
        front = go.Scatter(name="best within the limits", mode="lines", line=line, hoverinfo="skip")
        self.figure = _figure([*marks, front, *_rings()])
        for trace, verdict in zip(self.figure.data, _MARKS, strict=False):
            trace.on_click(
                lambda _, points, __, verdict=verdict: self._clicked(verdict, points.point_inds, pick)
            )

    def _clicked(self, verdict: str, places: Sequence[int], pick: Callable[[str], None]) -> None:
        if places:
            pick(self._keys[verdict][places[0]])

    def show(
        self, table: pd.DataFrame, *, metric: str, cost: str, least: float, advised: str | None, pinned: str
    ) -> None:
        """Draw a recommendation's table; `least` is the quality to keep."""
        table = table.assign(text=hover_texts(table, metric))
        within = table[table["within_limits"]]
        best = within[pareto_front(within, cost, "quality")].sort_values(cost, kind="stable")
        with self.figure.batch_update():
            for trace, verdict in zip(self.figure.data, _MARKS, strict=False):
                rows = table[table["verdict"] == verdict]
                self._keys[verdict] = rows["setting"].tolist()
                trace.x, trace.y, trace.text = (rows[name].to_numpy() for name in (cost, "quality", "text"))
                trace.marker.opacity = rows["within_limits"].map({True: 1.0, False: _OUTSIDE}).to_numpy()
                trace.showlegend = bool(len(rows))
            front = self.figure.data[len(_MARKS)]
            front.x, front.y = best[cost].to_numpy(), best["quality"].to_numpy()
            _ring(self.figure, table, cost, advised, pinned)
            _titles(self.figure, described(cost).axis, described(metric).label)
            self.figure.layout.xaxis.type = "log"
            self.figure.layout.shapes = [_least(least)]


class DimensionChart:
    """Quality of the exact search at each dimension, with its interval, and the setting recommended."""

    def __init__(self) -> None:
        curve = go.Scatter(
            name="exact search, float32",
            mode="lines+markers",
            line={"color": _GREY, "width": 1.5},
            marker={"size": 10},
            error_y={"type": "data", "symmetric": False, "width": 3, "thickness": 1},
            hovertemplate="%{text}<extra></extra>",
        )
        self.figure = _figure([curve, *_rings()])

    def show(
        self,
        exact: pd.DataFrame,
        table: pd.DataFrame,
        *,
        metric: str,
        least: float,
        advised: str | None,
        pinned: str,
    ) -> None:
        """Draw the rows of the exact search by dimension, and of `table` the settings to mark."""
        curve = self.figure.data[0]
        with self.figure.batch_update():
            curve.x, curve.y = exact["dim"].to_numpy(), exact["quality"].to_numpy()
            curve.text = hover_texts(exact, metric)
            curve.marker.symbol, curve.marker.color = zip(
                *(_MARKS[one] for one in exact["verdict"]), strict=True
            )
            if f"{metric}_lo" in exact:
                curve.error_y.array = (exact[f"{metric}_hi"] - exact["quality"]).to_numpy()
                curve.error_y.arrayminus = (exact["quality"] - exact[f"{metric}_lo"]).to_numpy()
            _ring(self.figure, table, "dim", advised, pinned)
            _titles(self.figure, "dimension", described(metric).label)
            self.figure.layout.xaxis.update(
                type="log", tickvals=exact["dim"].tolist(), ticktext=exact["dim"].tolist()
            )
            self.figure.layout.shapes = [_least(least)]


def _figure(traces: Sequence[go.Scatter]) -> go.FigureWidget:
    figure = go.FigureWidget(list(traces))
    figure.update_layout(
        template="none",
        height=380,
        width=440,
        margin={"l": 60, "r": 10, "t": 10, "b": 50},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": _GREY, "size": 12},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "bgcolor": "rgba(0,0,0,0)"},
        hoverlabel={"bgcolor": "#24292F", "font": {"color": "#FFFFFF"}, "align": "left"},
        hovermode="closest",
    )
    figure.update_xaxes(automargin=True, zeroline=False, gridcolor=f"{_GREY}55")
    figure.update_yaxes(automargin=True, zeroline=False, gridcolor=f"{_GREY}55")
    return figure


def _rings() -> list[go.Scatter]:
    """Around what is recommended, and around what is pinned; neither stands between the mouse and a mark."""
    return [
        go.Scatter(
            name=name,
            mode="markers",
            hoverinfo="skip",
            marker={
                "symbol": symbol,
                "size": 20,
                "color": COLOURS[4],
                "line": {"width": 3, "color": COLOURS[4]},
            },
        )
        for name, symbol in (("recommended", "circle-open"), ("pinned", "square-open"))
    ]


def _ring(figure: go.FigureWidget, table: pd.DataFrame, x: str, advised: str | None, pinned: str) -> None:
    for trace, key in zip(figure.data[-2:], (advised, pinned), strict=True):
        row = table[table["setting"] == key]
        trace.x, trace.y = row[x].to_numpy(), row["quality"].to_numpy()
        trace.showlegend = bool(len(row))


def _titles(figure: go.FigureWidget, x: str, y: str) -> None:
    figure.layout.xaxis.title.text, figure.layout.yaxis.title.text = x, y


def _least(quality: float) -> dict[str, object]:
    """A line at the quality to keep."""
    return {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": quality,
        "y1": quality,
        "line": {"dash": "dash", "color": COLOURS[1], "width": 1.5},
    }
