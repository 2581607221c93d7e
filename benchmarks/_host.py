"""Timed rounds that notice what else the host is doing.

A benchmark beside a busy process measures that process: BLAS and OpenMP threads that wait by spinning lose
their core to it and a search takes several times as long. So every timed block also gets the share of the
host's processors that others took meanwhile, and rounds that fall into two groups are said to.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median

# Below this share of all cores, what others do moves a round by no more than rounds differ by themselves.
BUSY_SHARE = 0.05
# Rounds whose sorted times jump by this factor somewhere come from two states of the host, not from one.
MODE_GAP = 1.3
_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")


@dataclass
class Rounds:
    """Seconds of each side in each round, and the share of the host that others took in each of them."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    others: dict[str, list[float]] = field(default_factory=dict)
    load_before: tuple[float, float, float] = field(default_factory=os.getloadavg)

    @contextmanager
    def timed(self, side: str) -> Iterator[None]:
        """Time a block as one round of `side`."""
        all_before, own_before, began = _busy_s(), _own_s(), time.perf_counter()
        yield
        seconds = time.perf_counter() - began
        others_s = (_busy_s() - all_before) - (_own_s() - own_before)
        self.seconds.setdefault(side, []).append(seconds)
        cores = os.cpu_count() or 1
        # Processor time is counted in ticks of 10 ms, so a short block's share is not known well enough.
        known = seconds >= 20 * _TICK_S
        self.others.setdefault(side, []).append(max(0.0, others_s / (seconds * cores)) if known else 0.0)

    def forget(self) -> None:
        """Drop what was timed so far: it warmed up."""
        self.seconds.clear()
        self.others.clear()

    def add_up(self, name: str, sides: Sequence[str]) -> None:
        """A side whose rounds are the sums of those of `sides`."""
        self.seconds[name] = [
            sum(parts) for parts in zip(*(self.seconds[side] for side in sides), strict=True)
        ]

    def best(self, side: str) -> float:
        """Seconds of the side's best round: what the work takes when nothing disturbs it."""
        return min(self.seconds[side])

    def median(self, side: str) -> float:
        """Seconds of the side's median round."""
        return median(self.seconds[side])

    def ratio(self, side: str, other: str) -> dict[str, float]:
        """`side` over `other`, by best and by median rounds."""
        return {
            "best": round(self.best(side) / self.best(other), 3),
            "median": round(self.median(side) / self.median(other), 3),
        }

    @property
    def two_modes(self) -> list[str]:
        """Sides whose rounds fall into two groups."""
        return [side for side, rounds in self.seconds.items() if _jumps(rounds)]

    def figures(self) -> dict[str, object]:
        """All rounds and what is known of the host while they ran."""
        worst = max((share for shares in self.others.values() for share in shares), default=0.0)
        return {
            "rounds_s": {side: [round(one, 4) for one in rounds] for side, rounds in self.seconds.items()},
            "others_cpu_share": round(worst, 3),
            "load_average_before": self.load_before,
            "load_average_after": os.getloadavg(),
            "two_modes": self.two_modes,
            "host_was_busy": worst > BUSY_SHARE or bool(self.two_modes),
        }

    def warn(self) -> None:
        """Say on stderr if the host was busy."""
        found: Mapping[str, object] = self.figures()
        if found["host_was_busy"]:
            print(
                f"warning: the host was busy: others took up to {found['others_cpu_share']:.0%} of it, two "
                f"groups of rounds in {', '.join(self.two_modes) or 'none'}; idle, figures are others",
                file=sys.stderr,
            )


def _jumps(rounds: list[float]) -> bool:
    ordered = sorted(rounds)
    # One slow round is an accident; two states of a host show in several.
    return any(
        later > MODE_GAP * earlier
        for i, (earlier, later) in enumerate(pairwise(ordered))
        if i < len(ordered) - 2
    )


def _busy_s() -> float:
    """Processor time that the whole host has spent, a hypervisor's share included; 0 where it is not told."""
    listed = Path("/proc/stat")
    if not listed.exists():
        return 0.0
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, listed.read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) * _TICK_S


def _own_s() -> float:
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system
