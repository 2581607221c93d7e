"""Local data as mteb tasks, without the hub; and the one function that opens tasks by name.

Knows nothing of models or results.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import mteb
import numpy as np
from datasets import Dataset
from mteb.abstasks.abstask import AbsTask
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.sts import AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.abstasks.text.bitext_mining import AbsTaskBitextMining

from toolkit.data.load import load_dataset
from toolkit.data.sets import PairSet, RetrievalSet
from toolkit.errors import DataError, PlanError
from toolkit.files import safe_name
from toolkit.mteb_adapter.compat import language_codes
from toolkit.mteb_adapter.tasks import mteb_task

LOCAL_FORMS = (
    "builtin, beir:<folder>[@split], beir:<folder of BEIR folders named by language>, "
    "pairs:<file.tsv>[@split], pairs:<folder of TSV files named by language>"
)
UNKNOWN_LANGUAGE = "und-Zyyy"  # ISO 639-3 and 15924: undetermined
_SPLIT = "test"

EvaluationSet = RetrievalSet | PairSet


def open_tasks(
    names: Sequence[str] = (), *, benchmark: str | None = None, languages: Sequence[str] | None = None
) -> list[AbsTask]:
    """Tasks by name, local spec or benchmark, in that order, without loading any hub data.

    names : mteb task names, or local data as in `LOCAL_FORMS`.
    languages : ISO 639-3 codes; tasks of mteb keep the subsets that have one of them. A benchmark's
        tasks without any are left out; for a task that was named that is an error. Local data is
        never filtered.

    Raises PlanError for an unknown name and DataError for local data that cannot be used.
    """
    tasks = []
    for name in names:
        if name == "builtin" or name.partition(":")[0] in ("beir", "pairs"):
            tasks.append(open_local(name))
        else:
            tasks.append(_filtered(mteb_task(name), languages))
    if benchmark is not None:
        try:
            members = mteb.get_benchmark(benchmark).tasks
        except KeyError as error:
            raise PlanError(f"unknown benchmark {str(error.args[0]).rstrip('.')}") from None
        wanted = set(languages or ())
        tasks += [
            _filtered(task, languages)
            for task in members
            if not wanted or wanted & {*task.metadata.languages, *task.metadata.bcp47_codes}
        ]
    if not tasks:
        raise PlanError("no task to run; name tasks (tasks=), or a benchmark (benchmark=)")
    seen: set[str] = set()
    return [task for task in tasks if not (task.metadata.name in seen or seen.add(task.metadata.name))]


def _filtered(task: AbsTask, languages: Sequence[str] | None) -> AbsTask:
    if not languages:
        return task
    try:
        return copy.copy(task).filter_languages(list(languages))  # a benchmark's tasks are shared
    except ValueError:
        raise PlanError(
            f"task {task.metadata.name} has no data in {', '.join(languages)}; "
            f"it has: {', '.join(task.metadata.languages)}"
        ) from None


def open_local(spec: str, *, languages: Sequence[str] | None = None) -> AbsTask:
    """The mteb task of local data: see `LOCAL_FORMS`.

    Parallel BEIR folders, one a language, become question language x corpus language: the subset
    ``de-en`` asks the German questions of the English corpus. TSV files of a folder become a subset
    each. Languages are read off folder and file names where these are language codes.
    """
    kind, _, place = spec.partition(":")
    folder = Path(place)
    if kind == "beir" and folder.is_dir() and not (folder / "corpus.jsonl").exists():
        return local_task(_cross_lingual(folder), name=safe_name(folder.resolve().name))
    if kind == "pairs" and folder.is_dir():
        files = sorted(folder.glob("*.tsv"))
        if not files:
            raise DataError(f"{folder} holds no TSV file; a pair set is a TSV with a header line")
        sets = {path.stem: load_dataset(f"pairs:{path}") for path in files}
        return local_task(sets, name=safe_name(folder.resolve().name))
    opened = load_dataset(spec)
    if spec == "builtin":
        languages = languages or ["eng-Latn"]
    return local_task(opened, languages=languages)


def local_task(
    sets: EvaluationSet | Mapping[str, EvaluationSet],
    *,
    name: str | None = None,
    languages: Sequence[str] | None = None,
    prompt: str | None = None,
) -> AbsTask:
    """An mteb task over toolkit sets: a retrieval, STS or bitext mining task by their kind.

    sets : one set, or sets of one kind by subset name (``"de-en"``).
    name : of the task and its result file; the set's own by default.
    languages : mteb language codes (``"eng-Latn"``) of a single set; subset names that are language
        codes joined by "-" speak for themselves. Unknown otherwise.
    prompt : the instruction of queries; None takes mteb's general one for this type of task.

    The data set's revision is a hash of its content: results of other content are never taken for
    its own. Raises DataError if the sets are of different kinds.
    """
    if not isinstance(sets, Mapping):
        name = name or sets.name
        sets = {"default": sets}
    elif not sets or name is None:
        raise DataError("several sets need at least one set, and a name for their task")
    base, task_type, main_score, split_data = _kind(name, list(sets.values()))
    digest = hashlib.blake2b(digest_size=8)
    for subset, data in sets.items():
        # Queries without judgements are no part of a task.
        content = data.searched_hash if isinstance(data, RetrievalSet) else data.content_hash
        digest.update(f"{subset}\0{content}\n".encode())
    if list(sets) == ["default"]:
        eval_langs = list(languages or language_codes(name) or [UNKNOWN_LANGUAGE])
    else:
        eval_langs = {subset: language_codes(subset) or [UNKNOWN_LANGUAGE] for subset in sets}
    metadata = TaskMetadata(
        name=safe_name(name),
        description=f"Local data {name}, run through mteb.",
        type=task_type,
        category="t2t",
        dataset={"path": f"local/{safe_name(name)}", "revision": digest.hexdigest()},
        eval_splits=[_SPLIT],
        eval_langs=eval_langs,
        main_score=main_score,
        prompt=prompt or base.abstask_prompt,
    )

    def load_data(self: AbsTask, num_proc: int | None = None, **kwargs: object) -> None:  # noqa: ARG001
        if self.data_loaded:
            return
        self.dataset = {subset: {_SPLIT: split_data(data)} for subset, data in sets.items()}
        self.data_loaded = True

    attributes = {"metadata": metadata, "load_data": load_data}
    if issubclass(base, AbsTaskSTS):
        scores = np.concatenate([data.scores for data in sets.values()])
        lowest, highest = float(scores.min()), float(scores.max())
        attributes |= {"min_score": lowest, "max_score": highest if highest > lowest else lowest + 1.0}
    return type("LocalTask", (base,), attributes)()


def _kind(name: str, sets: list[EvaluationSet]) -> tuple[type[AbsTask], str, str, object]:
    kinds = {"retrieval" if isinstance(data, RetrievalSet) else data.kind for data in sets}
    if any(isinstance(data, RetrievalSet) and not data.labelled for data in sets):
        raise DataError(
            f"{name} has no judgements, so mteb has nothing to score; toolkit sweep measures agreement"
        )
    if len(kinds) > 1:
        raise DataError(f"{name} mixes {' and '.join(sorted(kinds))} sets; a task has sets of one kind")
    return {
        "retrieval": (AbsTaskRetrieval, "Retrieval", "ndcg_at_10", _retrieval_split),
        "sts": (AbsTaskSTS, "STS", "cosine_spearman", _pair_split),
        "bitext": (AbsTaskBitextMining, "BitextMining", "f1", _pair_split),
    }[kinds.pop()]


def _retrieval_split(data: RetrievalSet) -> dict[str, object]:
    return {
        "corpus": Dataset.from_dict({"id": list(data.doc_ids), "text": list(data.docs)}),
        "queries": Dataset.from_dict({"id": list(data.query_ids), "text": list(data.queries)}),
        "relevant_docs": {query_id: dict(data.qrels[query_id]) for query_id in data.query_ids},
        "top_ranked": None,
    }


def _pair_split(data: PairSet) -> Dataset:
    columns = {"sentence1": list(data.left), "sentence2": list(data.right)}
    if data.scores is not None:
        columns["score"] = data.scores.tolist()
    return Dataset.from_dict(columns)


def _cross_lingual(folder: Path) -> dict[str, RetrievalSet]:
    by_language = {
        path.name: load_dataset(f"beir:{path}")
        for path in sorted(folder.iterdir())
        if (path / "corpus.jsonl").exists()
    }
    if not by_language:
        raise DataError(f"{folder} holds neither corpus.jsonl nor BEIR folders; see: {LOCAL_FORMS}")
    crossed = {}
    for asked, questions in by_language.items():
        for answered, corpus in by_language.items():
            if questions.qrels != corpus.qrels:
                raise DataError(
                    f"{folder}: {asked} and {answered} are not parallel, their qrels differ; "
                    "give each folder as a task of its own"
                )
            crossed[f"{asked}-{answered}"] = RetrievalSet(
                f"{folder.name}/{asked}-{answered}",
                corpus.doc_ids,
                corpus.docs,
                questions.query_ids,
                questions.queries,
                questions.qrels,
            )
    return crossed
