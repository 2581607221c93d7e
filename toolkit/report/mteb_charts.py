"""Charts of mteb sweeps: what each dimension keeps of the full one's score, and the mean over tasks.

Pure functions from tables to figures; knows nothing of mteb.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullFormatter, NullLocator

from toolkit.errors import ResultsError
from toolkit.files import write_atomically
from toolkit.report.style import (
    PAPER,
    Chart,
    colour_and_marker,
    heading,
    legend,
    new_chart,
    plain,
    save_chart,
    styled,
    text_on,
)

_KEEP_PERCENT = 99.0  # what the finding asks for: less than a hundredth of the score is lost


def write_mteb_report(
    folder: str | Path, *, frame: pd.DataFrame, kept: pd.DataFrame, means: pd.DataFrame
) -> list[Path]:
    """Write the frame and both tables as files, and their charts; returns the paths.

    frame : one row per score; kept : score kept by task type; means : mean over tasks by dimension.

    Raises ResultsError if the folder cannot be written.
    """
    folder = Path(folder)
    charts = folder / "charts"
    tables = {
        "scores.parquet": frame.to_parquet(index=False),
        "score_kept.csv": kept.to_csv(index=False).encode(),
        "benchmark_means.csv": means.to_csv(index=False).encode(),
    }
    try:
        charts.mkdir(parents=True, exist_ok=True)
        for name, content in tables.items():
            write_atomically(folder / name, content)
        written = [folder / name for name in tables]
        written += save_chart(score_kept_heat_map(kept), charts / "score_kept")
        written += save_chart(benchmark_mean_chart(means), charts / "benchmark_means")
    except OSError as error:
        raise ResultsError(
            f"{folder} cannot be written ({error.strerror}); its scores are kept: free some room or check its "
            "permissions, and run the same again"
        ) from error
    return written


@styled
def score_kept_heat_map(kept: pd.DataFrame) -> Chart:
    """Percent of the full dimension's score at each dimension, one row per task type.

    kept : columns task_type, dim, tasks, kept, model and instruction, as `score_kept` gives them; a row
        of the map is a task type, by model and instruction where there are several.
    """
    if kept.empty:
        raise ResultsError("there is no score to draw; run a sweep first")
    rows = kept.assign(label=_row_labels(kept), percent=100 * kept["kept"])
    cells = rows.pivot_table(index="label", columns="dim", values="percent", sort=False).sort_index(axis=1)
    # 95 .. 100 % is where decisions are made; far lower scores may share the darkest colour.
    darkest = max(50.0, min(rows["percent"].min(), 95.0))
    chart = _heat_map(cells, Normalize(darkest, 100.0, clip=True), digits=1)
    chart.axes[0].set_xlabel("embedding dimension")
    heading(chart, _kept_finding(rows, list(cells)), f"{_models(kept)} · score in % of the full dimension's")
    return chart


@styled
def language_heat_map(matrix: pd.DataFrame, *, name: str, metric: str = "score") -> Chart:
    """A question language x corpus language matrix, as `language_matrix` gives it."""
    chart = _heat_map(matrix, Normalize(0.0, float(matrix.to_numpy().max()), clip=True), digits=3)
    chart.axes[0].set_xlabel("corpus language")
    chart.axes[0].set_ylabel("question language")
    same = [language for language in matrix.index if language in matrix.columns]
    within = sum(matrix.loc[language, language] for language in same) / max(len(same), 1)
    across = (matrix.to_numpy().sum() - within * len(same)) / max(matrix.size - len(same), 1)
    heading(chart, f"{within:.2f} within a language, {across:.2f} across languages", f"{name} · {metric}")
    return chart


def _heat_map(cells: pd.DataFrame, scale: Normalize, *, digits: int) -> Chart:
    """Cells with their numbers in them; missing ones stay white."""
    colours = colormaps["cividis"]
    chart = new_chart(2.6 + max(5.4, 0.85 * cells.shape[1]), 1.9 + 0.5 * len(cells))
    axes = chart.subplots()
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_xlim(-0.5, cells.shape[1] - 0.5)
    axes.set_ylim(len(cells) - 0.5, -0.5)
    axes.set_xticks(range(cells.shape[1]), [plain(str(name)) for name in cells.columns])
    axes.set_yticks(range(len(cells)), [plain(str(name)) for name in cells.index])
    axes.tick_params(length=0)
    for (y, x), value in np.ndenumerate(cells.to_numpy(dtype=float)):
        if np.isnan(value):
            continue
        fill = colours(scale(value))
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=fill, edgecolor=PAPER, linewidth=1.5))
        axes.text(x, y, f"{value:.{digits}f}", ha="center", va="center", color=text_on(fill), fontsize=11)
    return chart


@styled
def benchmark_mean_chart(means: pd.DataFrame) -> Chart:
    """The mean score over all tasks at each dimension, with its bootstrap interval over tasks.

    means : columns model, instruction, dim, tasks, mean, low and high, as `benchmark_means` gives them.
    """
    if means.empty:
        raise ResultsError("there is no mean to draw; run a sweep first")
    chart = new_chart(8.0, 4.6)
    axes = chart.subplots()
    curves = list(means.groupby(["model", "instruction"], sort=False))
    for position, ((model, instruction), group) in enumerate(curves):
        curve, look = group.sort_values("dim"), colour_and_marker(position)
        label = f"{_short(model)}, {instruction} instruction" if len(curves) > 1 else _short(model)
        axes.fill_between(curve["dim"], curve["low"], curve["high"], color=look["color"], alpha=0.15, lw=0)
        axes.plot(curve["dim"], curve["mean"], label=plain(label), **look)
    dims = sorted(means["dim"].unique())
    axes.set_xscale("log", base=2)
    axes.set_xticks(dims, dims)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("embedding dimension")
    axes.set_ylabel("mean score over tasks")
    tasks = int(means["tasks"].max())
    legend(axes, loc="lower right")
    heading(
        chart,
        _mean_finding(means),
        f"{_models(means)} · mean over {tasks} {'task' if tasks == 1 else 'tasks'}, "
        "band: 95 % bootstrap interval over tasks",
    )
    return chart


def _row_labels(kept: pd.DataFrame) -> list[str]:
    several_models = len(kept["model"].unique()) > 1
    several_instructions = len(kept["instruction"].unique()) > 1
    labels = []
    for row in kept.itertuples():
        parts = [f"{row.task_type} ({row.tasks})"]
        if several_models:
            parts.append(_short(row.model))
        if several_instructions:
            parts.append(_short(row.instruction))
        labels.append(", ".join(parts))
    return labels


def _kept_finding(rows: pd.DataFrame, dims: list[int]) -> str:
    worst = rows.groupby("dim")["percent"].min()
    enough = next(dim for dim in dims if (worst[worst.index >= dim] >= _KEEP_PERCENT).all())
    where = "" if len(rows["label"].unique()) == 1 else " in every task type"
    if enough < dims[-1] or len(dims) == 1:
        return f"{enough} dimensions keep {_KEEP_PERCENT:.0f} % of the full score{where}"
    lowest = rows.loc[rows["percent"].idxmin()]
    return (
        f"Only all {enough} dimensions keep {_KEEP_PERCENT:.0f} %{where}; {lowest['task_type']} loses most: "
        f"{lowest['percent']:.0f} % at {lowest['dim']}"
    )


def _mean_finding(means: pd.DataFrame) -> str:
    first = means[means["model"] == means["model"].iloc[0]]
    first = first[first["instruction"] == first["instruction"].iloc[0]].sort_values("dim")
    low, full = first.iloc[0], first.iloc[-1]
    return f"{low['dim']} of {full['dim']} dimensions keep {100 * low['kept']:.1f} % of the mean score"


def _models(table: pd.DataFrame) -> str:
    models = [_short(model) for model in table["model"].unique()]
    return models[0] if len(models) == 1 else f"{len(models)} models"


def _short(text: str, longest: int = 32) -> str:
    text = text.removeprefix("local/")
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
