"""All outcomes of a run: as a frame, as JSON, as a few lines, as a table in a notebook."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from toolkit.claims.claim import FAILS, HOLDS, OPEN, Outcome
from toolkit.claims.page import fragment

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Claims:
    """All outcomes of a run.

    about : model, machine, versions and command.
    """

    outcomes: Sequence[Outcome]
    about: Mapping[str, object]

    def frame(self) -> pd.DataFrame:
        """One row per claim: verdict, figure, interval, sample, why, command."""
        import pandas as pd

        rows = [
            {key: value for key, value in asdict(one).items() if key != "measured"} for one in self.outcomes
        ]
        return pd.DataFrame(rows).set_index("key")

    def __getitem__(self, key: str) -> Outcome:
        return next(one for one in self.outcomes if one.key == key)

    def as_json(self) -> str:
        """The content of ``claims.json``."""
        return json.dumps(
            {"about": self.about, "claims": [asdict(one) for one in self.outcomes]},
            indent=2,
            ensure_ascii=False,
            default=str,
        )

    def __str__(self) -> str:
        counts = {
            verdict: sum(one.verdict == verdict for one in self.outcomes) for verdict in (HOLDS, FAILS, OPEN)
        }
        lines = [f"{one.verdict:22}  {one.key}: {one.figure or one.why}" for one in self.outcomes]
        return "\n".join([*lines, ", ".join(f"{number} {verdict}" for verdict, number in counts.items())])

    def _repr_html_(self) -> str:
        return fragment(self.outcomes)
