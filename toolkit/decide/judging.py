"""Which settings a person's judgements could decide, and a session of judging about them."""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.data.sets import RetrievalSet
from toolkit.decide.recommend import recommend
from toolkit.errors import PlanError
from toolkit.experiment.results import Results
from toolkit.judge.open import InQuestion, Wanted, check_settings, open_session
from toolkit.judge.session import MOST, Session
from toolkit.measure.metrics import metric_named
from toolkit.measure.noninferiority import KEEP

# More would spread the draws, and each adds documents to read.
MOST_SETTINGS = 10


def judging_session(
    results: Results,
    *,
    settings: Sequence[str] | None = None,
    metric: str | None = None,
    keep: float | None = None,
    most: int = MOST,
    most_gain: int | None = None,
    seed: int | None = None,
    judge: str | None = None,
    data: str | RetrievalSet | None = None,
    unlabelled: object = None,
    new_round: bool = False,
) -> Session:
    """A session in which a person judges documents of the queries that decide most; see `open_session`.

    settings : in question; those that the recommendation leaves undecided if not given, cheapest first, or
        the cheaper ones that keep most where it leaves none; ten at most, and of those with equal rankings one.

    Raises PlanError or ResultsError.
    """
    wanted = Wanted(settings, metric, keep, seed, most_gain)
    return open_session(
        results,
        wanted,
        in_question=lambda: _in_question(results, wanted),
        most=most,
        judge=judge,
        data=data,
        unlabelled=unlabelled,
        new_round=new_round,
    )


def _in_question(results: Results, wanted: Wanted) -> InQuestion:
    keep = KEEP if wanted.keep is None else wanted.keep
    # A folder without any judgement was not measured by the metric that its judgements will be for.
    measured = wanted.metric in results.measurements
    found = recommend(results, keep=keep, metric=wanted.metric if measured else None)
    metric = wanted.metric or _judged_metric(found.demand.metric)
    table, reference = found.table, found.reference.setting
    keys = table["setting"].tolist()
    if wanted.settings is not None:
        check_settings(wanted.settings, keys)
        return InQuestion(list(dict.fromkeys(wanted.settings)), reference, metric, keep)
    groups = results.same_ranking(metric)
    others = table[(table["setting"].map(groups) != groups[reference]).to_numpy()]
    others = others[~others["setting"].map(groups).duplicated().to_numpy()]
    cheaper = others[others.index < keys.index(reference)]
    if not len(cheaper):
        # Over few documents the price is computing, a matter of microseconds; memory is what grows with the corpus.
        whole = table.loc[keys.index(reference), "bytes_per_vector"]
        cheaper = others[others["bytes_per_vector"] < whole]
    undecided = cheaper[cheaper["verdict"] == "undecided"]
    # Where nothing is undecided, as by agreement alone, those that agree best are worth a person's time.
    likeliest = cheaper.loc[cheaper["retained"].nlargest(MOST_SETTINGS).index.sort_values()]
    chosen = undecided if len(undecided) else likeliest
    if not len(chosen):
        raise PlanError(
            f"no setting cheaper than {reference} ranks otherwise than it, so there is nothing to judge; name "
            "settings (settings=) to judge them all the same"
        )
    return InQuestion(chosen["setting"].tolist()[:MOST_SETTINGS], reference, metric, keep)


def _judged_metric(name: str) -> str:
    """The metric itself, or for one that needs no judgement nDCG at its depth."""
    metric = metric_named(name)
    return name if metric.kind == "retrieval" else f"ndcg@{metric.depth}"
