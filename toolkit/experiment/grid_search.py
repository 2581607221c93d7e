"""Build, search and time every index of a plan, saving each result before the next begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.experiment.grid import Build
from toolkit.experiment.plan import SweepPlan
from toolkit.experiment.setting import Setting
from toolkit.experiment.store import RawStore
from toolkit.vectors import Vectors


@dataclass(frozen=True)
class _Work:
    """What is still to do for one build."""

    build: Build
    to_search: tuple[Setting, ...]
    to_time: tuple[Setting, ...]


def search_grid(
    store: RawStore,
    builds: Sequence[Build],
    corpus: Vectors,
    queries: dict[str, Vectors],
    *,
    plan: SweepPlan,
    progress: bool,
) -> None:
    """Bring the raw store up to date with `builds`: what it already holds is not done again."""
