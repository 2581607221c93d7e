"""The one place that touches names mteb does not promise to keep: each behind a function of ours.

Holds for the versions that `pyproject.toml` allows; ``make test-mteb-versions`` runs the adapter's tests
against the oldest and the newest of them. Knows nothing of embedders or dimensions.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import datasets
from mteb._create_dataloaders import create_dataloader
from mteb._evaluators.retrieval_metrics import calculate_retrieval_scores
from mteb._evaluators.text import bitext_mining_evaluator
from mteb._set_seed import _set_seed
from mteb.languages.iso_mappings import _hf_langs_to_iso_lang_scripts

if TYPE_CHECKING:
    from mteb._evaluators.retrieval_metrics import RetrievalEvaluationResult
    from mteb.abstasks.abstask import AbsTask
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.types import PromptType
    from torch.utils.data import DataLoader


def texts_of(inputs: DataLoader) -> list[str]:
    """All texts of one of mteb's data loaders, in order."""
    dataset = inputs.dataset
    if "text" in getattr(dataset, "column_names", ()):
        return list(dataset["text"])  # a loop over the loader builds a dictionary and a batch for every text
    return [text for batch in inputs for text in batch["text"]]


def retrieval_loader(
    entries: datasets.Dataset, *, metadata: TaskMetadata, prompt_type: PromptType
) -> DataLoader:
    """The loader mteb hands a model for a corpus or for queries.

    mteb's own rules for what a model reads apply: titles, instructions and conversations become one text.
    """
    return create_dataloader(entries, task_metadata=metadata, prompt_type=prompt_type)


def language_codes(name: str) -> list[str]:
    """mteb's language codes for a name such as ``en`` or ``deu-eng``; empty if it is none."""
    codes = [_hf_langs_to_iso_lang_scripts(part) for part in name.split("-")]
    if not all(codes):
        return []
    return list(dict.fromkeys(code[0] for code in codes))


def restart_randomness(task: AbsTask) -> None:
    """Put a task's generators, and the global ones, where they stand when the task is new.

    Tasks draw their samples from generators that a run before has moved on.
    """
    task.rng_state, task.np_rng = _set_seed(task.seed)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No bars of datasets, nor of mteb's bitext evaluator, which has no switch for its own."""
    drawn, bar = datasets.is_progress_bar_enabled(), bitext_mining_evaluator.tqdm
    datasets.disable_progress_bars()
    bitext_mining_evaluator.tqdm = functools.partial(bar, disable=True)
    try:
        yield
    finally:
        bitext_mining_evaluator.tqdm = bar
        if drawn:
            datasets.enable_progress_bars()


def retrieval_scores(
    run: Mapping[str, Mapping[str, float]], qrels: Mapping[str, Mapping[str, int]], k_values: Sequence[int]
) -> RetrievalEvaluationResult:
    """mteb's retrieval measures before it writes them: means, and those of every query unrounded.

    run : {query: {document: score}}; k_values : depths, those of the task.
    """
    return calculate_retrieval_scores(run, qrels, k_values)
