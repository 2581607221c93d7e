"""Claims about what vectors mean: across languages, in long documents, under an instruction."""

from __future__ import annotations

import numpy as np

from toolkit.claims.bench import SUBJECT, SUBJECT_SPEC, Bench
from toolkit.claims.claim import FAILS, HOLDS, OPEN, Claim, Finding
from toolkit.data.pairs import load_pairs
from toolkit.experiment.instructions import InstructionEffects, measure_instructions
from toolkit.measure.quality import bitext_hits
from toolkit.measure.statistics import mean_interval, paired_difference
from toolkit.search.exact.search import exact_search
from toolkit.vectors import Vectors

_SECTION_CHARACTERS = 700
_LONG_CHARACTERS = 3_000
_CLAIMED_COSINE, _BEATEN = 0.82, 0.9
_CLAIMED_LIFT = 0.135  # 73.2 % to 86.7 %
_LANGUAGES = ("cmn", "deu", "fra", "spa", "jpn")
LEGAL_TASK = "Given a legal question, retrieve the passages of law or policy that answer it"


def cross_lingual(bench: Bench) -> Finding:
    """Bare cosines of translations beside how often a translation is the nearest of all candidates."""
    sets = _translations(bench)
    if not sets:
        return Finding(
            OPEN,
            why="no translations are at hand: the data folder needs tatoeba/<lang>-eng.tsv or xquad/<lang>",
            needs="--data <folder with tatoeba or xquad>",
        )
    dims = bench.dims
    hits: dict[int, list[np.ndarray]] = {dim: [] for dim in dims}
    cosines: dict[int, list[np.ndarray]] = {dim: [] for dim in dims}
    strangers: dict[int, list[float]] = {dim: [] for dim in dims}
    for left, right in sets.values():
        found = exact_search(right.rows, left.rows, dims, k=1)
        for dim in dims:
            a, b = left.at(dim), right.at(dim)
            hits[dim].append(bitext_hits(found[dim]))
            cosines[dim].append((a * b).sum(axis=1))
            strangers[dim].append(float((a * np.roll(b, 1, axis=0)).sum(axis=1).mean()))
    accuracy = {dim: np.concatenate(found) for dim, found in hits.items()}
    cosine = {dim: np.concatenate(found) for dim, found in cosines.items()}
    short, full = dims[0], dims[-1]
    rise = paired_difference(accuracy[full], accuracy[short])
    cosine_rise = paired_difference(cosine[full], cosine[short])
    both = rise.low > 0 and cosine_rise.low > 0
    decided = HOLDS if both else FAILS if cosine_rise.high < 0 or rise.high <= 0 else OPEN
    return Finding(
        decided if bench.is_subject else OPEN,
        f"from {short} to {full} dimensions the mean cosine moves by {cosine_rise.difference:+.3f}, bitext accuracy "
        f"from {accuracy[short].mean():.3f} to {accuracy[full].mean():.3f}",
        (rise.low, rise.high),
        sample=f"{len(accuracy[full]):,} pairs, {len(sets)} sets ({', '.join(sets)}); "
        "the interval is of the accuracy's rise",
        why="cosines of strangers move with the dimension as well, so a bare cosine says nothing of alignment"
        + ("" if bench.is_subject else f"; measured was {bench.model}, and the claim is about {SUBJECT}"),
        measured={
            str(dim): {
                "accuracy": float(accuracy[dim].mean()),
                "cosine_of_translations": float(cosine[dim].mean()),
                "cosine_of_strangers": float(np.mean(strangers[dim])),
            }
            for dim in dims
        },
        needs=f"--embedder {SUBJECT_SPEC}" if not bench.is_subject else "--most 0" if decided == OPEN else "",
    )


def _translations(bench: Bench) -> dict[str, tuple[Vectors, Vectors]]:
    """Both sides of each set of translations at hand: row i of one translates row i of the other."""
    sets = {}
    folder = bench.path("tatoeba")
    if folder is not None:
        for language in _LANGUAGES:
            path = folder / f"{language}-eng.tsv"
            if path.is_file():
                pairs = load_pairs(path)
                kept = bench.drawn(len(pairs.left))
                sets[f"tatoeba {language}"] = tuple(
                    bench.rows([side[i] for i in kept]) for side in (pairs.left, pairs.right)
                )
    english = bench.retrieval("xquad/en")
    for language in ("zh", "de"):
        other = bench.retrieval(f"xquad/{language}")
        if english is not None and other is not None and list(english.doc_ids) == list(other.doc_ids):
            sets[f"xquad {language}"] = bench.rows(other.docs), bench.rows(english.docs)
    return sets


def long_documents(bench: Bench) -> Finding:
    """The last section of a long document, looked for by its first among the last sections of all."""
    long = bench.retrieval("qmsum")
    data = long or bench.builtin
    docs = [doc for doc in data.docs if len(doc) >= _LONG_CHARACTERS]
    kept = [docs[i] for i in bench.drawn(len(docs))]
    first = bench.rows([doc[:_SECTION_CHARACTERS] for doc in kept])
    last = bench.rows([doc[-_SECTION_CHARACTERS:] for doc in kept])
    similarities = first.rows @ last.rows.T
    own = np.diag(similarities)
    others = (similarities.sum(axis=1) - own) / (len(kept) - 1)
    hits = bitext_hits(exact_search(last.rows, first.rows, [bench.full_dim], k=1)[bench.full_dim])
    # Every other document's last section as likely as one's own: the article's figure alone would be the same.
    nearer = (similarities < own[:, None]).sum(axis=1) / (len(kept) - 1)
    gap, found = mean_interval(own - others), mean_interval(nearer)
    told_apart = own.mean() >= _CLAIMED_COSINE and gap.low > 0 and found.low > _BEATEN
    return Finding(
        OPEN if not bench.is_subject else HOLDS if told_apart else FAILS,
        f"own sections {own.mean():.2f}, sections of other documents {others.mean():.2f}; the own one beats "
        f"{100 * found.mean:.0f} % of the others and is the nearest in {100 * hits.mean():.0f} %",
        (100 * found.low, 100 * found.high),
        sample=f"{len(kept)} documents of at least {_LONG_CHARACTERS:,} characters of {data.name}; sections of "
        f"{_SECTION_CHARACTERS}; {bench.model}; the interval is of the share beaten, in %",
        why="the cosine of two sections says little without that of strangers beside it"
        + ("" if bench.is_subject else f"; 0.82 is claimed of {SUBJECT}"),
        measured={
            "cosine_own": float(own.mean()),
            "cosine_others": float(others.mean()),
            "gap": gap.mean,
            "gap_low": gap.low,
            "gap_high": gap.high,
            "nearest_is_own": float(hits.mean()),
        },
        needs="" if bench.is_subject else f"--embedder {SUBJECT_SPEC}",
    )


def instruction_lift(bench: Bench) -> Finding:
    """Recall@10 of legal questions with a task in the query's prompt and without, the same questions."""
    sets = [found for name in ("stard_goldpool", "policyqa") if (found := _legal(bench, name)) is not None]
    if not sets:
        return Finding(
            OPEN,
            why="no legal questions are at hand: the data folder needs stard_goldpool or policyqa",
            needs=f"--embedder {SUBJECT_SPEC} --data <folder with stard_goldpool or policyqa>",
        )
    trained = bench.embedder.space.prompts.instructed is not None
    decided, intervals, quality = [], [], {}
    for one in sets:
        without, found = one.frame().query("dim == dim.max()").itertuples()
        quality[one.dataset] = (without.quality, found.quality)
        intervals.append(found)
        decided.append(HOLDS if found.low >= _CLAIMED_LIFT else FAILS if found.high < _CLAIMED_LIFT else OPEN)
    largest = int(np.argmax([found.difference for found in intervals]))
    return Finding(
        OPEN if not trained else HOLDS if HOLDS in decided else OPEN if OPEN in decided else FAILS,
        "; ".join(
            f"{name}: recall@10 {100 * without:.1f} % without, {100 * with_task:.1f} % with"
            for name, (without, with_task) in quality.items()
        ),
        (100 * intervals[largest].low, 100 * intervals[largest].high),
        sample="; ".join(
            f"{one.dataset}: {found.queries:,} queries in {found.clusters:,} independent units"
            for one, found in zip(sets, intervals, strict=True)
        )
        + f"; {bench.model}; the interval is of the largest lift, in points",
        why=""
        if bench.is_subject
        else f"measured on {bench.model}, not on {SUBJECT}"
        if trained
        else f"{bench.model} was not trained on instructions: a task is noise before its queries",
        measured={
            one.dataset: {"lift": found.difference, "low": found.low, "high": found.high, "p": found.p}
            for one, found in zip(sets, intervals, strict=True)
        },
        needs="" if trained else f"--embedder {SUBJECT_SPEC}",
    )


def _legal(bench: Bench, name: str) -> InstructionEffects | None:
    data = bench.retrieval(name)
    if data is None:
        return None
    return measure_instructions(
        bench.embedder,
        data,
        ["none", LEGAL_TASK],
        metric="recall@10",
        max_queries=bench.most,
        cache=bench.cache,
        progress=bench.progress,
    )


def by_cluster(values: np.ndarray, ids: list[str], clusters: dict[str, str]) -> np.ndarray:
    """Means of the independent units: of a cluster's queries one value; a query without a cluster is its own."""
    names = [clusters.get(query, f"\0{query}") for query in ids]
    order = {name: place for place, name in enumerate(dict.fromkeys(names))}
    places = np.array([order[name] for name in names])
    return np.bincount(places, weights=values) / np.bincount(places)


CLAIMS = (
    Claim(
        "cross-lingual",
        "Cosines of translations rise with the dimension, so languages are better aligned.",
        "holds if both the mean cosine and bitext accuracy rise from the shortest to the full dimension",
        cross_lingual,
    ),
    Claim(
        "long-document",
        "A cosine of 0.82 between a long paper's first and last section shows that it is understood as a whole.",
        "holds if own sections reach 0.82 and are nearer than at least 90 % of other documents' sections",
        long_documents,
    ),
    Claim(
        "instruction-lift",
        "An instruction lifts recall on legal texts from 73.2 % to 86.7 %.",
        "holds if the interval of the paired lift of recall@10 begins at 13.5 points or above on a legal set",
        instruction_lift,
    ),
)
