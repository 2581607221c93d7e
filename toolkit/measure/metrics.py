"""Every measured quantity in one table: name, formula, depth, label, unit, direction and meaning.

A plan, the derived tables, charts and reports all read it here; a new measure that trec_eval knows is one
more row. Knows no ranking and no frame: `quality.py` works a formula out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Literal

from toolkit.errors import PlanError

Kind = Literal["retrieval", "agreement", "sts", "bitext", "cost"]
AUTO = "auto"
_WITHOUT_JUDGEMENTS = ("kept_ndcg@10", "overlap@10", "rbo@10", "safe_ndcg@10")
# What is left of a metric's name behind these is the metric: ndcg@10_delta_lo belongs to ndcg@10.
PARTS = ("", "_lo", "_hi", "_delta", "_delta_lo", "_delta_hi", "_p")
_SHARE = "0 to 1"


@dataclass(frozen=True)
class Metric:
    """One measured quantity, a column of the measurements.

    name : the column; in `FAMILIES` with ``@k`` for any depth.
    label, head : as a sentence or an axis calls it, and the short form for the head of a table.
    kind : ``retrieval``, ``sts`` and ``bitext`` need judgements of that kind, ``agreement`` none.
    depth : how many neighbours of each query it looks at; None where there is no ranking.
    formula, meaning : how it is worked out, and what that tells.
    trec : trec_eval's name for it; empty where this package works it out itself.
    """

    name: str
    label: str
    unit: str
    higher_is_better: bool
    meaning: str
    kind: Kind = "cost"
    formula: str = ""
    head: str = ""
    depth: int | None = None
    trec: str = ""

    @property
    def axis(self) -> str:
        """Label for an axis, with the unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def is_quality(self) -> bool:
        """Whether it says how good the answers are: no cost, bound, difference or part of a setting."""
        return self.kind != "cost"

    def at(self, depth: int) -> Metric:
        """This family's metric at a depth."""
        texts = {
            field: getattr(self, field).replace("@k", f"@{depth}").replace("{k}", f"{depth}")
            for field in ("name", "label", "meaning", "trec")
        }
        return replace(self, **texts, depth=depth)


def _ranked(name: str, label: str, formula: str, meaning: str, trec: str) -> Metric:
    return Metric(name, label, _SHARE, True, meaning, kind="retrieval", formula=formula, trec=trec)


FAMILIES = {
    family.name.removesuffix("@k"): family
    for family in (
        _ranked(
            "ndcg@k",
            "nDCG@k",
            "sum over ranks 1..k of gain / log2(rank + 1), divided by that sum for the best order",
            "How much of the possible gain the top {k} documents hold, early ranks counting more.",
            "ndcg_cut.{k}",
        ),
        _ranked(
            "recall@k",
            "recall@k",
            "relevant documents among the first k / relevant documents",
            "Share of a query's relevant documents among the top {k}.",
            "recall.{k}",
        ),
        _ranked(
            "mrr@k",
            "MRR@k",
            "1 / rank of the first relevant document, 0 if that is beyond k",
            "How early the first relevant document comes; nothing counts beyond rank {k}.",
            "recip_rank",
        ),
        _ranked(
            "map@k",
            "MAP@k",
            "sum of the precision at each relevant document's rank up to k / relevant documents",
            "Precision averaged over a query's relevant documents; those beyond rank {k} count as not found.",
            "map_cut.{k}",
        ),
        Metric(
            "overlap@k",
            "overlap@k",
            _SHARE,
            True,
            "Share of the exact full-dimension search's top {k} documents that are in this search's top {k}.",
            kind="agreement",
            formula="documents among the first k of both searches / k",
        ),
        Metric(
            "rbo@k",
            "rank-biased overlap@k",
            _SHARE,
            True,
            "How far this search's top {k} agree with the exact full-dimension search's, early ranks counting more.",
            kind="agreement",
            formula="overlap at depths 1..k, each weighing 0.9 of the one before, extrapolated",
        ),
        Metric(
            "safe_ndcg@k",
            "safe nDCG@k",
            _SHARE,
            True,
            "1 less the most nDCG@{k} that this search can lose against the exact full-dimension search, whatever "
            "documents are relevant; 1 where both rank the top {k} alike.",
            kind="agreement",
            formula="1 - largest loss of nDCG@k over all judgements",
        ),
        Metric(
            "kept_ndcg@k",
            "kept nDCG@k",
            _SHARE,
            True,
            "nDCG@{k} if the exact full-dimension search's own top {k} documents, and no others, are relevant: "
            "agreement with that search, which has 1 itself, not quality.",
            kind="agreement",
            formula="nDCG@k with gain 1 for the first k documents of the exact search",
        ),
    )
}
PAIR_METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            "spearman",
            "Spearman correlation",
            "-1 to 1",
            True,
            "How well cosine similarity orders the pairs as people's scores do.",
            kind="sts",
            formula="correlation of the ranks of cosine similarity with the ranks of human scores",
        ),
        Metric(
            "accuracy",
            "accuracy",
            _SHARE,
            True,
            "Share of texts whose nearest candidate is their translation, both directions averaged.",
            kind="bitext",
            formula="texts whose nearest candidate is their translation / texts",
        ),
    )
}


def _cost(name: str, label: str, head: str, unit: str, meaning: str, *, higher: bool = False) -> Metric:
    return Metric(name, label, unit, higher, meaning, head=head)


def _latency(name: str, called: str, share: str) -> Metric:
    return _cost(
        name,
        f"{called} latency, one query at a time",
        f"{name.removesuffix('_ms')} ms",
        "ms",
        f"{share} of the single queries took at most this.",
    )


COSTS = {
    cost.name: cost
    for cost in (
        _latency("p50_ms", "median", "Half"),
        _latency("p95_ms", "p95", "95 %"),
        _latency("p99_ms", "p99", "99 %"),
        _cost(
            "first_stage_share",
            "share of the first stage",
            "first stage",
            _SHARE,
            "Part of a single query's time that the first search takes; the rest is rescoring.",
        ),
        _cost(
            "qps",
            "throughput, batched",
            "queries/s",
            "queries/s",
            "Queries answered in a second when given all at once.",
            higher=True,
        ),
        _cost(
            "qps_1_thread",
            "throughput of one thread, batched",
            "queries/s, 1 thread",
            "queries/s",
            "Queries one thread answers in a second when given all at once.",
            higher=True,
        ),
        _cost("build_s", "index build time", "build", "s", "Time to train the index and add all vectors."),
        _cost(
            "insert_rows_per_s",
            "insert rate",
            "rows/s inserted",
            "1/s",
            "Vectors that are added per second while the index is built.",
            higher=True,
        ),
        _cost("index_bytes", "index size", "index bytes", "bytes", "Size of the serialized index."),
        _cost(
            "bytes_per_vector",
            "index bytes per vector",
            "bytes/vector",
            "bytes",
            "Index size divided by the number of documents; vectors kept for rescoring come on top.",
        ),
        _cost(
            "gb_per_million",
            "storage",
            "GB/million",
            "GB per million vectors",
            "Bytes per vector x 1,000,000 / 10^9.",
        ),
        _cost(
            "disk_bytes_per_vector",
            "bytes per vector on disk",
            "disk bytes/vector",
            "bytes",
            "Vectors that rescoring reads from a memory-mapped file, for each document.",
        ),
        _cost(
            "usd_per_month",
            "cost",
            "USD per month",
            "USD per month",
            "Monthly cost at the stated prices and corpus size.",
        ),
    )
}


def metric_named(name: str) -> Metric:
    """The quality metric of that name: ``ndcg@10``, ``recall@100``, ``spearman`` ..

    Raises PlanError for another name, with the nearest one that there is.
    """
    if name in PAIR_METRICS:
        return PAIR_METRICS[name]
    family, _, depth = name.partition("@")
    if family in FAMILIES and re.fullmatch(r"[1-9][0-9]*", depth):
        return FAMILIES[family].at(int(depth))
    raise PlanError(f"metric {name!r} is unknown; choose {_choices()}{_near(name)}")


def described(column: str) -> Metric:
    """What is known of a column of any results folder; one that is not known goes by its own name."""
    if column in COSTS:
        return COSTS[column]
    try:
        return metric_named(column)
    except PlanError:
        return Metric(column, column, "", True, "")


@dataclass(frozen=True)
class ChosenMetrics:
    """The metrics to derive, in order (the first is what settings are judged by), and what was left out."""

    names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def choose_metrics(
    wanted: Sequence[str] | Literal["auto"],
    *,
    kind: Literal["retrieval", "sts", "bitext"],
    k: int,
    documents: int,
    labelled: bool = True,
) -> ChosenMetrics:
    """The metrics of a plan that `k` neighbours of each query out of `documents` can give.

    labelled : whether a retrieval set has judgements; without, ``auto`` is what rankings alone give.

    A ranking of the whole corpus is deep enough for any metric. ``auto`` leaves out what is too deep, with a
    note; a metric that was asked for by name raises PlanError, as does one for another kind of data.
    """
    if kind != "retrieval":
        fitting = [metric.name for metric in PAIR_METRICS.values() if metric.kind == kind]
        other = [] if wanted == AUTO else [name for name in wanted if name not in fitting]
        if other:
            raise PlanError(
                f"metric {other[0]!r} does not suit a set of pairs of this kind; choose {fitting[0]}"
            )
        return ChosenMetrics((fitting[0],))
    whole = k >= documents
    if wanted == AUTO:
        usual: tuple[str, ...] = _WITHOUT_JUDGEMENTS
        if labelled:
            usual = ("ndcg@10", "recall@1", "recall@10", "recall@100", "mrr@10", f"map@{k}", "overlap@10")
        kept = tuple(name for name in usual if whole or (metric_named(name).depth or 0) <= k)
        dropped = [name for name in usual if name not in kept]
        note = f"{', '.join(dropped)} not measured: only {k} neighbours of each query are kept"
        return ChosenMetrics(kept, (note,) if dropped else ())
    for metric in map(metric_named, wanted):
        if metric.kind in ("sts", "bitext"):
            raise PlanError(
                f"metric {metric.name!r} is for sets of pairs; a retrieval set has {_ranked_choices()}"
            )
        if metric.kind == "retrieval" and not labelled:
            raise PlanError(
                f"metric {metric.name!r} needs judgements, and the set has none; choose "
                f"{', '.join(_WITHOUT_JUDGEMENTS)}"
            )
        if metric.depth is not None and metric.depth > k and not whole:
            raise PlanError(
                f"metric {metric.name!r} looks at {metric.depth:,} neighbours of each query, but only {k:,} "
                f"are kept; set k to {metric.depth} or choose {metric.name.partition('@')[0]}@{k}"
            )
    return ChosenMetrics(tuple(dict.fromkeys(wanted)))


def _choices() -> str:
    return f"{_ranked_choices()}, spearman or accuracy"


def _ranked_choices() -> str:
    return f"{', '.join(family.name for family in FAMILIES.values())} (as in ndcg@10)"


def _near(name: str) -> str:
    family, _, depth = name.lower().partition("@")
    near = get_close_matches(family, [*FAMILIES, *PAIR_METRICS], n=1)
    if not near:
        return ""
    if near[0] in PAIR_METRICS:
        return f"; did you mean {near[0]!r}?"
    return f"; did you mean {near[0] + '@' + (depth if depth.isdecimal() and int(depth) else '10')!r}?"
