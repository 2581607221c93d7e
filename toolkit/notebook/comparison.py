"""Several sweeps: run one after another, opened together, and shown as one object.

Decides and draws nothing: what models reach comes from `decide/compare.py`, charts and markup from `report/`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.data.given import as_set
from toolkit.data.load import load_dataset
from toolkit.decide.compare import Comparison
from toolkit.embedding.cache import VectorCache
from toolkit.errors import Interrupted, PlanError, ResultsError, ToolkitError
from toolkit.experiment.plan import SweepPlan
from toolkit.experiment.results import Results
from toolkit.experiment.several import Several, folders_beneath, resolve_several, write_several
from toolkit.experiment.sweep import check_sweep
from toolkit.files import write_atomically
from toolkit.notebook.front import swept
from toolkit.notebook.views import ResultsView, as_view
from toolkit.progress import say

if TYPE_CHECKING:
    import pandas as pd

    from toolkit.report.style import Chart

PAGE, TABLE = "comparison.html", "comparison.csv"


class ComparisonView:
    """Several sweeps in a notebook: the view itself, ``.frame()``, ``.ranks()``, ``.grid()``, ``.plot()``."""

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison

    def __repr__(self) -> str:
        return f"ComparisonView(sweeps={len(self.comparison.results)})"

    @property
    def headline(self) -> str:
        """The finding in one sentence."""
        return self.comparison.headline

    @property
    def results(self) -> list[ResultsView]:
        """Each sweep by itself."""
        return [ResultsView(one) for one in self.comparison.results]

    def frame(self) -> pd.DataFrame:
        """All measurements of all sweeps, one row per setting; the column ``folder`` says which sweep."""
        return self.comparison.frame()

    def ranks(self) -> pd.DataFrame:
        """Models at their full dimension, best first on each data set, with groups that cannot be told apart."""
        return self.comparison.ranks()

    def grid(self) -> pd.DataFrame:
        """Quality of the exact search of each model on each data set at each dimension."""
        return self.comparison.grid()

    def plot(self) -> Chart:
        """Quality against bytes per vector over all models; raises PlanError where no data set has judgements."""
        from toolkit.report.comparison import comparison_chart

        chart = comparison_chart(self.comparison)
        if chart is None:
            raise PlanError("no data set with judgements was measured, so there is no quality to draw")
        return chart

    def save(self, folder: str | Path) -> Path:
        """Write ``comparison.html`` and ``comparison.csv`` (the grid) there; returns the page's path."""
        from toolkit.report.comparison import comparison_html

        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / TABLE, self.grid().to_csv(index=False).encode())
            write_atomically(folder / PAGE, comparison_html(self.comparison).encode())
        except OSError as error:
            raise ResultsError(
                f"{folder} cannot be written ({error.strerror}); check its permissions"
            ) from error
        return folder / PAGE

    def _repr_html_(self) -> str:
        from toolkit.report.comparison import comparison_fragment

        return comparison_fragment(self.comparison)


def compared(*results: str | Path | Results | ResultsView) -> ComparisonView:
    """See `toolkit.compare`."""
    opened: list[Results] = []
    missing = []
    for one in results:
        folder = Path(one) if isinstance(one, str | Path) else None
        if folder is None or (folder / "measurements.parquet").is_file():
            opened.append(as_view(one).results)
            continue
        for path in folders_beneath(folder):
            try:
                opened.append(Results.load(path))
            except ResultsError as error:
                missing.append(str(error))
    return ComparisonView(Comparison(opened, missing))


def swept_several(
    plan: SweepPlan | str | Path | None,
    *,
    embedders: Sequence[Any] | None,
    data: Sequence[Any] | None,
    out: str | Path,
    fields: Mapping[str, Any],
    resume: bool,
    overwrite: bool,
    cache: VectorCache | None,
    progress: bool,
) -> ComparisonView:
    """See `toolkit.sweep_several`."""
    given = {name: value for name, value in fields.items() if value is not None}
    several = resolve_several(plan, embedders=embedders, data=data, fields=given)
    place, pairs = Path(out), several.pairs()
    _check(several)
    write_several(place, pairs)
    failed: list[str] = []
    for number, pair in enumerate(pairs, start=1):
        say(f"{number} of {len(pairs)}: {pair.folder}", show=progress)
        try:
            swept(
                None,
                out=place / pair.folder,
                embedder=pair.embedder,
                data=pair.data,
                unlabelled=None,
                fields=several.fields,
                resume=resume,
                overwrite=overwrite,
                cache=cache,
                progress=progress,
            )
        except Interrupted:
            raise Interrupted(
                f"stopped; what was computed so far is kept. Run the same again to go on (out={str(place)!r})"
            ) from None
        except ToolkitError as error:
            failed.append(f"{pair.folder}: {error}")
    if len(failed) == len(pairs):
        raise ResultsError(f"none of {len(pairs)} sweeps could be made; the first: {failed[0]}")
    view = compared(place)
    view.save(place)
    if failed:
        raise ResultsError(
            f"{len(failed)} of {len(pairs)} sweeps could not be made, the others are kept and compared in "
            f"{place / PAGE}; the first: {failed[0]}"
        )
    return view


def _check(several: Several) -> None:
    """Every pair's plan, before any model loads; raises PlanError or DataError naming the pair."""
    for data in several.data:
        found = load_dataset(data) if isinstance(data, str) else as_set(data)
        for pair in several.pairs():
            if pair.data is data:
                full_dim = getattr(getattr(pair.embedder, "space", None), "full_dim", None)
                try:
                    check_sweep(pair.plan(several.fields), found, full_dim=full_dim)
                except PlanError as error:
                    raise PlanError(f"{pair.folder}: {error}") from None
