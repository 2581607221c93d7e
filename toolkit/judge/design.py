"""One round of judging, fixed before its first question: which settings, which queries how likely, which seed.

    design-1.json       settings in question, reference, metric, keep, seed, grades, hash of the data
    pool-1.parquet      query_id, probability: every unlabelled query
    rankings-1.parquet  query_id, setting, doc_ids: the first documents, of every query that the seed draws

Probabilities that changed on the way would make every weight wrong, so a round is written once and only read
from then on; another question is another round. Knows no answer.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from toolkit.errors import PlanError, ResultsError
from toolkit.files import parse_json, write_atomically
from toolkit.judge.draw import Draws, draw_probabilities
from toolkit.judge.questions import Found, documents_to_judge
from toolkit.measure.agreement import Ranking, as_evaluated
from toolkit.measure.metrics import metric_named
from toolkit.search.neighbours import Neighbours

if TYPE_CHECKING:
    import pandas as pd

FOLDER = "judgements"
SCHEMA = 1
# A round holds the rankings of so many draws; nobody judges more.
MOST_DRAWS = 1_000
# Every document of every ranking is read by a person.
MOST_DEPTH = 20
GRADES = (1, 3)


@dataclass(frozen=True, eq=False)
class Design:
    """A round of judging.

    number : of the round, from 1.
    settings : in question, cheapest first; reference : what they are held against.
    metric, keep : which quality, and which share of it must be kept.
    seed : of the draws and of the order in which documents are shown.
    most_gain : 1 for relevant or not, 3 for gains 0 to 3.
    data_hash : of the data set whose texts are shown.
    begun_utc : ISO 8601.
    query_ids, probabilities : the pool, and how likely each of its queries is at every draw; (queries,).
    rankings : query id -> setting -> document ids, best first; of all queries that are drawn.
    """

    number: int
    settings: tuple[str, ...]
    reference: str
    metric: str
    keep: float
    seed: int
    most_gain: int
    data_hash: str
    begun_utc: str
    query_ids: Sequence[str]
    probabilities: np.ndarray
    rankings: Mapping[str, Found]

    @cached_property
    def draws(self) -> list[int]:
        """Positions in the pool of all queries that the round can draw, in order, repeated ones too."""
        drawn = Draws(self.probabilities, self.seed)
        return [drawn[number] for number in range(MOST_DRAWS)]

    def documents(self, query_id: str) -> tuple[str, ...]:
        """What is to be judged of a query, in order."""
        if query_id not in self._orders:
            self._orders[query_id] = documents_to_judge(
                self.rankings[query_id], query_id=query_id, seed=self.seed
            )
        return self._orders[query_id]

    @cached_property
    def _orders(self) -> dict[str, tuple[str, ...]]:
        return {}

    def save(self, folder: Path) -> None:
        """Write the round down; the JSON comes last, and without it there is no round. Raises ResultsError."""
        import pandas as pd

        pool = pd.DataFrame({"query_id": list(self.query_ids), "probability": self.probabilities})
        rankings = pd.DataFrame(
            [
                (query_id, setting, list(doc_ids))
                for query_id, found in self.rankings.items()
                for setting, doc_ids in found.items()
            ],
            columns=["query_id", "setting", "doc_ids"],
        )
        facts = {
            "schema": SCHEMA,
            "settings": list(self.settings),
            "reference": self.reference,
            "metric": self.metric,
            "keep": self.keep,
            "seed": self.seed,
            "most_gain": self.most_gain,
            "data_hash": self.data_hash,
            "begun_utc": self.begun_utc,
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(_pool(folder, self.number), _parquet(pool))
            write_atomically(_rankings(folder, self.number), _parquet(rankings))
            payload = json.dumps(facts, indent=2, ensure_ascii=False).encode("utf-8", "surrogatepass")
            write_atomically(_facts(folder, self.number), payload)
        except OSError as error:
            raise ResultsError(
                f"{folder} cannot be written ({error.strerror or error}); judging keeps its answers there, so "
                "make room or mend its permissions"
            ) from error


def begin(
    *,
    number: int,
    settings: Sequence[str],
    reference: str,
    metric: str,
    keep: float,
    seed: int,
    most_gain: int,
    data_hash: str,
    query_ids: Sequence[str],
    bounds: np.ndarray,
    rankings: Callable[[Sequence[int]], Mapping[str, Found]],
) -> Design:
    """A new round, not yet saved.

    bounds : (queries, settings) the most of the metric that each setting can lose at each query of the pool.
    rankings : gives those of the queries at some positions of the pool, for the reference and all settings.

    Raises PlanError for a round that cannot work.
    """
    depth = metric_named(metric).depth
    if metric_named(metric).kind != "retrieval" or depth is None or depth > MOST_DEPTH:
        raise PlanError(
            f"{metric} cannot be judged by a person; choose ndcg@k, recall@k, mrr@k or map@k with k up to {MOST_DEPTH}"
        )
    if most_gain not in GRADES:
        raise PlanError(f"gains up to {most_gain} are not asked for; choose one of {GRADES}")
    if not settings or reference in settings:
        raise PlanError("judging compares settings with the reference; name at least one other (settings=)")
    probabilities = draw_probabilities(bounds)
    drawn = Draws(probabilities, seed)
    positions = list(dict.fromkeys(drawn[i] for i in range(MOST_DRAWS)))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Design(
        number,
        tuple(settings),
        reference,
        metric,
        keep,
        seed,
        most_gain,
        data_hash,
        now,
        list(query_ids),
        probabilities,
        rankings(positions),
    )


def load_rounds(folder: Path) -> list[Design]:
    """All rounds of a results folder's ``judgements``, in order; raises ResultsError for a damaged one."""
    rounds: list[Design] = []
    while _facts(folder, len(rounds) + 1).is_file():
        rounds.append(_load(folder, len(rounds) + 1))
    return rounds


def first_documents(
    neighbours: Mapping[str, Ranking],
    doc_ids: Sequence[str],
    query_ids: Mapping[int, str],
    *,
    depth: int,
) -> dict[str, dict[str, tuple[str, ...]]]:
    """The documents that each setting's metric sees, in the order in which trec_eval takes them.

    neighbours : setting -> what it found, one row per query.
    query_ids : row -> query id, of the rows wanted.
    """
    rows = list(query_ids)
    found: dict[str, dict[str, tuple[str, ...]]] = {query_id: {} for query_id in query_ids.values()}
    for setting, ranking in neighbours.items():
        wanted = Neighbours(ranking.rows[rows], ranking.scores[rows])
        first = as_evaluated(wanted, doc_ids)[:, :depth]
        for query_id, positions in zip(query_ids.values(), first.tolist(), strict=True):
            found[query_id][setting] = tuple(doc_ids[i] for i in positions if i >= 0)
    return found


def _load(folder: Path, number: int) -> Design:
    import pandas as pd

    try:
        facts = parse_json(_facts(folder, number).read_bytes())
        if facts["schema"] > SCHEMA:
            raise ResultsError(
                f"{_facts(folder, number)} was written by a later version; update this package: "
                "pip install --upgrade embedding-toolkit"
            )
        pool = pd.read_parquet(_pool(folder, number))
        rankings: dict[str, dict[str, tuple[str, ...]]] = {}
        for row in pd.read_parquet(_rankings(folder, number)).itertuples(index=False):
            rankings.setdefault(row.query_id, {})[row.setting] = tuple(row.doc_ids)
        return Design(
            number,
            tuple(facts["settings"]),
            facts["reference"],
            facts["metric"],
            float(facts["keep"]),
            int(facts["seed"]),
            int(facts["most_gain"]),
            facts["data_hash"],
            facts["begun_utc"],
            pool["query_id"].tolist(),
            pool["probability"].to_numpy(dtype=np.float64),
            rankings,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResultsError(
            f"round {number} in {folder} is damaged ({str(error).splitlines()[0]}); its judgements are in "
            f"judgements.tsv all the same: move design-{number}.json away and begin the round again"
        ) from error


def _facts(folder: Path, number: int) -> Path:
    return folder / f"design-{number}.json"


def _pool(folder: Path, number: int) -> Path:
    return folder / f"pool-{number}.parquet"


def _rankings(folder: Path, number: int) -> Path:
    return folder / f"rankings-{number}.parquet"


def _parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False, compression="zstd")
    return buffer.getvalue()
