"""mteb tasks as the toolkit's own evaluation sets, with the texts that mteb itself would hand a model.

Knows nothing of models or of mteb's results.
"""

from __future__ import annotations

import mteb
import numpy as np
from mteb.abstasks.abstask import AbsTask
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.sts import AbsTaskSTS
from mteb.abstasks.text.bitext_mining import AbsTaskBitextMining
from mteb.types import PromptType

from toolkit.data.sets import PairSet, RetrievalSet
from toolkit.errors import DataError, PlanError
from toolkit.mteb_adapter.compat import retrieval_loader, texts_of


def load_mteb(name: str, *, split: str | None = None) -> RetrievalSet | PairSet:
    """Fetch an mteb retrieval, STS or bitext task as a toolkit set.

    name : a task of mteb, or ``<task>/<subset>`` for a task with several subsets (languages).
    split : one of the task's evaluation splits; its first by default.

    Raises PlanError for a name that mteb does not know or a task of another kind, DataError if the
    data cannot be loaded, as where the model hub cannot be reached.
    """
    task_name, _, subset = name.partition("/")
    return to_set(mteb_task(task_name), subset=subset or None, split=split)


def mteb_task(name: str) -> AbsTask:
    """A task of mteb by its name; raises PlanError with the nearest names there are."""
    try:
        return mteb.get_task(name)
    except KeyError as error:
        reason = str(error.args[0]).removeprefix("KeyError: ")
        raise PlanError(
            f"unknown mteb task {reason.rstrip('.')}; python -m mteb available-tasks lists them all"
        ) from None


def load_task_data(task: AbsTask) -> None:
    """Load a task's data; raises DataError, in one line with the task's name, if that fails."""
    name, path = task.metadata.name, task.metadata.dataset.get("path", "its data set")
    try:
        task.load_data()
    except ConnectionError as error:
        raise DataError(
            f"task {name}: the model hub cannot be reached for {path} ({_first_line(error)}); connect, "
            "or give local data as beir:<folder> or pairs:<file.tsv>"
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"task {name}: its data {path} cannot be loaded ({_first_line(error)}); "
            "ask for access to it if it is private, or leave the task out"
        ) from error


def to_set(task: AbsTask, *, subset: str | None = None, split: str | None = None) -> RetrievalSet | PairSet:
    """A retrieval, STS or bitext task as a toolkit set; `subset` and `split` as in `load_mteb`."""
    name = task.metadata.name
    if not isinstance(task, AbsTaskRetrieval | AbsTaskSTS | AbsTaskBitextMining):
        raise PlanError(
            f"mteb task {name} is a {task.metadata.type} task; only retrieval, STS and bitext tasks are "
            f"toolkit sets: measure {name} with the command `toolkit mteb`"
        )
    split = _choice(name, "split", split or task.eval_splits[0], list(task.eval_splits))
    subsets = list(task.hf_subsets)
    if subset is None and len(subsets) > 1:
        raise PlanError(
            f"mteb task {name} has {len(subsets)} subsets; choose one, as in mteb:{name}/{subsets[0]}"
        )
    subset = _choice(name, "subset", subset or subsets[0], subsets)
    load_task_data(task)
    label = name if subset == "default" else f"{name}/{subset}"
    if isinstance(task, AbsTaskRetrieval):
        return _retrieval_set(label, task, subset, split)
    return _pair_set(label, task, subset, split)


def _choice(task_name: str, kind: str, wanted: str, there: list[str]) -> str:
    if wanted not in there:
        raise PlanError(f"mteb task {task_name} has no {kind} {wanted!r}; choose one of: {', '.join(there)}")
    return wanted


def _retrieval_set(label: str, task: AbsTask, subset: str, split: str) -> RetrievalSet:
    task.convert_v1_dataset_format_to_v2(num_proc=None)
    data = task.dataset[subset][split]
    docs, asked = (
        texts_of(retrieval_loader(data[name], metadata=task.metadata, prompt_type=prompt_type))
        for name, prompt_type in (("corpus", PromptType.document), ("queries", PromptType.query))
    )
    queries = zip(data["queries"]["id"], asked, strict=True)
    qrels = {query: dict(gains) for query, gains in data["relevant_docs"].items() if gains}
    kept = [(query_id, text) for query_id, text in queries if query_id in qrels]
    return RetrievalSet(
        label,
        list(data["corpus"]["id"]),
        docs,
        [query_id for query_id, _ in kept],
        [text for _, text in kept],
        qrels,
    )


def _pair_set(label: str, task: AbsTask, subset: str, split: str) -> PairSet:
    parallel = getattr(task, "parallel_subsets", False)
    per_subset = task.dataset.get(subset, task.dataset)
    data = task.dataset[split] if parallel else per_subset[split]
    left, right = subset.split("-") if parallel else getattr(task, "column_names", ("sentence1", "sentence2"))
    scores = np.asarray(data["score"], dtype=np.float64) if "score" in data.column_names else None
    return PairSet(label, list(data[left]), list(data[right]), scores)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
