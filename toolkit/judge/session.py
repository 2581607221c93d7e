"""A person's way through a round: the next document to judge, an answer, an answer taken back.

What stands in the journal decides where the session is, so one that was killed goes on at the same document, and
two that run at once never ask twice. Knows no terminal and no notebook.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from toolkit.errors import PlanError
from toolkit.judge.design import MOST_DRAWS, Design
from toolkit.judge.journal import ASKED, TAKEN_BACK, UNSURE, Answer, Journal, standing
from toolkit.judge.judged import is_whole
from toolkit.judge.questions import next_document

MOST = 50


@dataclass(frozen=True)
class Question:
    """A document to judge.

    draw : which draw of the round asks for it, from 0.
    number, of : which of the queries it is, from 1, and how many there are to judge.
    left : documents of this query that have no answer yet, this one included.
    """

    query_id: str
    query: str
    doc_id: str
    document: str
    draw: int
    number: int
    of: int
    left: int


def check_most(most: int) -> None:
    """Raise PlanError for a number of draws that no round has."""
    if not 1 <= most <= MOST_DRAWS:
        raise PlanError(f"{most} queries cannot be judged in a round; choose 1..{MOST_DRAWS:,}")


class Session:
    """One round of judging while a person is at it.

    design, journal : the round, and where answers go.
    queries, documents : texts by id.
    most : draws to judge; queries that are drawn again need no second judgement.
    judge : who answers, as the journal names them.
    """

    def __init__(
        self,
        design: Design,
        journal: Journal,
        *,
        queries: Mapping[str, str],
        documents: Mapping[str, str],
        most: int = MOST,
        judge: str = "",
    ) -> None:
        check_most(most)
        self.design = design
        self.journal = journal
        self.judge = judge
        self._most = most
        self._queries, self._documents = queries, documents
        # Of each query to judge, the draw that first asks for it.
        self._draws: dict[str, int] = {}
        for draw, place in enumerate(design.draws[:most]):
            self._draws.setdefault(design.query_ids[place], draw)

    @property
    def queries_to_judge(self) -> int:
        """How many different queries the draws come to."""
        return len(self._draws)

    @property
    def queries_judged(self) -> int:
        """How many of them are judged whole."""
        gains = self.journal.gains
        return sum(is_whole(self.design, query_id, gains) for query_id in self._draws)

    @property
    def summary(self) -> str:
        """How far the session is, in one sentence."""
        done = self.queries_judged
        if done == self.queries_to_judge:
            return f"all {done} queries are judged"
        return f"{done} of {self.queries_to_judge} queries are judged; the same command goes on from here"

    @property
    def question(self) -> Question | None:
        """The document to judge now; None when all are."""
        gains = self.journal.gains
        for number, (query_id, draw) in enumerate(self._draws.items(), start=1):
            known, order = gains.get(query_id, {}), self.design.documents(query_id)
            doc_id = next_document(order, self.design.rankings[query_id], known, metric=self.design.metric)
            if doc_id is not None:
                left = sum(other not in known for other in order)
                return Question(
                    query_id,
                    self._queries[query_id],
                    doc_id,
                    self._documents[doc_id],
                    draw,
                    number,
                    len(self._draws),
                    left,
                )
        return None

    def answer(self, question: Question, gain: int, *, unsure: bool = False) -> bool:
        """Keep an answer; on disk when this returns.

        unsure : the judge cannot tell; such a document counts as not relevant, as one that nobody judged would.

        False if another session answered meanwhile: nothing is kept then, and `question` is the one to ask now.
        Raises PlanError for a gain that is not asked for, ResultsError if the answer cannot be written.
        """
        if gain not in range(self.design.most_gain + 1) or (unsure and gain):
            raise PlanError(f"gain {gain} is not one of 0..{self.design.most_gain}")
        return self._add(question.draw, question.query_id, question.doc_id, gain, UNSURE if unsure else "")

    def undo(self) -> bool:
        """Take the latest answer of this round back, so that its document is asked again; False if there is none."""
        given = [one for one in standing(self.journal.answers) if one.round == self.design.number]
        if not given:
            return False
        return self._add(given[-1].draw, given[-1].query_id, given[-1].doc_id, None, TAKEN_BACK)

    def _add(self, draw: int, query_id: str, doc_id: str, gain: int | None, note: str) -> bool:
        # Before the first answer: how many draws count must not depend on what is drawn.
        if self.journal.asked.get(self.design.number, 0) < self._most and not self._write(
            self._most, "", "", None, ASKED, probability=0.0
        ):
            return False
        probability = float(self.design.probabilities[self.design.draws[draw]])
        return self._write(draw, query_id, doc_id, gain, note, probability=probability)

    def _write(
        self, draw: int, query_id: str, doc_id: str, gain: int | None, note: str, *, probability: float
    ) -> bool:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        number = self.design.number
        return self.journal.add(
            Answer(number, draw, query_id, doc_id, gain, note, now, probability, self.judge)
        )
