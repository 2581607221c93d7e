"""A recommendation as an object: what is advised, what it rests on, and how it reads as text and HTML."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from toolkit.decide.cost import MonthlyCost, Prices
from toolkit.errors import PlanError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Constraints:
    """What the user asks for.

    keep : share of the reference's quality, shown with 95 % confidence.
    metric : the quality, a column of the measurements.
    max_bytes_per_vector, max_p95_ms : limits, inclusive; None is none.
    corpus_size : documents to plan for; None is the measured corpus.
    """

    keep: float = 0.99
    metric: str = "ndcg@10"
    max_bytes_per_vector: float | None = None
    max_p95_ms: float | None = None
    corpus_size: int | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.keep <= 1.0:
            raise PlanError(f"keep {self.keep} is no share of the reference's quality; choose 0.99 or so")
        for name in ("max_bytes_per_vector", "max_p95_ms", "corpus_size"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise PlanError(f"{name} {value} must be above 0")

    @property
    def constraints(self) -> dict[str, str]:
        """The constraints that are set, by field, in words."""
        words = {"keep": f"at least {_percent(self.keep)} of {self.metric}"}
        if self.max_bytes_per_vector is not None:
            words["max_bytes_per_vector"] = f"at most {self.max_bytes_per_vector:g} bytes per vector"
        if self.max_p95_ms is not None:
            words["max_p95_ms"] = f"at most {self.max_p95_ms:g} ms p95"
        return words


@dataclass(frozen=True)
class Candidate:
    """One setting with what it gives and costs at the corpus size asked for.

    quality : mean of the metric; retained : its share of the reference's; at_least : the 95 % lower bound
    of that share for this setting taken alone.
    p95_ms : single-query latency; latency : where that figure is from.
    """

    setting: str
    quality: float
    retained: float
    at_least: float
    bytes_per_vector: float
    p95_ms: float
    latency: str
    cost: MonthlyCost


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
class Undecided:
    """Cheaper settings within the limits that these queries can neither clear nor rule out.

    offer : the cheapest of them whose mean is high enough; queries_needed : to decide on it with 80 %
    power, None if it lies on the very line.
    """

    count: int
    offer: Candidate | None
    queries_needed: int | None


@dataclass(frozen=True, eq=False)
class Recommendation:
    """The cheapest setting that meets a demand, and everything that was weighed.

    choice, runner_up : None if there is none. reference : the exact full-dimension search.
    relaxed : for each constraint what it costs, or, where nothing meets all, the nearest setting that
    meets the others.
    table : one row a setting: cost, bytes, latency, within the limits or not, p-values and verdict, and
    ``alike``: whether its quality cannot be told apart from the choice's (the reference's without one).
    """

    demand: Constraints
    prices: Prices
    subject: str
    documents: int
    queries: int
    reference: Candidate
    choice: Candidate | None
    runner_up: Candidate | None
    relaxed: tuple[ConstraintCost, ...]
    undecided: Undecided
    notes: tuple[str, ...]
    table: pd.DataFrame

    @property
    def feasible(self) -> bool:
        """Whether a setting meets the demand."""
        return self.choice is not None

    def __str__(self) -> str:
        blocks = [[f"{self.headline}"]]
        if self.choice is not None:
            blocks[0] += [f"  {line}" for line in self._facts(self.choice)]
        if self.runner_up is not None:
            blocks.append([f"Runner-up: {self.runner_up.setting}"])
            blocks[-1] += [f"  {line}" for line in self._facts(self.runner_up)]
        title = "What each constraint costs" if self.feasible else "Nearest settings"
        blocks.append([title, *(f"  {left}: {right}" for left, right in self._relaxed_lines())])
        if self._doubts():
            blocks.append(["How sure", *(f"  {line}" for line in self._doubts())])
        blocks.append([f"Prices (USD a month): {self._prices_text()}"])
        blocks += [[f"Note: {note}"] for note in self.notes]
        return "\n".join(line for block in blocks for line in block)

    def _repr_html_(self) -> str:
        rows = [self._row("reference", self.reference)]
        if self.runner_up is not None:
            rows.insert(0, self._row("runner-up", self.runner_up))
        if self.choice is not None:
            rows.insert(0, self._row("recommended", self.choice))
        head = (
            "",
            "setting",
            self.demand.metric,
            "kept",
            "at least",
            "bytes per vector",
            "p95 ms",
            "USD a month",
        )
        relaxed = "".join(
            f"<tr><td>{escape(left)}</td><td>{escape(right)}</td></tr>"
            for left, right in self._relaxed_lines()
        )
        title = "What each constraint costs" if self.feasible else "Nearest settings"
        remarks = [*self._doubts(), f"Prices (USD a month): {self._prices_text()}", *self.notes]
        if self.choice is not None:
            remarks.insert(0, f"Cost of the recommended setting: {self.choice.cost.formula}")
            remarks.insert(1, f"Latency: {self.choice.latency}")
        return (
            '<div class="recommendation">'
            f"<p><strong>{escape(self.headline)}</strong></p>"
            f"<table><thead><tr>{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr></thead>"
            f"<tbody>{''.join(rows)}</tbody></table>"
            f"<p>{title}</p><table><tbody>{relaxed}</tbody></table>"
            f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in remarks)}</ul></div>"
        )

    @property
    def headline(self) -> str:
        """The advice in one line."""
        if self.choice is None:
            return f"{self.subject}: no measured setting meets {self._demand_text()}"
        if self.choice.setting == self.reference.setting:
            return f"{self.subject}: keep {self.choice.setting}; nothing cheaper is shown to keep the quality"
        return f"{self.subject}: take {self.choice.setting}"

    def _demand_text(self) -> str:
        return " and ".join(self.demand.constraints.values())

    def _facts(self, offer: Candidate) -> list[str]:
        kept = f"{offer.quality:.3f} of {self.reference.quality:.3f}, {_percent(offer.retained)} kept"
        if offer.setting == self.reference.setting:
            kept = f"{offer.quality:.3f}, the reference itself"
        else:
            kept += f", at least {_percent(offer.at_least)} with 95 % confidence taken alone"
        size = self.demand.corpus_size or self.documents
        return [
            f"{self.demand.metric}: {kept}",
            f"{offer.bytes_per_vector:,.1f} bytes per vector; p95 {offer.p95_ms:.3g} ms, {offer.latency}",
            f"USD {offer.cost.usd:,.2f} a month for {size:,} vectors = {offer.cost.formula}",
        ]

    def _relaxed_lines(self) -> list[tuple[str, str]]:
        lines = []
        for relaxed in self.relaxed:
            offer = relaxed.offer
            if offer is None:
                told = "dropping it alone does not help"
            elif self.feasible and relaxed.saves_usd > 0:
                told = f"USD {relaxed.saves_usd:,.2f} a month; without it: {offer.setting}"
            elif self.feasible:
                told = "nothing"
            else:
                reason = "met by no setting" if relaxed.met_by_none else "not met"
                told = (
                    f"{reason}, the nearest is {offer.setting}: {_percent(offer.retained)} kept (at least "
                    f"{_percent(offer.at_least)}), {offer.bytes_per_vector:,.1f} bytes per vector, "
                    f"p95 {offer.p95_ms:.3g} ms, USD {offer.cost.usd:,.2f} a month"
                )
            lines.append((relaxed.constraint, told))
        return lines

    def _doubts(self) -> list[str]:
        lines = []
        doubt = self.undecided
        if doubt.count:
            what = "cheaper settings" if self.feasible else "settings within the limits"
            lines.append(
                f"{what} that {self.queries:,} queries can neither clear nor rule out: {doubt.count}"
            )
        if doubt.offer is not None:
            needed = (
                "lies on the line: no number of queries decides"
                if doubt.queries_needed is None
                else f"about {doubt.queries_needed:,} queries would decide"
            )
            lines.append(
                f"the cheapest that may do: {doubt.offer.setting} ({_percent(doubt.offer.retained)} kept in "
                f"the sample, USD {doubt.offer.cost.usd:,.2f} a month); {needed}"
            )
        alike = self.table.loc[self.table["alike"], "setting"]
        other = self.choice or self.reference
        count = int((alike != other.setting).sum())
        if count:
            lines.append(
                f"settings whose quality cannot be told apart from that of {other.setting}: "
                f"{count} of {len(self.table) - 1}"
            )
        return lines

    def _prices_text(self) -> str:
        prices = self.prices
        return (
            f"{prices.ram_usd_per_gb:g} per GB memory, {prices.disk_usd_per_gb:g} per GB disk, "
            f"{prices.vcpu_usd:g} per vCPU at {prices.peak_qps:g} queries/s; {prices.source}"
        )

    def _row(self, name: str, offer: Candidate) -> str:
        cells = (
            name,
            offer.setting,
            f"{offer.quality:.3f}",
            _percent(offer.retained),
            _percent(offer.at_least),
            f"{offer.bytes_per_vector:,.1f}",
            f"{offer.p95_ms:.3g}",
            f"{offer.cost.usd:,.2f}",
        )
        return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


def _percent(share: float) -> str:
    """A share as a percentage, never rounded up to a claim it does not meet."""
    return f"{int(share * 1000 + 1e-9) / 10:g} %"
