"""A finished sweep as it lies on disk: plan, environment, measurements and per-query values."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from toolkit.errors import ResultsError, ToolkitWarning
from toolkit.experiment.folder import (
    BOUNDS,
    BY_SIZE,
    ENVIRONMENT,
    MEASUREMENTS,
    PER_QUERY,
    PLAN,
    SCALING,
    SEVERAL,
    finish_call,
    read_manifest,
)
from toolkit.experiment.older import plan_of_today, rows_of_today, table_of_today
from toolkit.experiment.plan import OBJECT_SPEC, SweepPlan
from toolkit.files import parse_json, parse_toml
from toolkit.measure.metrics import described

if TYPE_CHECKING:
    import pandas as pd

    from toolkit.embedding.config import EmbedderConfig


@dataclass(frozen=True, eq=False)
class Results:
    """A results folder; docs/results-format.md describes its files.

    measurements : one row per setting.
    environment : machine, versions, command, data hash and embedding space of the run.
    notes : what a reader should know about how this was measured, one sentence each.
    older_names : what settings were called by the version that wrote the folder, if that was before
        folder.json; the tables here use today's names throughout.
    """

    folder: Path
    plan: SweepPlan
    environment: Mapping[str, object]
    measurements: pd.DataFrame
    notes: Sequence[str] = ()
    older_names: Mapping[str, str] | None = None

    @classmethod
    def load(cls, folder: str | Path) -> Results:
        """Read a results folder, of this version or an earlier one.

        Raises ResultsError if it holds no finished sweep, is damaged, or was written by a later version.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        missing = [name for name in (PLAN, ENVIRONMENT, MEASUREMENTS) if not (folder / name).is_file()]
        if manifest is not None and (missing or not manifest.finished):
            raise ResultsError(
                f"{folder} holds a sweep that is not finished; finish it with: {finish_call(folder)}"
            )
        if missing and (folder / SEVERAL).is_file():
            raise ResultsError(f"{folder} holds several sweeps; toolkit.compare opens them together")
        if missing:
            raise ResultsError(
                f"{folder} holds no finished sweep ({missing[0]} is missing); give a folder that toolkit "
                "sweep wrote"
            )
        try:
            environment = parse_json((folder / ENVIRONMENT).read_bytes())
        except (ValueError, OSError) as error:
            raise _damaged(folder / ENVIRONMENT, error) from error
        measurements = _table(folder / MEASUREMENTS)
        plan = _recorded_plan(folder / PLAN, older=manifest is None)
        if manifest is None:
            before, measurements = measurements, table_of_today(measurements, k=plan.k)
            names = dict(zip(before["setting"], measurements["setting"], strict=True))
            return cls(folder, plan, environment, measurements, older_names=names)
        return cls(folder, plan, environment, measurements, notes=tuple(environment.get("notes", ())))

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @property
    def embedder_spec(self) -> str | EmbedderConfig:
        """What opens the embedder again; raises ResultsError if it was an object of a Python program."""
        spec = self.plan.embedder
        if isinstance(spec, str) and spec.startswith(OBJECT_SPEC):
            raise ResultsError(
                f"{self.folder} was measured with {spec[len(OBJECT_SPEC) :]!r}, an object of a Python program: give "
                "it again with embedder="
            )
        return spec

    @property
    def labelled(self) -> bool:
        """Whether the data had judgements; if not, what stands for quality is agreement with the exact search."""
        return bool(self._about_data.get("labelled", True))

    @property
    def unlabelled_source(self) -> str:
        """Where the queries without judgements came from, as `RetrievalSet` says it; empty if there were none."""
        return str(self._about_data.get("unlabelled_source", ""))

    @property
    def _about_data(self) -> Mapping[str, object]:
        about = self.environment.get("data")
        return about if isinstance(about, Mapping) else {}

    @property
    def plan_text(self) -> str:
        """The plan as it was written down, with keys of later versions too."""
        path = self.folder / PLAN
        return path.read_text(encoding="utf-8") if path.is_file() else self.plan.to_toml()

    @cached_property
    def per_query(self) -> pd.DataFrame:
        """Quality of every query at every setting: columns setting, query_id and one column per metric.

        Raises ResultsError if the file is missing or damaged.
        """
        return self._with_todays_names(_table(self.folder / PER_QUERY))

    @cached_property
    def scaling(self) -> pd.DataFrame | None:
        """Latency of every setting at every corpus size it was timed at; None for the whole one only."""
        path = self.folder / SCALING
        return self._with_todays_names(_table(path)) if path.is_file() else None

    @cached_property
    def by_size(self) -> pd.DataFrame | None:
        """The first metric of some queries at growing parts of the corpus: docs/results-format.md.

        None for a corpus too small to be divided, and for folders written before this was measured.
        """
        path = self.folder / BY_SIZE
        return self._with_todays_names(_table(path)) if path.is_file() else None

    @cached_property
    def bounds(self) -> pd.DataFrame | None:
        """The most that judgements can show at each setting and query, judged or not: docs/results-format.md.

        None for folders that were written before there were bounds, and for sets of pairs.
        """
        path = self.folder / BOUNDS
        return self._with_todays_names(_table(path)) if path.is_file() else None

    def same_ranking(self, metric: str) -> pd.Series:
        """The group of each setting, by its name: settings of one group have equal values of `metric` at every query.

        The first documents of all their rankings are the same, down to the depth of the metric that the sweep is
        judged by (column ``same_ranking``). Group 0 is that of the exact full-dimension search. A metric that looks
        deeper, or a folder that does not say, leaves each setting in a group of its own.
        """
        import pandas as pd

        frame = self.measurements
        keys = frame["setting"]
        judged_by = next((one for one in map(described, frame) if one.is_quality), None)
        depth = described(metric).depth
        if "same_ranking" in frame and judged_by and depth and depth <= (judged_by.depth or 0):
            return pd.Series(frame["same_ranking"].to_numpy(), index=keys)
        exact = (frame["precision"] == "float32") & (frame["index"] == "Flat") & (frame["rescore"] == "")
        first = frame["dim"].where(exact, 0).to_numpy().argmax()
        alone = np.arange(len(frame))
        return pd.Series(np.where(alone == first, 0, alone + (alone < first)), index=keys)

    def frame(self) -> pd.DataFrame:
        """The measurements, as a copy of one's own."""
        return self.measurements.copy()

    def _with_todays_names(self, frame: pd.DataFrame) -> pd.DataFrame:
        if self.older_names is None:
            return frame
        return rows_of_today(frame, self.older_names, k=self.plan.k)


def _table(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        return pd.read_parquet(path)
    except (ValueError, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ResultsError:
    reason = (
        "is missing" if isinstance(error, FileNotFoundError) else f"is damaged ({str(error).splitlines()[0]})"
    )
    return ResultsError(f"{path} {reason}; make it again with: {finish_call(path.parent)}")


def _recorded_plan(path: Path, *, older: bool) -> SweepPlan:
    """The plan of a finished sweep, as far as this version understands it.

    What a later version added is left out with a warning: the tables can be read all the same.
    """
    try:
        fields = parse_toml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    fields = plan_of_today(fields) if older else fields
    if isinstance(fields.get("embedder"), dict):
        fields["embedder"].pop("api_key_env", None)  # a stranger's choice of what to send
    unknown: list[str] = []
    while True:
        try:
            plan = SweepPlan(**fields)
        except ValidationError as error:
            found = error.errors()[0]
            where = found["loc"] if found["type"] == "extra_forbidden" else found["loc"][:1]
            if not where:
                raise _damaged(path, error) from error
            unknown.append(".".join(map(str, where)))
            _leave_out(fields, where)
            continue
        if unknown:
            warnings.warn(
                f"{path} has keys or values this version does not know and leaves out: {', '.join(unknown)}",
                ToolkitWarning,
                stacklevel=3,
            )
        return plan


def _leave_out(fields: dict[str, Any], where: Sequence[int | str]) -> None:
    """Remove the value at a path of keys and positions; what pydantic adds to a path is passed over."""
    inside: Any = fields
    for step in where[:-1]:
        passed_over = isinstance(inside, dict) and step not in inside
        inside = inside if passed_over else inside[step]
    del inside[where[-1]]
