"""Opens a session of judging in a results folder: goes on with its latest round, or begins one.

Knows no recommendation: which settings are in question is told.
"""

from __future__ import annotations

import getpass
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from toolkit.data.sets import SENTENCES, RetrievalSet
from toolkit.errors import PlanError, ResultsError, ToolkitWarning
from toolkit.experiment.results import Results
from toolkit.judge.design import FOLDER, Design, begin, first_documents, load_rounds
from toolkit.judge.journal import JOURNAL, Journal
from toolkit.judge.session import MOST, Session, check_most
from toolkit.judge.sources import measured_data, neighbours_of
from toolkit.measure.metrics import metric_named

MOST_GAIN = 3


@dataclass(frozen=True)
class Wanted:
    """What a person asks of a round; None leaves it to the round that is there, or to the defaults.

    settings : in question, by their keys. metric : the quality. keep : share of it to keep.
    seed : of the draws; 0 for the first round, 1 for the second ..
    most_gain : 1 for relevant or not, 3 for gains 0 to 3.
    """

    settings: Sequence[str] | None = None
    metric: str | None = None
    keep: float | None = None
    seed: int | None = None
    most_gain: int | None = None


@dataclass(frozen=True)
class InQuestion:
    """What a new round is about: settings, cheapest first, what they are held against, by which metric."""

    settings: Sequence[str]
    reference: str
    metric: str
    keep: float


def open_session(
    results: Results,
    wanted: Wanted,
    *,
    in_question: Callable[[], InQuestion],
    most: int = MOST,
    judge: str | None = None,
    data: str | RetrievalSet | None = None,
    unlabelled: object = None,
    new_round: bool = False,
) -> Session:
    """A session in the latest round of a results folder; the first, or with `new_round` another one, is begun.

    in_question : asked only if a round is begun.
    most : draws to judge. judge : who answers; the user's name on this machine if not given.
    data : the set, where it does not lie where the plan says. unlabelled : queries that the sweep was handed.

    Raises PlanError for what contradicts the round that is there, ResultsError for a folder or data set that cannot
    be judged.
    """
    check_most(most)  # before a round is written down
    folder = results.folder / FOLDER
    rounds = load_rounds(folder)
    texts = measured_data(results, data, unlabelled)
    if rounds and not new_round:
        design = rounds[-1]
        _check_same(folder, design, wanted, texts)
    else:
        design = _begun(results, wanted, in_question(), texts, number=len(rounds) + 1)
        design.save(folder)
    return Session(
        design,
        Journal(folder / JOURNAL),
        queries=dict(zip(*_pool(texts), strict=True)),
        documents=dict(zip(texts.doc_ids, texts.docs, strict=True)),
        most=most,
        judge=getpass.getuser() if judge is None else judge,
    )


def _begun(results: Results, wanted: Wanted, asked: InQuestion, data: RetrievalSet, *, number: int) -> Design:
    settings = list(asked.settings)
    query_ids, _ = _pool(data)
    frame = results.bounds
    column = f"{asked.metric}_most_lost"
    if frame is None or column not in frame:
        raise ResultsError(
            f"{results.folder} does not say what its settings can lose of {asked.metric}; choose a metric of its "
            "bounds.parquet (ndcg@k, recall@k, mrr@k), or sweep again with this version"
        )
    if not len(query_ids):
        raise ResultsError(
            f"every query of {data.name} has judgements, so there is none to judge; sweep it with more queries "
            "(unlabelled=)"
        )
    if data.unlabelled_source == SENTENCES:
        warnings.warn(
            f"the queries to judge are {SENTENCES}, which only stand in for queries; judgements of real ones "
            "(unlabelled=) say more",
            ToolkitWarning,
            stacklevel=4,
        )
    of_pool = frame[~frame["labelled"]].astype({"setting": str})
    wide = of_pool.pivot(index="query_id", columns="setting", values=column)
    metric = metric_named(asked.metric)
    keys = [asked.reference, *settings]
    neighbours = neighbours_of(results, keys, data)
    return begin(
        number=number,
        settings=settings,
        reference=asked.reference,
        metric=asked.metric,
        keep=asked.keep,
        seed=number - 1 if wanted.seed is None else wanted.seed,
        most_gain=MOST_GAIN if wanted.most_gain is None else wanted.most_gain,
        data_hash=data.content_hash,
        query_ids=query_ids,
        bounds=wide.loc[list(query_ids), settings].to_numpy(),
        rankings=lambda rows: first_documents(
            neighbours, data.doc_ids, {row: query_ids[row] for row in rows}, depth=metric.depth or 0
        ),
    )


def check_settings(settings: Sequence[str], known: Sequence[str]) -> None:
    """Raise PlanError for a setting that was not measured, with the nearest that was."""
    for key in settings:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise PlanError(f"setting {key!r} was not measured{hint}; measurements.csv lists all of them")


def _pool(data: RetrievalSet) -> tuple[Sequence[str], Sequence[str]]:
    """Ids and texts of the queries without judgements: all of them in a set that has none."""
    return (data.unlabelled_ids, data.unlabelled) if data.labelled else (data.query_ids, data.queries)


def _check_same(folder: Path, design: Design, wanted: Wanted, data: RetrievalSet) -> None:
    if design.data_hash != data.content_hash:
        raise ResultsError(
            f"round {design.number} in {folder} judges another data set (content {design.data_hash}, now "
            f"{data.content_hash}); begin another round with new_round=True"
        )
    given = {
        "settings": None if wanted.settings is None else sorted(wanted.settings),
        "metric": wanted.metric,
        "keep": wanted.keep,
        "seed": wanted.seed,
        "most_gain": wanted.most_gain,
    }
    there = {name: getattr(design, name) for name in given} | {"settings": sorted(design.settings)}
    for name, value in given.items():
        if value is not None and value != there[name]:
            raise PlanError(
                f"round {design.number} in {folder} was begun with {name} {there[name]!r}, and what it draws depends "
                f"on that; leave {name} out to go on with it, or begin another round with new_round=True"
                ": its judgements serve there too"
            )
