"""Results and a recommendation as objects that a notebook shows by themselves.

Decides and draws nothing: findings come from `decide/`, charts and markup from `report/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from toolkit.decide.cost import Prices
from toolkit.decide.evidence import headline, judged, recommended, with_recommendation
from toolkit.decide.judging import judging_session
from toolkit.decide.recommend import Evidence, recommend
from toolkit.decide.recommendation import Recommendation
from toolkit.decide.series import main_metric
from toolkit.decide.wording import cell_text
from toolkit.errors import PlanError, require_package
from toolkit.experiment.results import Results
from toolkit.experiment.setting import Setting
from toolkit.measure.metrics import described
from toolkit.measure.noninferiority import KEEP, Grade
from toolkit.report.kinds import draw, kinds, possible_kinds
from toolkit.report.write import write_report

if TYPE_CHECKING:
    from toolkit.data.sets import RetrievalSet
    from toolkit.embedding.cache import VectorCache
    from toolkit.embedding.protocol import Embedder
    from toolkit.notebook.explore import ExplorerView
    from toolkit.notebook.judging import JudgeView
    from toolkit.report.style import Chart

_ROWS_SHOWN = 12


@dataclass(frozen=True, eq=False)
class RecommendationView(Recommendation):
    """A Recommendation that a notebook shows as tables.

    embedder : the spec of the sweep it is from; results : the sweep, None if it was not handed over.
    """

    embedder: str = "static"
    results: Results | None = None

    @classmethod
    def of(
        cls, found: Recommendation, *, embedder: str, results: Results | None = None
    ) -> RecommendationView:
        """The same recommendation, with a view of its own."""
        own = {field.name: getattr(found, field.name) for field in fields(found)}
        return cls(**own, embedder=embedder, results=results)

    def save_index(
        self,
        path: str | Path,
        *,
        data: str | RetrievalSet | None = None,
        embedder: Embedder | None = None,
        cache: VectorCache | None = None,
        progress: bool = True,
    ) -> Path:
        """Build the recommended setting's index over the sweep's documents and write it into a new folder.

            found.save_index("index")
            toolkit.deploy.saved_index.SavedIndex.load("index").search(["a question"], k=10)

        The folder has the index (a FAISS file, or the rows of an exact scan), the rows of later stages, the documents'
        ids, ``setting.json`` that says what it is, and ``search.py`` that searches it. Vectors that the sweep left in
        the cache are not computed again. Without a recommendation it is the reference's.

        path : a folder that is not there yet, or is empty. data, embedder : where the plan's cannot be opened again.
        cache : a VectorCache; the default folder if not given.

        Raises PlanError for a path that is taken, ResultsError where texts cannot be read again or the disk refuses.
        """
        from toolkit.deploy.saved_index import save_index

        if self.results is None:
            raise PlanError(
                "this recommendation has no results folder; take it from toolkit.recommend(folder)"
            )
        chosen = self.advised or self.reference
        return save_index(
            self.results,
            Setting.parse(chosen.setting),
            Path(path),
            data=data,
            embedder=embedder,
            cache=cache,
            progress=progress,
        )

    def code(self, target: str = "faiss", *, k: int = 10) -> str:
        """Python that applies the recommended setting (the reference, if none is) to `texts` and `questions`.

        target : ``faiss``, or ``qdrant``, ``pgvector``, ``milvus`` for the equivalent arguments there.
        k : neighbours to ask for. Raises PlanError for what the target does not have.
        """
        from toolkit.deploy.code import code_for

        chosen = self.advised or self.reference
        return code_for(Setting.parse(chosen.setting), embedder=self.embedder, target=target, k=k)

    def _repr_html_(self) -> str:
        from toolkit.report.html import recommendation_html

        return recommendation_html(self)


class ResultsView:
    """Results in a notebook: the view itself, ``.plot()``, ``.frame()``, ``.recommend()``."""

    def __init__(self, results: Results) -> None:
        self.results = results

    def __repr__(self) -> str:
        return f"ResultsView({str(self.results.folder)!r}, settings={len(self.results.measurements)})"

    @property
    def headline(self) -> str:
        """The finding in one sentence."""
        return headline(self.results)

    @property
    def kinds(self) -> list[str]:
        """The kinds of chart that these results can be drawn as."""
        return possible_kinds(self._judged)

    def frame(self) -> pd.DataFrame:
        """The measurements, one row per setting, as a copy."""
        return self.results.frame()

    def recommend(
        self,
        *,
        keep: float = KEEP,
        metric: str | None = None,
        max_bytes_per_vector: float | None = None,
        max_p95_ms: float | None = None,
        corpus_size: int | None = None,
        prices: Prices | None = None,
        grade: Grade = "likely",
    ) -> RecommendationView:
        """The cheapest setting within limits; see toolkit.recommend."""
        return RecommendationView.of(
            recommend(
                self.results,
                keep=keep,
                metric=metric,
                max_bytes_per_vector=max_bytes_per_vector,
                max_p95_ms=max_p95_ms,
                corpus_size=corpus_size,
                prices=prices,
                grade=grade,
            ),
            embedder=_spec_of(self.results),
            results=self.results,
        )

    def plot(self, kind: str = "dimension") -> Chart:
        """A chart as a matplotlib Figure; raises PlanError for a kind that these results cannot give."""
        return draw(self._judged, kind)

    def judge(
        self,
        *,
        settings: Sequence[str] | None = None,
        metric: str | None = None,
        keep: float | None = None,
        most: int = 50,
        most_gain: int | None = None,
        seed: int | None = None,
        judge: str | None = None,
        data: str | RetrievalSet | None = None,
        unlabelled: object = None,
        new_round: bool = False,
    ) -> JudgeView:
        """A widget to judge documents of unlabelled queries, drawn where the settings in question can lose most.

        Each press is kept at once in the folder's ``judgements``; the same call goes on where the last one stopped.

        settings : in question, by their keys; those that the recommendation leaves undecided if not given.
        metric, keep : the quality and the share of it to keep; as in `recommend`.
        most : queries to judge at most; fewer where one is drawn again.
        most_gain : 3 for gains 0 to 3 (the default), 1 for relevant or not.
        seed : of the draws. judge : who answers; the user's name here if not given.
        data : the set, where it does not lie where the plan says, or was an object; unlabelled : so its queries.
        new_round : begin another round, about what is in question now.

        Raises PlanError, ResultsError, or MissingPackageError without the extra ``notebook``.
        """
        require_package("ipywidgets", needed_for="judging in a notebook", extra="notebook")
        from toolkit.notebook.judging import JudgeView

        return JudgeView(
            judging_session(
                self.results,
                settings=settings,
                metric=metric,
                keep=keep,
                most=most,
                most_gain=most_gain,
                seed=seed,
                judge=judge,
                data=data,
                unlabelled=unlabelled,
                new_round=new_round,
            )
        )

    def explore(
        self, *, keep: float = KEEP, metric: str | None = None, prices: Prices | None = None
    ) -> ExplorerView:
        """A widget to try limits with: quality to keep, corpus size, bytes, latency and memory as controls.

        Quality against cost, the curve over dimensions and the recommendation follow each of them. The mouse over a
        mark shows its setting, a click pins it and shows its code. An exported page has the charts and the
        recommendation as they are at the start.

        keep, metric, prices : as in `recommend`.

        Raises PlanError or ResultsError as `recommend` does, MissingPackageError without the extra ``notebook``.
        """
        for package in ("ipywidgets", "plotly", "anywidget"):
            require_package(package, needed_for="the explorer", extra="notebook")
        from toolkit.notebook.explore import ExplorerView

        evidence = Evidence.of(self.results, metric=metric, prices=prices)
        return ExplorerView(evidence, embedder=_spec_of(self.results), keep=keep, pictures=self._pictures)

    def _pictures(self, found: Recommendation) -> str:
        """The charts that show a recommendation, as HTML that needs nothing."""
        from toolkit.report.style import themed_html

        frame = with_recommendation(judged(self.results), found)
        shown = [name for name in ("quality-cost", "dimension") if name in possible_kinds(frame)]
        return "".join(
            themed_html(draw(frame, name), label=kinds()[name].title, width_px=560) for name in shown
        )

    def save(self) -> Path:
        """Write charts and report.html into the results folder; returns the report's path."""
        return write_report(self.results)

    @cached_property
    def _judged(self) -> pd.DataFrame:
        return with_recommendation(judged(self.results), recommended(self.results))

    def _repr_html_(self) -> str:
        from toolkit.report.style import themed_html

        metric = main_metric(self.results.measurements)
        rows = self.results.measurements.sort_values(metric, ascending=False, kind="stable")
        shown = [c for c in ("setting", metric, f"{metric}_delta", "p95_ms", "bytes_per_vector") if c in rows]
        heads = [c if c == "setting" or c.endswith("_delta") else described(c).label for c in shown]
        heads = [head.replace(f"{metric}_delta", "difference to full") for head in heads]
        cells = "".join(
            "<tr>" + "".join(f"<td>{escape(_shown(row[c], c))}</td>" for c in shown) + "</tr>"
            for _, row in rows.head(_ROWS_SHOWN).iterrows()
        )
        picture = ""
        if "dimension" in self.kinds:
            picture = themed_html(self.plot(), label=self.headline, width_px=640)
        hidden = len(rows) - _ROWS_SHOWN
        more = f"<p>{hidden} more settings: .frame()</p>" if hidden > 0 else ""
        return (
            f"<div><p><strong>{escape(self.headline)}</strong></p>{picture}"
            f"<table><thead><tr>{''.join(f'<th>{escape(h)}</th>' for h in heads)}</tr></thead>"
            f"<tbody>{cells}</tbody></table>{more}</div>"
        )


def as_view(results: str | Path | Results | ResultsView) -> ResultsView:
    """A view of results that are open, or of a results folder.

    Raises PlanError for anything else, ResultsError if the folder holds no finished sweep.
    """
    if isinstance(results, ResultsView):
        return results
    if isinstance(results, str | Path):
        return ResultsView(Results.load(results))
    if isinstance(results, Results):
        return ResultsView(results)
    raise PlanError(
        f"results of type {type(results).__name__} cannot be read; give a results folder, or what "
        "toolkit.sweep and toolkit.load_results return"
    )


def _spec_of(results: Results) -> str:
    """How the sweep's embedder is opened again."""
    config = results.plan.embedder
    if isinstance(config, str):
        return config
    if config.kind == "remote":
        return f"{config.base_url}#{config.model}"
    return "static" if config.kind == "static" else f"local:{config.model}"


def _shown(value: object, column: str) -> str:
    return value if isinstance(value, str) else cell_text(float(value), described(column))
