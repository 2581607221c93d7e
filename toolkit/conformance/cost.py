"""What trusting a server costs in nDCG@10: its vectors as a plain client uses them, beside as they should be used."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toolkit.conformance.subject import Subject
from toolkit.data.sets import RetrievalSet
from toolkit.errors import ServerError
from toolkit.measure.quality import evaluate
from toolkit.progress import progress_bar
from toolkit.vectors import normalize, truncate

_DEPTH = 10
_BATCH = 32
_CLIENTS = 16


@dataclass(frozen=True)
class _Ranking:
    rows: np.ndarray
    scores: np.ndarray


class Cost:
    """Measures handlings on a sample of a set: its first `queries` queries with what answers them, and other documents.

    documents : at most so many, those that answer first.
    """

    def __init__(
        self, subject: Subject, data: RetrievalSet, *, queries: int = 50, documents: int = 300
    ) -> None:
        self._subject = subject
        self._query_ids = list(data.query_ids[:queries])
        wanted = {
            doc for query in self._query_ids for doc, gain in data.qrels.get(query, {}).items() if gain > 0
        }
        order = sorted(range(len(data.doc_ids)), key=lambda i: data.doc_ids[i] not in wanted)[:documents]
        # An empty text has no vector, and is nobody's answer.
        order = [i for i in order if data.docs[i]]
        self._doc_ids = [data.doc_ids[i] for i in order]
        self._docs = [data.docs[i] for i in order]
        self._queries = list(data.queries[: len(self._query_ids)])
        self._qrels = data.qrels

    def of(self, handling: str) -> float:
        """nDCG@10 lost by a handling, 0..1; below 0 where it gains by chance. Raises ServerError."""
        texts = self._queries + self._docs
        careful = self._one_by_one(texts)
        half = careful.shape[1] // 2
        if handling == "not normalized":
            right, used = normalize(careful), careful
        elif handling in ("cut, not normalized", "cut by the server"):
            right, used = truncate(careful, half), self._batched(texts, dimensions=half)
        elif handling == "batches":
            right, used = normalize(careful), self._batched(texts)
        elif handling == "at once":
            right, used = normalize(careful), self._at_once(texts)
        else:
            local = self._subject.reference
            queries = [local.space.render(text, "query") for text in self._queries]
            documents = [local.space.render(text, "document") for text in self._docs]
            right, used = local.encode(queries + documents), self._one_by_one(queries + documents)
        return self._ndcg(right) - self._ndcg(used)

    def _ndcg(self, rows: np.ndarray) -> float:
        scores = rows[: len(self._queries)] @ rows[len(self._queries) :].T
        best = np.argsort(-scores, axis=1, kind="stable")[:, :_DEPTH]
        ranking = _Ranking(best, np.take_along_axis(scores, best, axis=1))
        found = evaluate(ranking, self._doc_ids, self._query_ids, self._qrels, metrics=["ndcg@10"])
        return float(found["ndcg@10"].mean())

    def _one_by_one(self, texts: list[str]) -> np.ndarray:
        with progress_bar(total=len(texts), label="cost: one by one", unit="text") as bar:
            rows = []
            for text in texts:
                rows.append(self._subject.alone((text,))[0])
                bar.update()
        return np.stack(rows)

    def _batched(self, texts: list[str], *, dimensions: int | None = None) -> np.ndarray:
        blocks = []
        for start in range(0, len(texts), _BATCH):
            answer = self._subject.server.ask(texts[start : start + _BATCH], dimensions=dimensions)
            if answer.rows is None:
                raise ServerError(f"the cost cannot be measured: {answer.why}")
            blocks.append(answer.rows)
        return np.concatenate(blocks)

    def _at_once(self, texts: list[str]) -> np.ndarray:
        answers = self._subject.server.at_once(texts, clients=_CLIENTS)
        lost = [answer for answer in answers if answer.rows is None]
        if lost:
            raise ServerError(f"the cost cannot be measured: {lost[0].why}")
        return np.concatenate([answer.rows for answer in answers])
