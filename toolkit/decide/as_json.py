"""A recommendation as plain values, for programs: nested dictionaries that `json.dumps` takes as they are.

Where nothing is known stands None. Knows no sentence and no file.
"""

from __future__ import annotations

from dataclasses import asdict
from math import isfinite
from numbers import Integral, Real
from typing import TYPE_CHECKING

from toolkit.experiment.setting import Setting

if TYPE_CHECKING:
    from toolkit.decide.recommendation import Candidate, Recommendation
    from toolkit.decide.size_trend import KeptBySize


def recommendation_facts(found: Recommendation) -> dict[str, object]:
    """Everything but the table."""
    offers = ("advised", "likely", "choice", "runner_up", "reference")
    doubt = found.undecided
    facts = {
        "headline": found.headline,
        "subject": found.subject,
        "demand": asdict(found.demand),
        "documents": found.documents,
        "rests_on": {
            "labelled": found.labelled,
            "unlabelled": found.unlabelled,
            "judged": found.judged,
            "clusters": found.clusters,
            "rankings_recorded": found.bounded,
        },
        **{name: _offer(found, getattr(found, name)) for name in offers},
        "undecided": {
            "count": doubt.count,
            "cheapest": _offer(found, doubt.offer),
            "would_settle_it": {"labelled_queries": doubt.labels, "judged_draws": doubt.draws},
        },
        "constraints": [
            {
                "constraint": one.constraint,
                "without_it" if found.feasible else "nearest": _offer(found, one.offer),
                "saves_usd_per_month": one.saves_usd if found.feasible else None,
            }
            for one in found.relaxed
        ],
        "instructions": [asdict(one) for one in found.instructions],
        "prices": asdict(found.prices),
        "notes": list(found.notes),
    }
    return {name: _plain(value) for name, value in facts.items()}


def _offer(found: Recommendation, offer: Candidate | None) -> dict[str, object] | None:
    if offer is None:
        return None
    return {
        **_setting(offer.setting),
        "verdict": offer.verdict,
        "metric": found.demand.metric,
        "quality": offer.quality,
        "kept": offer.retained,
        "kept_95": _interval(found, offer),
        "kept_at_least": {"proven": offer.at_least, "likely": offer.likely_at_least},
        "p_likely": offer.p,
        "kept_by_size": None if offer.by_size is None else _by_size(offer.by_size),
        "run_as": _setting(offer.run_as),
        "bytes_per_vector": offer.bytes_per_vector,
        "p95_ms": offer.p95_ms,
        "latency_from": offer.latency,
        "usd_per_month": offer.cost.usd,
        "cost_from": offer.cost.formula,
    }


def _setting(key: str) -> dict[str, object]:
    setting = Setting.parse(key)
    return {
        "setting": key,
        "dim": setting.dim,
        "precision": setting.precision,
        "backend": setting.backend,
        "index": setting.index,
        "build_args": dict(setting.build_args),
        "search_args": dict(setting.search_args),
        "rescore": [stage._asdict() for stage in setting.rescore],
        "instruction": setting.instruction,
    }


def _interval(found: Recommendation, offer: Candidate) -> tuple[float, float] | None:
    """The 95 % interval of the share kept, from that of the paired difference; of one instruction only."""
    row = found.table[found.table["setting"] == offer.setting].iloc[0]
    names = [f"{found.demand.metric}_delta_{end}" for end in ("lo", "hi")]
    if offer.instruction != found.reference.instruction or any(name not in row for name in names):
        return None
    low, high = (1.0 + float(row[name]) / found.reference.quality for name in names)
    return low, high


def _by_size(trend: KeptBySize) -> dict[str, object]:
    asked = trend.asked
    return {
        "measured": [
            {"documents": one.documents, "kept": one.kept, "kept_95": (one.low, one.high)}
            for one in trend.measured
        ],
        "per_tenfold": None if trend.slope is None else trend.slope.per_tenfold,
        "per_tenfold_95": None if trend.slope is None else (trend.slope.low, trend.slope.high),
        "at_corpus_size": None
        if asked is None
        else {
            "documents": asked.documents,
            "kept": asked.kept,
            "kept_95": (asked.low, asked.high),
            "from": asked.source,
            "decides": asked.decides,
        },
    }


def _plain(value: object) -> object:
    """NumPy's numbers as Python's, tuples as lists, and None for what is no number."""
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if isfinite(value) else None
    return str(value)
