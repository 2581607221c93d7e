"""Progress bars: drawn in a terminal and in notebooks, silent when output is piped."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

from tqdm.auto import tqdm

_TICK_S = 0.5


def progress_bar(*, total: int | None, label: str, unit: str, show: bool = True) -> tqdm:
    """A tqdm bar over `total` units, None if not known; nothing is drawn with ``show=False`` or without a viewer."""
    return tqdm(total=total, desc=label, unit=unit, disable=not (show and _has_viewer()), leave=False)


@contextmanager
def waiting(label: str, *, show: bool = True) -> Iterator[None]:
    """Say what is being waited for, and for how long by now, where the work itself reports nothing."""
    if not (show and _has_viewer()):
        yield
        return
    done = Event()
    with tqdm(desc=label, bar_format="{desc}: {elapsed}", leave=False) as bar:

        def tick() -> None:
            while not done.wait(_TICK_S):
                bar.refresh()

        ticking = Thread(target=tick, daemon=True)
        ticking.start()
        try:
            yield
        finally:
            done.set()
            ticking.join()


def say(sentence: str, *, show: bool = True) -> None:
    """A line below a notebook's cell. A terminal hears from the command it runs, a program from its results."""
    if show and in_notebook():
        tqdm.write(sentence)


def in_notebook() -> bool:
    """Whether this runs in a notebook's kernel."""
    return "ipykernel" in sys.modules


def _has_viewer() -> bool:
    return sys.stderr.isatty() or in_notebook()
