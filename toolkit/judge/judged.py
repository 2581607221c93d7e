"""From judgements to numbers: the metric at every draw that is judged whole, with the probability of the draw.

Draws behind the first that is not whole do not count, whatever is known of them: which queries are easy to
finish must not decide which ones count. Nor do draws beyond those that were to be judged: they would count only where
they repeat a judged query, so that queries which are drawn often would count too often. Knows no test and no verdict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from toolkit.judge.design import Design, load_rounds
from toolkit.judge.journal import JOURNAL, Journal
from toolkit.judge.questions import next_document
from toolkit.measure.quality import evaluate
from toolkit.search.neighbours import Neighbours

if TYPE_CHECKING:
    import pandas as pd

Gains = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, eq=False)
class Judged:
    """What one round of judging has measured so far.

    design : the round; its pool is what the draws stand for.
    query_ids : of each draw in order, (draws,); a query that was drawn again stands again.
    probabilities : of drawing that query, (draws,).
    values : the metric, one row per draw; the reference's column first, then those of the settings in question.
    """

    design: Design
    query_ids: tuple[str, ...]
    probabilities: np.ndarray
    values: pd.DataFrame

    @property
    def weights(self) -> np.ndarray:
        """1 / (queries of the pool x probability), (draws,): times a value, its mean estimates the pool's mean."""
        return 1.0 / (len(self.design.query_ids) * self.probabilities)


def load_judged(folder: Path) -> list[Judged]:
    """What each round in a results folder's ``judgements`` has measured, rounds without a whole draw left out.

    Raises ResultsError for damaged files.
    """
    rounds = load_rounds(folder)
    if not rounds:
        return []
    journal = Journal(folder / JOURNAL)
    gains = journal.gains
    found = (judged_of(design, gains, draws=journal.asked.get(design.number)) for design in rounds)
    return [one for one in found if one.query_ids]


def judged_of(design: Design, gains: Gains, *, draws: int | None = None) -> Judged:
    """The whole draws of a round, up to the first that is not; at most `draws` of them."""
    positions = design.draws[:draws]
    whole = 0
    known: dict[str, bool] = {}
    for place in positions:
        query_id = design.query_ids[place]
        if query_id not in known:
            known[query_id] = is_whole(design, query_id, gains)
        if not known[query_id]:
            break
        whole += 1
    places = positions[:whole]
    query_ids = tuple(design.query_ids[place] for place in places)
    values = values_of(design, gains, list(dict.fromkeys(query_ids)))
    return Judged(
        design, query_ids, design.probabilities[places], values.loc[list(query_ids)].reset_index(drop=True)
    )


def is_whole(design: Design, query_id: str, gains: Gains) -> bool:
    """Whether all documents of a query that the metric depends on are judged."""
    rankings, known = design.rankings[query_id], gains.get(query_id, {})
    return next_document(design.documents(query_id), rankings, known, metric=design.metric) is None


def values_of(design: Design, gains: Gains, query_ids: Sequence[str]) -> pd.DataFrame:
    """The metric of the reference and of each setting in question, (queries, 1 + settings), by pytrec_eval.

    Judgements count of the documents that this round asks for, so that a query which another round asked more
    about is measured as all others are. A query of which nothing relevant was found is 0 for every setting.
    """
    import pandas as pd

    asked = {query_id: _asked(design, query_id, gains) for query_id in query_ids}
    columns = {
        setting: _values(design, setting, asked, query_ids)
        for setting in (design.reference, *design.settings)
    }
    return pd.DataFrame(columns, index=list(query_ids))


def _asked(design: Design, query_id: str, gains: Gains) -> dict[str, int]:
    known = gains.get(query_id, {})
    return {doc_id: known[doc_id] for doc_id in design.documents(query_id) if doc_id in known}


def _values(design: Design, setting: str, gains: Gains, query_ids: Sequence[str]) -> np.ndarray:
    found = [design.rankings[query_id][setting] for query_id in query_ids]
    doc_ids = list(dict.fromkeys(doc_id for documents in found for doc_id in documents))
    place = {doc_id: i for i, doc_id in enumerate(doc_ids)}
    depth = max((len(documents) for documents in found), default=0)
    rows = np.full((len(found), depth), -1)
    for row, documents in zip(rows, found, strict=True):
        row[: len(documents)] = [place[doc_id] for doc_id in documents]
    scores = np.broadcast_to(-np.arange(depth, dtype=np.float64), rows.shape)  # they are in trec_eval's order
    return evaluate(Neighbours(rows, scores), doc_ids, query_ids, gains, metrics=[design.metric])[
        design.metric
    ]
