"""A finished sweep as it lies on disk: plan, environment, measurements and per-query values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.errors import ResultsError
from toolkit.experiment.plan import SweepPlan, read_plan

if TYPE_CHECKING:
    import pandas as pd

MEASUREMENTS = "measurements.parquet"
PER_QUERY = "per_query.parquet"
SCALING = "scaling.parquet"
ENVIRONMENT = "environment.json"
PLAN = "plan.toml"


@dataclass(frozen=True, eq=False)
class Results:
    """A results folder.

    measurements : one row a setting; columns as docs/architecture.md lists them.
    environment : hardware, versions, command, data hash and embedding space of the run.
    """

    folder: Path
    plan: SweepPlan
    environment: Mapping[str, object]
    measurements: pd.DataFrame

    @classmethod
    def load(cls, folder: str | Path) -> Results:
        """Read a results folder; raises ResultsError if it holds no finished sweep."""
        import pandas as pd

        folder = Path(folder)
        missing = [name for name in (PLAN, ENVIRONMENT, MEASUREMENTS) if not (folder / name).is_file()]
        if missing:
            raise ResultsError(
                f"{folder} holds no finished sweep ({missing[0]} is missing); "
                "give a folder that toolkit sweep wrote, or finish it with: toolkit sweep --resume --out "
                f"{folder}"
            )
        try:
            environment = json.loads((folder / ENVIRONMENT).read_bytes())
            measurements = pd.read_parquet(folder / MEASUREMENTS)
        except (ValueError, OSError) as error:
            raise ResultsError(f"{folder} is damaged: {error}; run its sweep again with --resume") from error
        return cls(folder, read_plan(folder / PLAN), environment, measurements)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @cached_property
    def per_query(self) -> pd.DataFrame:
        """Quality of every query at every setting: columns setting, query_id and a column a measure."""
        import pandas as pd

        return pd.read_parquet(self.folder / PER_QUERY)

    @cached_property
    def scaling(self) -> pd.DataFrame | None:
        """Latency of every setting at every corpus size it was timed at; None for the whole one only."""
        import pandas as pd

        path = self.folder / SCALING
        return pd.read_parquet(path) if path.is_file() else None

    def frame(self) -> pd.DataFrame:
        """The measurements, as a copy of one's own."""
        return self.measurements.copy()
