"""A judge who knows: answers from judgements that were hidden, for tests and for measuring how well judging decides."""

from __future__ import annotations

from collections.abc import Mapping

from toolkit.judge.design import Design
from toolkit.judge.judged import Gains, Judged, judged_of
from toolkit.judge.session import Session


def answers_of(design: Design, qrels: Gains, query_id: str) -> dict[str, int]:
    """What somebody who knows the judgements answers about a query: each document asked for, with its gain.

    What is not judged is not relevant; gains beyond those asked for are cut.
    """
    known: Mapping[str, int] = qrels.get(query_id, {})
    return {
        doc_id: min(max(known.get(doc_id, 0), 0), design.most_gain) for doc_id in design.documents(query_id)
    }


def judged_from(design: Design, qrels: Gains, *, draws: int) -> Judged:
    """A round as it stands when such a judge has answered the first `draws` of it; writes nothing."""
    drawn = {design.query_ids[place] for place in design.draws[:draws]}
    return judged_of(design, {one: answers_of(design, qrels, one) for one in drawn}, draws=draws)


def answer_all(session: Session, qrels: Gains) -> int:
    """Let such a judge answer a session's questions one by one to the end; returns how many there were."""
    asked = 0
    while (question := session.question) is not None:
        session.answer(question, answers_of(session.design, qrels, question.query_id)[question.doc_id])
        asked += 1
    return asked
