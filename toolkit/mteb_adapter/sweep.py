"""mteb tasks at every dimension from one encode, written as mteb's own result files.

mteb scores each setting itself and writes its own JSON; what is saved here is all that a setting
shares with the next: loaded data, prepared texts and full-dimension vectors. Knows nothing of frames.
"""

from __future__ import annotations

import errno
import functools
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import mteb
from mteb.abstasks.abstask import AbsTask
from mteb.abstasks.aggregated_task import AbsTaskAggregate

from toolkit.embedding.protocol import Embedder
from toolkit.errors import DataError, PlanError, ResultsError
from toolkit.experiment.environment import environment
from toolkit.files import parse_json, write_atomically
from toolkit.mteb_adapter.compat import quiet, restart_randomness
from toolkit.mteb_adapter.encoder import TASK_PROMPT, MtebEncoder, chosen_instruction
from toolkit.mteb_adapter.frame import TASKS_FILE, read_frame
from toolkit.mteb_adapter.tasks import load_task_data
from toolkit.progress import progress_bar
from toolkit.space import Instruction

if TYPE_CHECKING:
    import pandas as pd
    from mteb.results import TaskResult

    from toolkit.embedding.cache import VectorCache

RUNS_FILE = "runs.jsonl"
_REFUSED = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS}


def sweep_tasks(
    embedder: Embedder,
    tasks: Sequence[AbsTask],
    *,
    dims: Sequence[int] | None = None,
    instructions: Sequence[str | Instruction | None] = (TASK_PROMPT,),
    out: str | Path,
    cache: VectorCache | None = None,
) -> pd.DataFrame:
    """Run `tasks` at every dimension and instruction; returns their scores as `read_frame` does.

    tasks : of mteb, or local ones: see `open_tasks`.
    dims : the full dimension is always run too, as the others are compared with it.
    instructions : ``"task"`` is each task's own prompt by mteb's rules, ``"default"`` the model's own
        instruction as in `toolkit.sweep`, ``"none"`` no instruction, else a text for all.
    out : mteb's result files go to ``<out>/results``; ``mteb.ResultCache(out)`` reads them. Each run that
        has something to do leaves a line in ``<out>/runs.jsonl``: hardware, versions, command, settings.
    cache : full-dimension vectors on disk; None keeps them in memory, for one task at a time.

    What `out` holds already is not run again, unless the task's data or revision changed. A task's
    data is loaded once and freed before the next. Raises DimensionError and PlanError before anything
    runs; DataError for data that cannot be loaded: at once if the hub cannot be reached, after all
    other tasks otherwise.
    """
    encoders = _encoders(embedder, dims, instructions, cache)
    results = _open_results(out, tasks)
    note = functools.cache(functools.partial(_note_run, Path(out) / RUNS_FILE, embedder, encoders, tasks))
    failures: list[DataError] = []
    total = len(tasks) * len(encoders)
    with progress_bar(total=total, label="mteb", unit="run") as bar, quiet():
        for task in tasks:
            bar.set_description(f"mteb {task.metadata.name}")
            try:
                for _ in _run_task(task, encoders, results, note):
                    bar.update()
            except DataError as error:
                if isinstance(error.__cause__, ConnectionError):
                    raise
                failures.append(error)
            finally:
                encoders[0].forget()
    if failures:
        names = f"{len(failures)} of {len(tasks)} tasks could not be run, the others are in {out}: "
        raise DataError(names + "; ".join(str(failure) for failure in failures)) from failures[0]
    return _mine(read_frame(out), encoders, tasks)


def _encoders(
    embedder: Embedder,
    dims: Sequence[int] | None,
    instructions: Sequence[str | Instruction | None],
    cache: VectorCache | None,
) -> list[MtebEncoder]:
    """One encoder a setting; instructions outermost, as only they need an encode of their own."""
    chosen = list(dict.fromkeys(chosen_instruction(instruction) for instruction in instructions))
    # The full dimension first: if a run is cut short, what the others are compared with is there.
    wanted = sorted({embedder.space.check_dim(dim) for dim in (None, *(dims or ()))}, reverse=True)
    if not chosen:
        raise PlanError("no instruction given; choose task, default, none or a text")
    first = MtebEncoder(embedder, dim=wanted[0], instruction=chosen[0], cache=cache)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # check_dim has said above what there is to say
        return [first.at(dim, instruction) for instruction in chosen for dim in wanted]


def _open_results(out: str | Path, tasks: Sequence[AbsTask]) -> mteb.ResultCache:
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / TASKS_FILE
        known = parse_json(path.read_bytes()) if path.exists() else {}
        for meta in [part.metadata for task in tasks for part in (task, *_leaves(task))]:
            known[meta.name] = {"type": meta.type, "main_score": meta.main_score}
        write_atomically(path, json.dumps(known, indent=1, sort_keys=True).encode())
    except OSError as error:
        raise ResultsError(
            f"results folder {folder} cannot be written ({error.strerror}); choose another (out=)"
        ) from error
    except (ValueError, TypeError) as error:
        raise ResultsError(f"{path} is damaged ({error}); delete it: it is written again") from error
    return mteb.ResultCache(folder)


def _note_run(
    file: Path, embedder: Embedder, encoders: Sequence[MtebEncoder], tasks: Sequence[AbsTask]
) -> None:
    """Write down what the scores of this run are made on."""
    about = environment(embedder.space) | {
        "tasks": [task.metadata.name for task in tasks],
        "dims": sorted({encoder.dim for encoder in encoders}),
        "instructions": list(dict.fromkeys(encoder.label for encoder in encoders)),
    }
    with _writing(file.parent), file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(about, ensure_ascii=False) + "\n")


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn a write that the disk refuses, mteb's own too, into one ResultsError; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        raise ResultsError(
            f"{folder} cannot be written ({error.strerror}); what was scored before is kept: free some room or "
            "check its permissions, and run the same again"
        ) from error


def _run_task(
    task: AbsTask,
    encoders: Sequence[MtebEncoder],
    results: mteb.ResultCache,
    note: Callable[[], None],
) -> Iterator[None]:
    """Run one task at every setting, yielding after each; `note` is called before anything is scored."""
    if isinstance(task, AbsTaskAggregate):
        # Its parts share their data between settings; mteb then only combines their results.
        for leaf in _leaves(task):
            for _ in _run_task(leaf, encoders, results, note):
                pass
        for encoder in encoders:
            _evaluate(encoder, task, results)
            yield
        return
    mine = not task.data_loaded
    try:
        for encoder in encoders:
            if not _finished(encoder, task, results):
                load_task_data(task)
                note()
                _evaluate(encoder, task, results)
            yield
    finally:
        if mine and task.data_loaded:
            task.unload_data()


def _leaves(task: AbsTask) -> list[AbsTask]:
    return list(task.metadata.tasks) if isinstance(task, AbsTaskAggregate) else []


def _finished(encoder: MtebEncoder, task: AbsTask, results: mteb.ResultCache) -> bool:
    found = _saved(encoder, task, results)
    if found is None or found.get_missing_evaluations(task):
        return False
    # mteb takes a complete result for finished even if it is of other data.
    return found.dataset_revision == task.metadata.revision


def _saved(encoder: MtebEncoder, task: AbsTask, results: mteb.ResultCache) -> TaskResult | None:
    try:
        return results.load_task_result(task.metadata.name, encoder.mteb_model_meta)
    except ValueError:  # half a file, of a run that was killed while mteb wrote it
        results.get_task_result_path(task.metadata.name, encoder.mteb_model_meta).unlink()
        return None


def _evaluate(encoder: MtebEncoder, task: AbsTask, results: mteb.ResultCache) -> None:
    found = _saved(encoder, task, results)
    stale = found is not None and found.dataset_revision != task.metadata.revision
    restart_randomness(task)  # each setting has to start where a run of its own would
    with _writing(results.cache_path):
        mteb.evaluate(
            encoder,
            task,
            cache=results,
            overwrite_strategy="always" if stale else "only-missing",
            encode_kwargs={"show_progress_bar": False},
            show_progress_bar=False,
            co2_tracker=False,
        )


def _mine(frame: pd.DataFrame, encoders: Sequence[MtebEncoder], tasks: Sequence[AbsTask]) -> pd.DataFrame:
    """The rows of these settings and tasks; a results folder may hold others'."""
    meta = encoders[0].mteb_model_meta
    mine = (
        (frame["model"] == meta.name)
        & (frame["revision"] == meta.revision)
        & frame["task"].isin([task.metadata.name for task in tasks])
        & frame["dim"].isin([encoder.dim for encoder in encoders])
        & frame["instruction"].isin([encoder.label for encoder in encoders])
    )
    return frame[mine].reset_index(drop=True)
