"""A dimension sweep of an mteb retrieval task: the toolkit against `mteb.evaluate` once per dimension.

    python benchmarks/mteb_sweep.py --embedder local:<MiniLM folder> --data beir:<scifact> --save

mteb loads the same checkpoint with sentence-transformers' own truncation, once without and once with its
`CachedEmbeddingWrapper` (one folder per dimension: its keys do not hold the dimension). All caches are cold,
models are loaded beforehand, and the sides take turns in one process: the toolkit's sweep and mteb's
single run come first and again last, mteb's dimensions in between; times are those of the best rounds.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path

import mteb
from _host import Rounds
from _record import record
from mteb.models.cache_wrappers import CachedEmbeddingWrapper
from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper
from sentence_transformers import SentenceTransformer

from toolkit import RetrievalSet, load_dataset, open_embedder
from toolkit.embedding.cache import VectorCache
from toolkit.embedding.config import parse_spec
from toolkit.errors import DimensionWarning
from toolkit.mteb_adapter import local_task, main_scores, sweep_tasks


def main() -> None:
    """Time both sides and record their ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--embedder", required=True, help="local:<folder of a sentence-transformers model>")
    parser.add_argument("--data", required=True, help="beir:<folder>")
    parser.add_argument("--dims", default="384,256,192,128,96,64")
    parser.add_argument("--documents", type=int, help="only the first so many, and what the queries need")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore", DimensionWarning)
    dims = [int(dim) for dim in options.dims.split(",")]
    folder = parse_spec(options.embedder).model
    data = _shortened(load_dataset(options.data), options.documents)
    embedder = open_embedder(options.embedder)
    models = {
        dim: SentenceTransformerEncoderWrapper(SentenceTransformer(folder, truncate_dim=dim)) for dim in dims
    }
    embedder.encode(data.docs[:8])
    models[max(dims)].model.encode(list(data.docs[:8]))

    plain, cached, scores, rounds = {}, {}, {}, Rounds()

    def sweep() -> None:
        with tempfile.TemporaryDirectory() as out, rounds.timed("toolkit"):
            frame = sweep_tasks(
                embedder, [local_task(data)], dims=dims, out=out, cache=VectorCache(Path(out) / "vectors")
            )
        scores["toolkit"] = main_scores(frame).set_index("dim")["score"]
        print(f"toolkit, {len(dims)} dimensions: {rounds.seconds['toolkit'][-1]:.1f} s", flush=True)

    def single(dim: int, *, cache: bool) -> float:
        with tempfile.TemporaryDirectory() as out:
            model = CachedEmbeddingWrapper(models[dim], Path(out) / "vectors") if cache else models[dim]
            side = f"mteb {dim}{' cached' if cache else ''}"
            with rounds.timed(side):
                run = mteb.evaluate(
                    model,
                    local_task(data),
                    cache=mteb.ResultCache(out),
                    encode_kwargs={"show_progress_bar": False},
                    show_progress_bar=False,
                    co2_tracker=False,
                )
            seconds = rounds.seconds[side][-1]
        scores[dim] = run.task_results[0].get_score()
        print(f"mteb, dimension {dim}, {'cached' if cache else 'plain'}: {seconds:.1f} s", flush=True)
        return seconds

    full = max(dims)
    single(full, cache=False)
    sweep()
    for dim in dims:
        plain[dim] = single(dim, cache=False)
        cached[dim] = single(dim, cache=True)
    sweep()
    single(full, cache=False)
    # Best rounds: what the work takes when nothing disturbs it.
    alone = plain[full] = rounds.best(f"mteb {full}")
    toolkit_s = rounds.best("toolkit")
    record(
        "mteb_sweep",
        {
            "speedup_vs_mteb": sum(plain.values()) / toolkit_s,
            "speedup_vs_mteb_cached": sum(cached.values()) / toolkit_s,
            "time_vs_single_run": toolkit_s / alone,
            "toolkit_s": toolkit_s,
            "mteb_s": plain,
            "mteb_cached_s": cached,
            "mteb_single_run_s": alone,
            "largest_score_difference": max(abs(scores["toolkit"][dim] - scores[dim]) for dim in dims),
            "model": embedder.space.model,
            "data": data.name,
            "documents": len(data.docs),
            "queries": len(data.queries),
            "dims": dims,
        },
        options.save,
        rounds=rounds,
    )


def _shortened(data: RetrievalSet, documents: int | None) -> RetrievalSet:
    if documents is None or documents >= len(data.docs):
        return data
    needed = {doc for gains in data.qrels.values() for doc in gains}
    kept = [i for i, doc in enumerate(data.doc_ids) if i < documents or doc in needed]
    ids, docs = [data.doc_ids[i] for i in kept], [data.docs[i] for i in kept]
    return RetrievalSet(f"{data.name}-{len(kept)}", ids, docs, data.query_ids, data.queries, data.qrels)


if __name__ == "__main__":
    main()
