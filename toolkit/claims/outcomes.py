"""All outcomes: as a frame, as JSON and back, as a few lines, as a table in a notebook."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.claims.claim import FAILS, HOLDS, OPEN, Outcome
from toolkit.claims.page import fragment
from toolkit.errors import ResultsError
from toolkit.files import parse_json

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Claims:
    """All outcomes of one run or several.

    runs : model, machine, versions and command of each, by the UTC time that an outcome's `measured_at` names.
    again : the command that measures all outcomes again that other programs disturbed; empty if there are none.
    """

    outcomes: Sequence[Outcome]
    runs: Mapping[str, Mapping[str, object]]
    again: str = ""

    @classmethod
    def load(cls, path: Path) -> Claims:
        """What ``claims.json`` holds; raises ResultsError if it is damaged or of another version."""
        try:
            found = parse_json(path.read_bytes())
            outcomes = [
                Outcome(**one | {"interval": one["interval"] and tuple(one["interval"])})
                for one in found["claims"]
            ]
            return cls(outcomes, found["runs"], found["run_again"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ResultsError(
                f"{path} holds no claims of this version ({error}); write to another folder, or remove it"
            ) from error

    def and_later(self, later: Claims, order: Sequence[str]) -> Claims:
        """These with those of a later run in their place, by key in the order given; runs without any left out."""
        by_key = {one.key: one for one in (*self.outcomes, *later.outcomes)}
        outcomes = [by_key[key] for key in order if key in by_key]
        used = {one.measured_at for one in outcomes}
        runs = {at: about for at, about in {**self.runs, **later.runs}.items() if at in used}
        return replace(later, outcomes=outcomes, runs=runs)

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
            {
                "claims": [asdict(one) for one in self.outcomes],
                "run_again": self.again,
                "runs": self.runs,
            },
            indent=2,
            ensure_ascii=False,
            default=str,
        )

    def __str__(self) -> str:
        counts = {
            verdict: sum(one.verdict == verdict for one in self.outcomes) for verdict in (HOLDS, FAILS, OPEN)
        }
        lines = [
            f"{one.verdict:22}  {one.key}: {one.figure or one.why}"
            + (" (run again)" if one.run_again else "")
            for one in self.outcomes
        ]
        if self.again:
            lines.append(f"timed while other programs ran; on an idle machine: {self.again}")
        return "\n".join([*lines, ", ".join(f"{number} {verdict}" for verdict, number in counts.items())])

    def _repr_html_(self) -> str:
        return fragment(self.outcomes)
