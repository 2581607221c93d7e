"""A recommendation as plain data: what was asked for, what is advised, and what was weighed.

How it reads is in wording.py; how a page or a notebook shows it is theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING

from toolkit.decide.advice import recommendation_headline, recommendation_text
from toolkit.decide.as_json import recommendation_facts
from toolkit.decide.cost import MonthlyCost, Prices
from toolkit.decide.wording import percent
from toolkit.errors import PlanError
from toolkit.measure.metrics import described
from toolkit.measure.noninferiority import GRADES, KEEPS, Grade

if TYPE_CHECKING:
    import pandas as pd

    from toolkit.decide.size_trend import KeptBySize


@dataclass(frozen=True)
class Constraints:
    """What the user asks for.

    metric : the quality, a column of the measurements.
    keep : share of the reference's quality.
    max_bytes_per_vector, max_p95_ms : limits, inclusive; None is none.
    corpus_size : documents to plan for; None is the measured corpus.
    grade : the least that counts as keeping the quality.
    """

    metric: str
    keep: float = 0.99
    max_bytes_per_vector: float | None = None
    max_p95_ms: float | None = None
    corpus_size: int | None = None
    grade: Grade = "likely"

    def __post_init__(self) -> None:
        if not 0.0 < _number("keep", self.keep) <= 1.0:
            raise PlanError(
                f"keep {self.keep} is not a share of the reference's quality; choose above 0 and up to 1, "
                "for example 0.99"
            )
        for name in ("max_bytes_per_vector", "max_p95_ms", "corpus_size"):
            value = getattr(self, name)
            if value is not None and not _number(name, value) > 0:
                raise PlanError(f"{name} {value} must be above 0")
        if self.grade not in GRADES:
            raise PlanError(f"grade {self.grade!r} is not one of {', '.join(GRADES)}")

    @property
    def verdicts(self) -> tuple[str, ...]:
        """The verdicts that count as keeping the quality."""
        return ("reference", *(KEEPS if self.grade == "likely" else KEEPS[:1]))

    @property
    def constraints(self) -> dict[str, str]:
        """The constraints that are set, by field, in words."""
        words = {"keep": f"at least {percent(self.keep)} of {described(self.metric).label}"}
        if self.max_bytes_per_vector is not None:
            words["max_bytes_per_vector"] = f"at most {self.max_bytes_per_vector:g} bytes per vector"
        if self.max_p95_ms is not None:
            words["max_p95_ms"] = f"at most {self.max_p95_ms:g} ms p95"
        return words


@dataclass(frozen=True)
class Candidate:
    """One setting with what it gives and costs at the corpus size asked for.

    quality : mean of the metric, nan where nobody knows it; retained : its share of the reference's.
    verdict : ``keeps (proven)``, ``keeps (likely)``, ``loses``, ``undecided`` or ``reference``, all settings together.
    p : that of "likely", adjusted for all of them; None for the reference.
    at_least, likely_at_least : the 95 % lower bounds of the share kept, for this setting taken alone.
    p95_ms : single-query latency; latency : where that figure is from.
    run_as : the setting one would run at that size: lists, probes and graph width follow the corpus.
    by_size : how the share kept goes with the corpus; None where the sweep did not measure that.
    """

    setting: str
    instruction: str
    quality: float
    retained: float
    verdict: str
    p: float | None
    at_least: float
    likely_at_least: float
    bytes_per_vector: float
    p95_ms: float
    latency: str
    cost: MonthlyCost
    run_as: str
    by_size: KeptBySize | None = None


@dataclass(frozen=True)
class ConstraintCost:
    """What dropping one constraint would give.

    offer : the setting then advised; where nothing meets the demand, the one that misses this constraint
    least. None if others stand in the way as well.
    met_by_none : no setting meets this constraint even by itself.
    """

    constraint: str
    offer: Candidate | None
    saves_usd: float
    met_by_none: bool = False


@dataclass(frozen=True)
class InstructionQuality:
    """What an instruction gives in the exact full-dimension search.

    difference, low, high : against the best instruction, paired by query, with its 95 % interval; whole clusters are
        drawn together. p : of "no difference", Holm-adjusted over all others. clusters : how many; None if each query
        is one of its own.
    """

    label: str
    quality: float
    difference: float
    low: float
    high: float
    p: float = 1.0
    clusters: int | None = None


@dataclass(frozen=True)
class Undecided:
    """Settings within the limits, cheaper than the one advised, that these queries do not decide.

    offer : the cheapest of them whose mean is high enough.
    labels, draws : how many labelled queries, or queries drawn for judging, would decide on it with 80 % power, a
    range whose upper end is None for "many more"; None if nothing can be said.
    """

    count: int
    offer: Candidate | None
    labels: tuple[int, int | None] | None
    draws: tuple[int, int | None] | None


@dataclass(frozen=True, eq=False)
class Recommendation:
    """The cheapest settings that meet a demand, and everything that was weighed. Its str() is for people.

    choice : the cheapest that is proven to keep the quality, the reference itself at the latest; None if there is none
    within the limits. likely : the cheapest that is likely to, where that is cheaper; else None.
    advised : the cheaper of the two. runner_up : the next that keeps the quality, proven or likely.
    labelled, unlabelled, judged : queries with judgements, without any, and draws that a person judged; clusters :
    what the labelled ones come from, None if each stands by itself.
    bounded : whether rankings were recorded, without which nothing is likely.
    reference : the exact full-dimension search.
    relaxed : for each constraint what it costs, or, where nothing meets all, the nearest setting that
    meets the others.
    instructions : what each one gives, the best first; empty where one was measured.
    table : one row per setting: quality, cost, bytes, latency, within the limits or not, p-values and verdict, and
    ``falls_short``: whether it keeps too little at the size asked for, and
    ``alike``: whether its quality cannot be told apart from that of the advised one (the reference's without one).
    """

    demand: Constraints
    prices: Prices
    subject: str
    documents: int
    labelled: int
    unlabelled: int
    judged: int
    clusters: int | None
    bounded: bool
    reference: Candidate
    choice: Candidate | None
    likely: Candidate | None
    runner_up: Candidate | None
    relaxed: tuple[ConstraintCost, ...]
    undecided: Undecided
    instructions: tuple[InstructionQuality, ...]
    notes: tuple[str, ...]
    table: pd.DataFrame

    @property
    def advised(self) -> Candidate | None:
        """The cheapest setting that keeps the quality, proven or likely."""
        return self.likely or self.choice

    @property
    def feasible(self) -> bool:
        """Whether a setting meets the demand."""
        return self.advised is not None

    @property
    def headline(self) -> str:
        """The advice in one line."""
        return recommendation_headline(self)

    def as_dict(self) -> dict[str, object]:
        """All of it but the table as plain values for JSON: settings with their arguments, shares, costs, and words."""
        return recommendation_facts(self)

    def __str__(self) -> str:
        return recommendation_text(self)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise PlanError(f"{name} {value!r} must be a number, not {type(value).__name__}")
    return float(value)
