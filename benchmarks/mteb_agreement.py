"""The toolkit's own scores beside mteb's, on the same vectors: retrieval and STS sets at every dimension.

    python benchmarks/mteb_agreement.py --embedder static --embedder local:<folder> --data beir:<folder> ...

mteb searches and scores through `MtebEncoder`; the toolkit through its exact search and its own
measures. mteb rounds retrieval scores to 5 digits when it writes them, so its unrounded per-query
values are read off its evaluator. Writes one CSV row per embedder x data x dimension x metric.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from _record import record

from toolkit import load_dataset, open_embedder
from toolkit.embedding.cache import VectorCache
from toolkit.embedding.pipeline import embed_texts
from toolkit.errors import DimensionWarning
from toolkit.measure.quality import evaluate, spearman
from toolkit.mteb_adapter import MtebEncoder, local_task
from toolkit.mteb_adapter.compat import retrieval_scores
from toolkit.search.exact.search import exact_search
from toolkit.space import Role

DEPTH = 1_000  # mteb keeps this many documents a query
METRICS = {
    "ndcg@10": "ndcg_cut_10",
    "recall@10": "recall_10",
    "recall@100": "recall_100",
    "map@1000": "map_cut_1000",
    "mrr@10": "MRR@10",
}


def main() -> None:
    """Compare every embedder on every set and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--embedder", action="append", required=True)
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--dims", help="between commas; halves of the full dimension down to 32 by default")
    parser.add_argument("--out", type=Path, default=Path("results/mteb/agreement.csv"))
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore", DimensionWarning)
    rows = []
    for spec in options.embedder:
        embedder = open_embedder(spec)
        full = embedder.space.full_dim
        dims = [int(d) for d in options.dims.split(",")] if options.dims else _halves(full)
        for data_spec in options.data:
            for row in compare(embedder, load_dataset(data_spec), dims, cache=VectorCache()):
                rows.append({"embedder": embedder.space.model, **row})
                print(*rows[-1].values(), sep="\t", flush=True)
    table = pd.DataFrame(rows)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.out, index=False, float_format="%.9f")
    worst = float(table["difference"].abs().max())
    record("mteb_agreement", {"comparisons": len(table), "largest_difference": worst}, options.save)


def compare(embedder, data, dims: Sequence[int], *, cache=None) -> Iterator[dict]:  # noqa: ANN001
    """Rows of data, dim, metric, toolkit, mteb and difference."""
    ours = _toolkit_scores(embedder, data, dims, cache)
    encoder = MtebEncoder(embedder, cache=cache)
    for dim in dims:
        theirs = _mteb_scores(encoder.at(dim), data)
        for metric, value in ours[dim].items():
            yield {
                "data": data.name,
                "dim": dim,
                "metric": metric,
                "toolkit": value,
                "mteb": theirs[metric],
                "difference": value - theirs[metric],
            }


def _toolkit_scores(embedder, data, dims, cache) -> dict[int, dict[str, float]]:  # noqa: ANN001
    if hasattr(data, "left"):
        left = embed_texts(embedder, data.left, role=Role.QUERY, cache=cache)
        right = embed_texts(embedder, data.right, role=Role.QUERY, cache=cache)
        cosines = {dim: np.einsum("ij,ij->i", left.at(dim), right.at(dim)) for dim in dims}
        return {dim: {"spearman": spearman(cosines[dim], data.scores)} for dim in dims}
    docs = embed_texts(embedder, data.docs, role=Role.DOCUMENT, cache=cache)
    queries = embed_texts(embedder, data.queries, role=Role.QUERY, cache=cache)
    found = exact_search(docs.rows, queries.rows, dims, k=min(DEPTH, len(docs)))
    return {
        dim: {
            name: float(values.mean())
            for name, values in evaluate(
                ranking, data.doc_ids, data.query_ids, data.qrels, metrics=list(METRICS)
            ).items()
        }
        for dim, ranking in found.items()
    }


def _mteb_scores(encoder: MtebEncoder, data) -> dict[str, float]:  # noqa: ANN001
    task = local_task(data)
    with tempfile.TemporaryDirectory() as folder:
        scores = task.evaluate(
            encoder,
            "test",
            encode_kwargs={"show_progress_bar": False},
            prediction_folder=Path(folder),
        )["default"]
        if hasattr(data, "left"):
            return {"spearman": scores["cosine_spearman"]}
        saved = pd.read_json(Path(folder) / task.prediction_file_name, typ="series", dtype=False)
    run = saved["default"]["test"]
    whole = retrieval_scores(run, data.qrels, task.k_values)
    unrounded = {"mrr@10": whole.mrr["MRR@10"]}
    for name, trec_name in METRICS.items():
        if name not in unrounded:
            unrounded[name] = float(np.mean([query[trec_name] for query in whole.all_scores.values()]))
    if round(unrounded["ndcg@10"], 5) != scores["ndcg_at_10"]:
        raise SystemExit("mteb's result is not the mean of its per-query values")
    return unrounded


def _halves(full: int) -> list[int]:
    dims = [full]
    while dims[-1] // 2 >= 32:
        dims.append(dims[-1] // 2)
    return dims


if __name__ == "__main__":
    main()
