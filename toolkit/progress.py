"""Progress bars: drawn in a terminal and in notebooks, silent when output is piped."""

from __future__ import annotations

import sys

from tqdm.auto import tqdm


def progress_bar(*, total: int, label: str, unit: str, show: bool = True) -> tqdm:
    """A tqdm bar over `total` units; nothing is drawn with ``show=False`` or without a viewer."""
    return tqdm(total=total, desc=label, unit=unit, disable=not (show and _has_viewer()), leave=False)


def _has_viewer() -> bool:
    return sys.stderr.isatty() or "ipykernel" in sys.modules
