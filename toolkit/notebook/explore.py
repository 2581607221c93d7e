"""A sweep to be asked with the mouse: limits as controls, and two charts and the recommendation that follow them.

Decides and draws nothing: the answers are those of `decide/`, the charts those of live_charts.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from threading import Thread
from typing import Any

import ipywidgets
import numpy as np

from toolkit.decide.advice import recommendation_words
from toolkit.decide.recommend import Evidence
from toolkit.decide.recommendation import Constraints, Recommendation
from toolkit.decide.series import exact_rows
from toolkit.decide.wording import number, percent
from toolkit.deploy.code import TARGETS, code_for
from toolkit.errors import PlanError
from toolkit.experiment.setting import Setting
from toolkit.measure.metrics import described
from toolkit.measure.storage import GB
from toolkit.notebook.live_charts import STYLE, DimensionChart, TradeoffChart

_KEEPS = (0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995, 1.0)
_SIZES = tuple(10**power for power in range(4, 10))
_COSTS = ("usd_per_month", "p95_ms", "bytes_per_vector")
# Neither control shows a name for a value None.
_NO_LIMIT = ("no limit", np.inf)
_NOTHING_PINNED = ("the recommended one", "")
_WIDE = {"width": "30em"}


class ExplorerView(ipywidgets.VBox):
    """What to keep and what it may cost, and what then is best; see `ResultsView.explore`.

    evidence : what the sweep says. embedder : the spec it was measured with, for the code. keep : to begin with.
    pictures : a recommendation's charts as HTML, for where no kernel is, as in an exported page.

    keep, size, most_bytes, most_ms, most_memory, grade, cost, setting, target are its controls, and `found` is the
    recommendation that they lead to.
    """

    def __init__(
        self, evidence: Evidence, *, embedder: str, keep: float, pictures: Callable[[Recommendation], str]
    ) -> None:
        self.evidence = evidence
        self._embedder, self._pictures = embedder, pictures
        table = evidence.priced(evidence.documents)[0]
        self.keep = _slider("keep at least", [(percent(one), one) for one in sorted({*_KEEPS, keep})], keep)
        sizes = [one for one in _SIZES if one > evidence.documents]
        self.size = _slider(
            "documents",
            [
                (f"{evidence.documents:,} (measured)", evidence.documents),
                *((f"{one:,}", one) for one in sizes),
            ],
            evidence.documents,
        )
        # Up to the largest corpus on offer, where searches take longest and indexes are largest.
        largest = evidence.priced(self.size.options[-1][1])[0]
        bytes_each = table["bytes_per_vector"]
        self.most_bytes = _limit("bytes per vector, at most", bytes_each.min(), bytes_each.max())
        self.most_ms = _limit("p95 ms, at most", table["p95_ms"].min(), largest["p95_ms"].max())
        self.most_memory = _limit(
            "memory, at most",
            bytes_each.min() * evidence.documents,
            largest["bytes_per_vector"].max() * self.size.options[-1][1],
            text=_memory_text,
        )
        self.grade = _toggle("must be", [("proven or likely", "likely"), ("proven alone", "proven")])
        self.cost = _toggle("against", [(described(name).axis, name) for name in _COSTS])
        self.setting = ipywidgets.Dropdown(
            options=[_NOTHING_PINNED, *((key, key) for key in sorted(table["setting"]))],
            description="pinned",
            layout=ipywidgets.Layout(**_WIDE),
        )
        self.target = ipywidgets.Dropdown(options=TARGETS, description="code for")
        self.tradeoff, self.dimensions = TradeoffChart(self.pin), DimensionChart()
        self._answer, self._code = ipywidgets.HTML(), ipywidgets.HTML()
        self.found: Recommendation
        for control in (*self._demands, self.cost):
            control.observe(self._ask, names="value")
        for control in (self.setting, self.target):
            control.observe(self._pinned, names="value")
        self._ask()
        super().__init__(
            [
                ipywidgets.HTML(STYLE),
                _row([self.keep, self.size, self.most_bytes, self.most_ms, self.most_memory]),
                _row([self.grade, self.cost]),
                self._answer,
                _row([_half(self.tradeoff.figure), _half(self.dimensions.figure)]),
                _row([self.setting, self.target]),
                self._code,
            ]
        )
        self.add_class("toolkit-explorer")
        Thread(target=self._read_ahead, daemon=True).start()

    def pin(self, key: str) -> None:
        """Keep a setting marked in the charts, and show its code; what a click on its mark does."""
        self.setting.value = key

    @property
    def demand(self) -> Constraints:
        """What the controls ask for; memory counts as bytes per vector at the corpus size."""
        most_bytes = min(self.most_bytes.value, self.most_memory.value / self.size.value)
        return Constraints(
            self.evidence.metric,
            keep=self.keep.value,
            max_bytes_per_vector=_finite(most_bytes),
            max_p95_ms=_finite(self.most_ms.value),
            corpus_size=None if self.size.value == self.evidence.documents else self.size.value,
            grade=self.grade.value,
        )

    @property
    def shown(self) -> str:
        """The key of the setting whose code stands below: the pinned one, else the recommended, else the reference."""
        return self.setting.value or (self.found.advised or self.found.reference).setting

    @property
    def code(self) -> str:
        """That code, or why there is none."""
        try:
            return code_for(Setting.parse(self.shown), embedder=self._embedder, target=self.target.value)
        except PlanError as error:
            return str(error)

    @property
    def _demands(self) -> tuple[ipywidgets.Widget, ...]:
        return (self.keep, self.size, self.most_bytes, self.most_ms, self.most_memory, self.grade)

    def _ask(self, _change: object = None) -> None:
        self.found = self.evidence.recommendation(self.demand, brief=True)
        self._answer.value = _answer_html(self.found)
        self._draw()

    def _read_ahead(self) -> None:
        """Find what each step of two sliders will need, so that none has to be waited for."""
        for _, size in self.size.options:
            table, _ = self.evidence.priced(size)
            for key in table["setting"]:
                self.evidence.falls_short(key, self.keep.value, size)
        for _, keep in reversed(self.keep.options):
            self.evidence.tested(keep)

    def _pinned(self, _change: object) -> None:
        self._draw()

    def _draw(self) -> None:
        found, table, metric = self.found, self.found.table, self.evidence.metric
        marks = {
            "metric": metric,
            "least": found.demand.keep * found.reference.quality,
            "advised": found.advised and found.advised.setting,
            "pinned": self.setting.value,
        }
        self.tradeoff.show(table, cost=self.cost.value, **marks)
        own = table[table["instruction"] == found.reference.instruction]
        self.dimensions.show(exact_rows(own), table, **marks)
        self._code.value = f"<p><b>{escape(self.shown)}</b></p><pre>{escape(self.code)}</pre>"

    def _repr_mimebundle_(self, **options: Any) -> Any:  # noqa: ANN401 - as IPython asks for it
        """The widget, and what stands for it in a page without a kernel."""
        bundle = super()._repr_mimebundle_(**options)
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        data["text/html"] = f"<div>{self._pictures(self.found)}{self._answer.value}</div>"
        return bundle


def call_of(demand: Constraints) -> str:
    """The call of `ResultsView.recommend` that asks the same."""
    given: Mapping[str, object] = {
        "keep": demand.keep,
        "max_bytes_per_vector": demand.max_bytes_per_vector,
        "max_p95_ms": demand.max_p95_ms,
        "corpus_size": demand.corpus_size,
        "grade": None if demand.grade == "likely" else demand.grade,
    }
    words = ", ".join(f"{name}={value!r}" for name, value in given.items() if value is not None)
    return f"results.recommend({words})"


def _answer_html(found: Recommendation) -> str:
    words = recommendation_words(found)
    # What a brief answer leaves out is a column without a figure.
    kept = [place for place in range(len(words.heads)) if {row[place] for row in words.rows} != {"–"}]
    rows = [[escape(row[place]) for place in kept] for row in words.rows]
    heads = "".join(f'<th scope="col">{escape(words.heads[place]) or "role"}</th>' for place in kept)
    cells = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    limits = "".join(f"<li>{escape(left)}: {escape(right)}</li>" for left, right in words.constraints)
    return (
        f'<div aria-live="polite"><p><b>{escape(words.headline)}</b></p></div>'
        f"<table><thead><tr>{heads}</tr></thead><tbody>{cells}</tbody></table>"
        f"<p>{words.constraints_title}</p><ul>{limits}</ul>"
        f"<p>With bounds, and what would settle the rest: <code>{escape(call_of(found.demand))}</code></p>"
    )


def _slider(name: str, options: Sequence[tuple[str, object]], value: object) -> ipywidgets.SelectionSlider:
    return ipywidgets.SelectionSlider(
        options=list(options),
        value=value,
        description=name,
        style={"description_width": "12em"},
        layout=ipywidgets.Layout(**_WIDE),
    )


def _toggle(name: str, options: Sequence[tuple[str, str]]) -> ipywidgets.ToggleButtons:
    """Buttons as wide as what they say."""
    return ipywidgets.ToggleButtons(options=list(options), description=name, style={"button_width": "auto"})


def _limit(
    name: str, least: float, most: float, *, text: Callable[[float], str] = number
) -> ipywidgets.SelectionSlider:
    """Round values from one that hardly anything meets to one that all do, and then none."""
    steps = [
        digit * 10.0**power
        for power in range(int(np.floor(np.log10(least))), int(np.ceil(np.log10(most))) + 1)
        for digit in (1, 2, 5)
    ]
    below = [one for one in steps if one < least][-1:]
    usable = [*below, *(one for one in steps if least <= one < most)]
    return _slider(name, [*((text(one), one) for one in usable), _NO_LIMIT], np.inf)


def _memory_text(size_bytes: float) -> str:
    """``50 kB``, ``2 GB``: decimal, as a machine's memory is sold."""
    unit, scale = next(
        (unit, scale)
        for unit, scale in (("TB", 1000 * GB), ("GB", GB), ("MB", 1e6), ("kB", 1e3), ("B", 1.0))
        if size_bytes >= scale or unit == "B"
    )
    return f"{number(size_bytes / scale)} {unit}"


def _finite(limit: float) -> float | None:
    return float(limit) if np.isfinite(limit) else None


def _row(widgets: Sequence[ipywidgets.Widget]) -> ipywidgets.HBox:
    return ipywidgets.HBox(list(widgets), layout=ipywidgets.Layout(flex_flow="row wrap"))


def _half(figure: ipywidgets.Widget) -> ipywidgets.Box:
    """Two beside each other where there is room, below each other where there is not."""
    return ipywidgets.Box(
        [figure], layout=ipywidgets.Layout(flex="1 1 24em", min_width="20em", display="block")
    )
