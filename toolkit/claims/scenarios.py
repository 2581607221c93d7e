"""The scenario table: the smallest dimension that keeps the quality, derived from data of each kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from toolkit.claims.bench import SUBJECT, SUBJECT_SPEC, Bench
from toolkit.claims.claim import FAILS, HOLDS, OPEN, Claim, Finding
from toolkit.claims.meaning import by_cluster
from toolkit.data.sets import RetrievalSet
from toolkit.experiment.pools import pooled_quality
from toolkit.measure.noninferiority import NonInferiority, non_inferiority
from toolkit.measure.statistics import paired_difference
from toolkit.space import Role

_KEEP = 0.99
_METRIC = "ndcg@10"


@dataclass(frozen=True)
class Scenario:
    """A row of the table: what it is about, the range it states, and the sets that stand for it.

    sets : names in the data folder; ``builtin`` is always at hand.
    pools : set -> how the documents that may be ranked for a query are found: ``rated`` or ``policy``.
    """

    about: str
    stated: tuple[int, int]
    sets: Sequence[str]
    pools: Mapping[str, str]


def smallest_dimension(bench: Bench, scenario: Scenario) -> Finding:
    """From the full dimension down, as long as the test says that 99 % of nDCG@10 are kept."""
    tested = {}
    for name in scenario.sets:
        data = bench.builtin if name == "builtin" else bench.retrieval(name)
        if data is not None:
            tested[name] = _tested(bench, data, name, scenario.pools.get(name))
    if not tested:
        return Finding(
            OPEN,
            why=f"no data of this kind is at hand: the data folder needs {' or '.join(scenario.sets)}",
            needs=f"--data <folder with {' and '.join(scenario.sets)}>",
        )
    low, high = scenario.stated
    kept = {name: _kept(found, bench.full_dim) for name, (found, _) in tested.items()}
    lost = {
        name: [dim for dim, one in found.items() if one.verdict == "loses"]
        for name, (found, _) in tested.items()
    }
    figure = "; ".join(
        f"{name}: {_words(kept[name], lost[name], bench.full_dim, found)}"
        for name, (found, _) in tested.items()
    )
    sample = "; ".join(
        f"{name}: {len(units[bench.full_dim]):,} independent queries" for name, (_, units) in tested.items()
    )
    largest, (_, units) = max(tested.items(), key=lambda one: len(one[1][1][bench.full_dim]))
    at = max([dim for dim in bench.dims[:-1] if dim <= low], default=bench.dims[0])
    share = paired_difference(units[at], units[bench.full_dim])
    mean = float(units[bench.full_dim].mean())
    interval = (100 * (1 + share.low / mean), 100 * (1 + share.high / mean)) if mean > 0 else None
    measured = {
        name: {str(dim): {"kept": one.retained, "verdict": one.verdict} for dim, one in found.items()}
        for name, (found, _) in tested.items()
    }
    verdict, why = _against(low, high, bench.full_dim, kept, lost)
    if not bench.is_subject:
        verdict, why = OPEN, f"{why}; the claim is about {SUBJECT}"
    return Finding(
        verdict,
        figure,
        interval,
        sample=f"{sample}; {bench.model}; the interval is of the nDCG@10 that {at} dimensions keep of "
        f"{bench.full_dim}'s on {largest}, in %",
        why=f"for {bench.model}, {why}",
        measured=measured,
        needs=f"--embedder {SUBJECT_SPEC}" if verdict == OPEN and not bench.is_subject else "",
    )


def _against(
    low: int, high: int, full: int, kept: Mapping[str, int], lost: Mapping[str, Sequence[int]]
) -> tuple[str, str]:
    if full < low:
        return OPEN, f"the model has {full} dimensions, fewer than the {low} stated"
    if any(dim < low for dim in kept.values()):
        return FAILS, f"fewer than {low} dimensions are enough"
    if any(dim >= high for dims in lost.values() for dim in dims):
        return FAILS, f"{high} dimensions lose more than 1 %"
    if all(dim <= high for dim in kept.values()) and all(
        max(dims, default=0) >= low // 2 for dims in lost.values()
    ):
        return HOLDS, "half the lower end loses more than 1 %, and the upper end is enough"
    return OPEN, "the queries are too few to tell whether 99 % are kept"


def _tested(
    bench: Bench, data: RetrievalSet, name: str, kind: str | None
) -> tuple[dict[int, NonInferiority], dict[int, np.ndarray]]:
    kept = bench.drawn(len(data.queries))
    ids = [data.query_ids[i] for i in kept]
    clusters = bench.column(name, "clusters.tsv", "query-id", "policy") if kind == "policy" else {}
    pools = None if kind is None else _pools(data, ids, kind, clusters)
    values = pooled_quality(
        bench.rows(data.docs),
        bench.rows([data.queries[i] for i in kept], Role.QUERY),
        data,
        ids,
        dims=bench.dims,
        metric=_METRIC,
        pools=pools,
    )
    units = {dim: by_cluster(found, ids, clusters) for dim, found in values.items()}
    full = units[bench.full_dim]
    return {dim: non_inferiority(units[dim], full, keep=_KEEP) for dim in bench.dims[:-1]}, units


def _pools(
    data: RetrievalSet, ids: Sequence[str], kind: str, clusters: Mapping[str, str]
) -> dict[str, list[int]]:
    """Rows of the corpus that may be ranked: what was rated for the query, or the paragraphs of its policy."""
    place = {doc: row for row, doc in enumerate(data.doc_ids)}
    if kind == "rated":
        return {query: [place[doc] for doc in data.qrels[query]] for query in ids}
    within: dict[str, list[int]] = {}
    for row, doc in enumerate(data.docs):
        within.setdefault(doc.partition(" ")[0], []).append(row)
    return {query: within[clusters[query]] for query in ids}


def _kept(found: Mapping[int, NonInferiority], full: int) -> int:
    """The smallest dimension that keeps the quality, proven or likely, from the longest down until one fails."""
    smallest = full
    for dim in sorted(found, reverse=True):
        if not found[dim].keeps:
            break
        smallest = dim
    return smallest


def _words(kept: int, lost: Sequence[int], full: int, found: Mapping[int, NonInferiority]) -> str:
    """The smallest dimension that keeps the quality and how sure that is, the smallest by the mean, and what loses."""
    by_mean = min([dim for dim, one in found.items() if one.retained >= _KEEP], default=full)
    words = "no shorter dimension is shown to keep 99 %"
    if kept < full:
        words = f"{kept} dimensions keep 99 % ({found[kept].verdict.partition('(')[2].rstrip(')')})"
    if by_mean < kept:
        words += f", {by_mean} by the mean alone"
    return f"{words}; {max(lost)} loses more" if lost else words


def _claim(key: str, said: str, scenario: Scenario) -> Claim:
    low, high = scenario.stated
    rule = (
        f"holds if {high} dimensions keep 99 % of nDCG@10 and {low // 2} lose more; does not hold if fewer than {low} "
        f"keep 99 % or {high} lose more (95 % confidence)"
    )
    return Claim(key, said, rule, partial(smallest_dimension, scenario=scenario))


CLAIMS = (
    _claim(
        "scenario-cache",
        "32 to 128 dimensions suit a cache on a phone.",
        Scenario("technical reference", (32, 128), ("builtin",), {}),
    ),
    _claim(
        "scenario-products",
        "256 to 512 dimensions suit product titles.",
        Scenario("e-commerce", (256, 512), ("icecat_chorus",), {"icecat_chorus": "rated"}),
    ),
    _claim(
        "scenario-law",
        "1024 to 2048 dimensions suit contracts.",
        Scenario("law", (1024, 2048), ("stard_goldpool", "policyqa"), {"policyqa": "policy"}),
    ),
    _claim(
        "scenario-code",
        "1024 to 2048 dimensions suit texts where precision matters, as code does.",
        Scenario("code", (1024, 2048), ("cosqa",), {}),
    ),
)
