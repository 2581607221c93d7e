"""How a recommendation reads: headline, table and lines, for a terminal, a page and a notebook alike.

Knows no matplotlib, no HTML and no file.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING

from toolkit.decide.wording import instruction_text, number, percent, signed, usd_text
from toolkit.measure.metrics import described
from toolkit.measure.noninferiority import LIKELY_SHARE

if TYPE_CHECKING:
    from toolkit.decide.recommendation import Candidate, ConstraintCost, Recommendation, Undecided

_HEADS = ("kept", "at least, proven", "at least, likely", "bytes per vector", "p95 ms", "USD per month")


@dataclass(frozen=True)
class RecommendationText:
    """A recommendation in words, laid out so that a page and a terminal say the same.

    heads, rows : the cheapest likely and the cheapest proven setting, the runner-up and the reference, one row each.
    sure : how sure the advice is, what it rests on, and what would settle what is open.
    constraints : what each constraint costs, or, where nothing meets all, the nearest settings.
    remarks : where the figures come from.
    """

    headline: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    sure: tuple[str, ...]
    constraints_title: str
    constraints: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...]


def recommendation_words(found: Recommendation) -> RecommendationText:
    """The recommendation as a headline, a table, and lines."""
    remarks = [*_instruction_lines(found), f"Prices: {_prices_text(found)}", *found.notes]
    if found.advised is not None:
        remarks.insert(0, f"Cost of the recommended setting: {found.advised.cost.formula}")
        remarks.insert(1, f"Latency: {found.advised.latency}")
    return RecommendationText(
        headline=recommendation_headline(found),
        heads=("", "setting", described(found.demand.metric).label, *_HEADS),
        rows=tuple(_row(name, offer) for name, offer in _offers(found)),
        sure=(*_sure(found), *_open(found)),
        constraints_title="What each constraint costs" if found.feasible else "Nearest settings",
        constraints=tuple((one.constraint, _constraint_line(found, one)) for one in found.relaxed),
        remarks=tuple(remarks),
    )


def recommendation_text(found: Recommendation) -> str:
    """The recommendation for a terminal."""
    words = recommendation_words(found)
    lines = [words.headline]
    for name, offer in _offers(found)[:-1] or _offers(found):
        lines += [f"{name[0].upper()}{name[1:]}: {offer.setting}"]
        lines += [f"  {line}" for line in _facts(found, offer)]
    lines += ["How sure", *(f"  {line}" for line in words.sure)]
    lines += [words.constraints_title, *(f"  {left}: {right}" for left, right in words.constraints)]
    lines += [*_instruction_lines(found), f"Prices: {_prices_text(found)}"]
    return "\n".join([*lines, *(f"Note: {note}" for note in found.notes)])


def recommendation_headline(found: Recommendation) -> str:
    """The advice in one line."""
    advised, what = found.advised, _asked(found)
    if advised is None:
        wanted = " and ".join(found.demand.constraints.values())
        return f"{found.subject}: no measured setting is {_grades(found)} to meet {wanted}"
    name = _named(found, advised)
    if advised.setting != found.reference.setting:
        grade = "proven" if advised.verdict == "keeps (proven)" else "likely"
        told = (
            f"{found.subject}: take {name}; it keeps {percent(advised.retained)} of {_label(found)} ({grade})"
        )
        if found.likely is not None and found.choice is not None:
            return f"{told}; {_cheapest_proven(found)}"
        return told
    hope = found.undecided.offer
    tail = "" if hope is None else f"; the cheapest that might is {hope.setting}, and more queries would tell"
    return f"{found.subject}: keep {name}; no cheaper setting is {_grades(found)} to keep {what}{tail}"


def _offers(found: Recommendation) -> list[tuple[str, Candidate]]:
    """What a reader compares, the reference last."""
    offers: list[tuple[str, Candidate | None]] = [
        ("cheapest likely", found.likely),
        ("cheapest proven", found.choice),
        ("runner-up", found.runner_up),
    ]
    own = found.reference.setting
    shown: dict[str, tuple[str, Candidate]] = {}
    for name, offer in offers:
        if offer is not None and offer.setting != own:
            shown.setdefault(offer.setting, (name, offer))
    return [*shown.values(), ("reference", found.reference)]


def _grades(found: Recommendation) -> str:
    return "proven" if found.demand.grade == "proven" else "proven or likely"


def _named(found: Recommendation, offer: Candidate) -> str:
    if found.instructions and offer.instruction in ("default", "none"):
        return f"{offer.setting} with {instruction_text(offer.instruction)}"
    return offer.setting


def _cheapest_proven(found: Recommendation) -> str:
    choice = found.choice
    if choice is None:
        return "none within the limits is proven to"
    if choice.setting == found.reference.setting:
        return "proven is only the reference"
    return f"the cheapest proven to is {choice.setting}"


def _label(found: Recommendation) -> str:
    return described(found.demand.metric).label


def _asked(found: Recommendation) -> str:
    return f"{percent(found.demand.keep)} of {_label(found)}"


def _facts(found: Recommendation, offer: Candidate) -> list[str]:
    if offer.setting == found.reference.setting:
        kept = f"{number(offer.quality)}, the reference itself"
    else:
        kept = (
            f"{number(offer.quality)} of {number(found.reference.quality)}, {percent(offer.retained)} kept; at least "
            f"{percent(offer.at_least)} proven and {percent(offer.likely_at_least)} likely (95 %, tested alone)"
        )
    size = found.demand.corpus_size or found.documents
    return [
        f"{_label(found)}: {kept}",
        f"{number(offer.bytes_per_vector, 4)} bytes per vector; "
        f"p95 {number(offer.p95_ms)} ms, {offer.latency}",
        f"{usd_text(offer.cost.usd)} per month for {size:,} vectors = {offer.cost.formula}",
    ]


def _row(name: str, offer: Candidate) -> tuple[str, ...]:
    return (
        name,
        offer.setting,
        number(offer.quality),
        percent(offer.retained),
        percent(offer.at_least),
        percent(offer.likely_at_least),
        number(offer.bytes_per_vector, 4),
        number(offer.p95_ms),
        usd_text(offer.cost.usd).replace("USD ", ""),
    )


def _constraint_line(found: Recommendation, relaxed: ConstraintCost) -> str:
    offer = relaxed.offer
    if offer is None:
        return "dropping it alone does not help"
    if found.feasible:
        if not relaxed.saves_usd > 0:
            return "costs nothing"
        return f"costs {usd_text(relaxed.saves_usd)} per month; without it: {offer.setting}"
    reason = "met by no setting" if relaxed.met_by_none else "not met"
    sure = "" if isnan(offer.at_least) else f" (at least {percent(offer.at_least)})"
    return (
        f"{reason}, the nearest is {offer.setting}: {percent(offer.retained)} kept{sure}, "
        f"{number(offer.bytes_per_vector, 4)} bytes per vector, "
        f"p95 {number(offer.p95_ms)} ms, {usd_text(offer.cost.usd)} per month"
    )


def _sure(found: Recommendation) -> list[str]:
    """What the advice rests on, and the risk that it is wrong."""
    lines = [_evidence(found)]
    others = len(found.table) - 1
    if not others:
        return [*lines, "no setting beside the reference was measured"]
    if found.likely is not None and found.likely.p is not None:
        lines.append(
            f"likely (p {_probability(found.likely.p)}, all settings together) takes it that queries which nobody "
            f"judged lose no more than {percent(LIKELY_SHARE)} of what their rankings allow, and all of it where "
            f"hardly anything of the reference's ranking is left; without that, {found.likely.setting} keeps at "
            f"least {percent(found.likely.at_least)}"
        )
    lines.append(
        f"all {others} settings beside the reference were tested together (Holm), whatever the limits: the chance that "
        "any of them is wrongly said to be proven is at most 5 %"
    )
    lines += [
        line
        for offer in {one.setting: one for one in (found.likely, found.choice) if one is not None}.values()
        for line in _by_size(found, offer)
    ]
    if not found.bounded:
        lines.append(
            "this folder does not hold what each ranking can lose at most, so nothing can be called likely: it was "
            "written by an earlier version, or the metric has no such bound; run the sweep again"
        )
    return lines


def _by_size(found: Recommendation, offer: Candidate) -> list[str]:
    """What one would run at the size asked for, and how the share kept goes with the corpus."""
    size, trend = found.demand.corpus_size, offer.by_size
    lines = []
    if size is not None and offer.run_as != offer.setting:
        lines.append(f"with {size:,} documents one would run {offer.setting} as {offer.run_as}")
    if offer.setting == found.reference.setting or trend is None or trend.slope is None:
        return lines
    measured = ", ".join(f"{percent(one.kept)} at {one.documents:,}" for one in trend.measured)
    slope = trend.slope
    told = (
        f"{offer.setting} keeps {measured} documents: {_points(slope.per_tenfold)} points per tenfold (95 % interval "
        f"{_points(slope.low)} to {_points(slope.high)})"
    )
    if trend.asked is not None and not trend.asked.measured:
        at = trend.asked
        told += f"; at {at.documents:,}: {percent(at.kept)} ({percent(at.low)} to {percent(at.high)}), {at.source}"
    return [*lines, told]


def _points(share: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{100 * share:+.2g}"


def _evidence(found: Recommendation) -> str:
    """How many queries of which kind."""
    parts = []
    if found.labelled:
        clusters = f" in {found.clusters:,} clusters" if found.clusters else ""
        kind = "labelled queries" if described(found.demand.metric).kind == "retrieval" else "queries"
        parts.append(f"{found.labelled:,} {kind}{clusters}")
    if found.judged:
        parts.append(f"{found.judged:,} queries judged where settings can lose most")
    if found.unlabelled:
        parts.append(f"the rankings of {found.unlabelled:,} queries without judgements")
    told = f"rests on {' and '.join(parts) or 'rankings alone'}"
    if described(found.demand.metric).kind == "retrieval":
        return told
    return (
        f"{told}; nobody judged them, so what is kept is agreement with the full setting's own ranking, which says "
        "little about settings that rank differently and just as well (toolkit judge asks you about a few)"
    )


def _open(found: Recommendation) -> list[str]:
    """What is undecided, and what would settle it."""
    lines, doubt = [], found.undecided
    if doubt.count:
        what = "cheaper setting" if found.feasible else "setting within the limits"
        many = f"{what} is" if doubt.count == 1 else f"{what.replace('setting', 'settings', 1)} are"
        lines.append(f"{doubt.count} {many} undecided")
    if doubt.offer is not None:
        lines.append(
            f"the cheapest that may keep {percent(found.demand.keep)}: {doubt.offer.setting} "
            f"({percent(doubt.offer.retained)} in this sample, {usd_text(doubt.offer.cost.usd)} per month)"
            f"{_settling(doubt)}"
        )
    other = found.advised or found.reference
    alike = (
        found.table.loc[found.table["alike"], "setting"]
        if "alike" in found.table
        else found.table["setting"][:0]
    )
    count = int((alike != other.setting).sum())
    if count:
        lines.append(
            f"the quality of {count} of {len(found.table) - 1} other settings cannot be told apart from "
            f"that of {other.setting}"
        )
    return lines


def _settling(doubt: Undecided) -> str:
    """How many queries would decide, drawn either way."""
    ways = []
    if doubt.draws is not None:
        ways.append(f"{_range(doubt.draws)} queries drawn and judged with toolkit judge")
    if doubt.labels is not None:
        ways.append(f"{_range(doubt.labels)} labelled queries like these")
    return f"; to decide on it would take {', or '.join(ways)}" if ways else ""


def _range(found: tuple[int, int | None]) -> str:
    low, high = (None if end is None else _rounded(end) for end in found)
    if high is None:
        return f"{low:,} or many more"
    return f"{low:,} to {high:,}" if low != high else f"about {low:,}"


def _rounded(count: int) -> int:
    """Two significant digits: what a plan from a sample is worth."""
    step = 10 ** max(0, len(str(count)) - 2)
    return round(count / step) * step


def _probability(p: float) -> str:
    return "below 0.001" if p < 0.001 else number(p, 2)


def _instruction_lines(found: Recommendation) -> list[str]:
    """What each instruction gives at the full dimension, against the best."""
    if not found.instructions:
        return []
    best, *others = found.instructions
    told = [
        f"{instruction_text(one.label)} {one.quality:.3f} ({signed(one.difference)}, 95 % interval "
        f"{signed(one.low)}..{signed(one.high)})"
        for one in others
    ]
    return [
        f"Instructions, exact search at the full dimension: {instruction_text(best.label)} "
        f"{best.quality:.3f}, the best and the reference; {'; '.join(told)}"
    ]


def _prices_text(found: Recommendation) -> str:
    prices = found.prices
    return (
        f"USD per month: {prices.ram_usd_per_gb:g} per GB of memory, {prices.disk_usd_per_gb:g} per GB of "
        f"disk, {prices.vcpu_usd:g} per vCPU, serving {prices.peak_qps:g} queries/s; {prices.source}"
    )
