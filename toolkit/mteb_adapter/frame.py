"""mteb's result files as one tidy frame, and what a shorter dimension keeps of the full one's score.

Reads files only; knows nothing of models or of how the results came about.
"""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Real
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from toolkit.errors import ResultsError
from toolkit.files import parse_json
from toolkit.measure.statistics import mean_intervals

TASKS_FILE = "tasks.json"
TASK_PROMPT: Literal["task"] = "task"  # the name of the instruction that is each task's own prompt
# One row a value; `language` holds all languages of a subset, joined by commas.
COLUMNS = [
    "model",
    "revision",
    "task",
    "task_type",
    "subset",
    "language",
    "split",
    "dim",
    "full_dim",
    "instruction",
    "metric",
    "value",
    "main",
]
_SETTING = ["model", "revision", "instruction"]


def read_frame(folder: str | Path) -> pd.DataFrame:
    """All results below a folder, tidy.

    One row per task x subset (language) x split x dimension x instruction x metric; columns as in
    `COLUMNS`. `dim` and `instruction` mean what they mean in the toolkit's measurements,
    so the two frames join on them. `main` marks the metric that mteb ranks models by. `full_dim` is
    the model's full dimension where a run at it is there, and missing otherwise.

    Raises ResultsError if the folder holds no results, or a damaged one.
    """
    folder = Path(folder)
    types = _task_types(folder)
    rows: list[dict[str, Any]] = []
    for meta_file in sorted((folder / "results").glob("*/*/**/model_meta.json")):
        meta = _read_json(meta_file)
        for path in sorted(meta_file.parent.glob("*.json")):
            if path != meta_file:
                rows.extend(_rows(_read_json(path), meta, types))
    if not rows:
        raise ResultsError(f"{folder} holds no mteb results; give a folder that toolkit mteb wrote")
    frame = pd.DataFrame(rows)
    # A run without a dimension among its experiment's settings is one at the full dimension.
    full = frame["dim"].where(frame["full_dim"]).groupby([frame["model"], frame["revision"]]).transform("max")
    frame["full_dim"] = full.astype("Int64")
    return frame[COLUMNS].sort_values(COLUMNS[:-2], kind="stable", ignore_index=True)


def main_scores(frame: pd.DataFrame) -> pd.DataFrame:
    """The score mteb gives a task: the main metric's mean over splits and subsets.

    Columns model, revision, instruction, task_type, task, dim, full_dim, score.
    """
    main = frame[frame["main"]]
    by = [*_SETTING, "task_type", "task", "dim", "full_dim"]
    return main.groupby(by, as_index=False, dropna=False)["value"].mean().rename(columns={"value": "score"})


def score_kept(frame: pd.DataFrame) -> pd.DataFrame:
    """The share of the full dimension's score that each dimension keeps, by task type.

    Columns model, revision, instruction, task_type, dim, tasks, score, kept. `score` is the mean over
    the type's tasks and `kept` is its ratio to the mean of the same tasks at the full dimension: a
    ratio of means, as the mean of ratios is at the mercy of tasks with scores near zero. A task that
    lacks any of the dimensions is left out of all.

    Raises ResultsError without a run at the full dimension.
    """
    scores = _complete(main_scores(frame))
    by = [*_SETTING, "task_type", "dim", "full_dim"]
    table = scores.groupby(by, as_index=False).agg(tasks=("task", "nunique"), score=("score", "mean"))
    full = table[table["dim"] == table["full_dim"]].set_index([*_SETTING, "task_type"])["score"]
    reference = table.set_index([*_SETTING, "task_type"]).index.map(full)
    table["kept"] = table["score"] / reference.to_numpy(dtype=float)
    return table.drop(columns="full_dim")


def benchmark_means(frame: pd.DataFrame) -> pd.DataFrame:
    """The mean score over all tasks at each dimension, with bootstrap intervals over tasks.

    Columns model, revision, instruction, dim, tasks; mean, low, high; kept: the mean's ratio to the full
    dimension's; difference, difference_low, difference_high: mean minus the full dimension's. All
    dimensions run the same tasks, so the interval of the difference is paired and far narrower: `low`
    and `high` say how far other tasks could move the mean, the difference's whether a dimension loses.

    Raises ResultsError as `score_kept` does.
    """
    scores = _complete(main_scores(frame))
    tables = []
    for setting, group in scores.groupby(_SETTING):
        by_task = group.pivot_table(index="task", columns="dim", values="score")
        values = by_task.to_numpy()
        full = by_task[group["full_dim"].iloc[0]].to_numpy()
        means = mean_intervals(values)
        differences = mean_intervals(values - full[:, None])
        tables.append(
            pd.DataFrame(
                dict(zip(_SETTING, setting, strict=True))
                | {
                    "dim": by_task.columns,
                    "tasks": len(by_task),
                    "mean": [found.mean for found in means],
                    "low": [found.low for found in means],
                    "high": [found.high for found in means],
                    "kept": values.mean(axis=0) / full.mean(),
                    "difference": [found.mean for found in differences],
                    "difference_low": [found.low for found in differences],
                    "difference_high": [found.high for found in differences],
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def language_matrix(frame: pd.DataFrame, task: str, *, dim: int | None = None) -> pd.DataFrame:
    """The main score of a cross-lingual task: one row per question language, one column per corpus language.

    dim : the full dimension by default. A mean over splits, and over instructions if there are several.
    Raises ResultsError if the task has no subsets named like ``de-en``, or no result at `dim`.
    """
    rows = frame[frame["main"] & (frame["task"] == task)]
    rows = rows[rows["dim"] == (rows["full_dim"] if dim is None else dim)]
    names = rows["subset"].str.extract(r"^(?P<question>[A-Za-z]+)-(?P<corpus>[A-Za-z]+)$").dropna()
    if names.empty:
        dims = ", ".join(str(found) for found in sorted(frame.loc[frame["task"] == task, "dim"].unique()))
        raise ResultsError(
            f"task {task!r} has no subsets of two languages at dimension {dim or 'full'}; "
            f"it has the dimensions {dims or 'none: is the name right?'}"
        )
    crossed = rows.join(names, how="inner")
    return crossed.pivot_table(index="question", columns="corpus", values="value", aggfunc="mean")


def _complete(scores: pd.DataFrame) -> pd.DataFrame:
    """Only tasks that were run at every dimension of their model and instruction."""
    if scores["full_dim"].isna().any():
        models = ", ".join(scores.loc[scores["full_dim"].isna(), "model"].unique())
        raise ResultsError(
            f"{models} has no result at the full dimension to compare with; run it with that dimension too"
        )
    wanted = scores.groupby(_SETTING)["dim"].transform("nunique")
    there = scores.groupby([*_SETTING, "task"])["dim"].transform("nunique")
    complete = scores[wanted == there]
    if complete.empty:
        raise ResultsError("no task was run at every dimension; run the sweep again to complete it")
    return complete


def _rows(
    result: dict[str, Any], meta: dict[str, Any], types: dict[str, dict[str, str]]
) -> Iterator[dict[str, Any]]:
    experiment = meta.get("experiment_kwargs") or {}
    name = result["task_name"]
    known = types.get(name, {})
    for split, per_subset in result["scores"].items():
        for scores in per_subset:
            main_metric = _main_metric(scores, known)
            for metric, value in scores.items():
                if metric == "main_score" or isinstance(value, bool) or not isinstance(value, Real):
                    continue
                yield {
                    "model": meta["name"],
                    "revision": meta["revision"],
                    "task": name,
                    "task_type": known.get("type", "unknown"),
                    "subset": scores["hf_subset"],
                    "language": ",".join(scores["languages"]),
                    "split": split,
                    "dim": meta["embed_dim"],
                    "full_dim": "embed_dim" not in experiment,
                    "instruction": experiment.get("instruction", TASK_PROMPT),
                    "metric": metric,
                    "value": float(value),
                    "main": metric == main_metric,
                }


def _main_metric(scores: dict[str, Any], known: dict[str, str]) -> str | None:
    """The metric's name as the task states it; the one with the main score's value for other files."""
    stated = known.get("main_score")
    if stated in scores:
        return stated
    main = scores.get("main_score")
    return next((m for m, value in scores.items() if m != "main_score" and value == main), None)


def _task_types(folder: Path) -> dict[str, dict[str, str]]:
    path = folder / TASKS_FILE
    return _read_json(path) if path.exists() else {}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = parse_json(path.read_bytes())
    except ValueError as error:
        raise ResultsError(
            f"{path} is not valid JSON ({error}); delete it and run the sweep again"
        ) from error
    return found
