"""A claim and what was found about it. Measures nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from toolkit.claims.bench import Bench

Verdict = Literal["holds", "does not hold", "cannot be decided here"]
HOLDS: Verdict = "holds"
FAILS: Verdict = "does not hold"
OPEN: Verdict = "cannot be decided here"


@dataclass(frozen=True)
class Finding:
    """What one measurement says.

    figure : the figure in words, with its unit; empty where nothing was measured.
    interval : 95 %, in the figure's unit; None where the figure has none.
    sample : what was measured, and how much of it.
    why : why it cannot be decided, or what the figure means.
    measured : every number behind the figure.
    needs : options of the command that would decide it; empty where it is decided.
    """

    verdict: Verdict
    figure: str = ""
    interval: tuple[float, float] | None = None
    sample: str = ""
    why: str = ""
    measured: Mapping[str, object] = field(default_factory=dict)
    needs: str = ""


@dataclass(frozen=True)
class Claim:
    """One claim: its key, the words, the rule that decides it, and the measurement."""

    key: str
    said: str
    rule: str
    measure: Callable[[Bench], Finding]
    timed: bool = False  # whether other programs' work falsifies it


@dataclass(frozen=True)
class Outcome:
    """A claim and what was found, as it is written to ``claims.json``.

    measured_at : UTC time of the run that it stems from; a run's machine and versions are in `Claims.runs`.
    cores_used_by_others : of a timed one, what other programs took meanwhile; None for others.
    run_again : whether that was so much that the figure and its verdict count for nothing yet.
    """

    key: str
    said: str
    rule: str
    verdict: Verdict
    figure: str
    interval: tuple[float, float] | None
    sample: str
    why: str
    command: str
    measured: Mapping[str, object]
    measured_at: str = ""
    cores_used_by_others: float | None = None
    run_again: bool = False

    @classmethod
    def of(
        cls,
        claim: Claim,
        found: Finding,
        command: str,
        *,
        measured_at: str,
        cores_used_by_others: float | None = None,
        run_again: bool = False,
    ) -> Outcome:
        """The claim with its finding; `command` measures it again, or would decide it."""
        return cls(
            claim.key,
            claim.said,
            claim.rule,
            found.verdict,
            found.figure,
            found.interval,
            found.sample,
            found.why,
            command,
            found.measured,
            measured_at,
            cores_used_by_others,
            run_again,
        )
