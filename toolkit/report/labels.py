"""Puts labels next to points so that they cover neither each other nor the points. Knows no measurement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

from toolkit.report.style import FAINT, INK, plain

_DIRECTIONS = ((1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1), (1, 0), (-1, 0))
_DISTANCES = (7, 16, 30)  # points
_LEADER_FROM = 16  # points; nearer labels need no line to their point
_MARKER_RADIUS = 5  # points
_ALIGN = {1: ("left", "bottom"), 0: ("center", "center"), -1: ("right", "top")}


def label_points(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    *,
    avoid: Sequence[tuple[float, float]] = (),
    fontsize: float = 10,
) -> int:
    """Label `points` (data coordinates) in order of importance; returns how many found room.

    avoid : further points that no label may cover. A label without room is left out.
    Call it last: the layout must be final.
    """
    figure = axes.figure
    figure.draw_without_rendering()
    scale = figure.dpi / 72
    renderer = figure.canvas.get_renderer()
    everything = [point for point in (*points, *avoid) if np.isfinite(point).all()]
    pixels = axes.transData.transform(np.asarray(everything, dtype=float).reshape(-1, 2))
    taken = [_around(x, y, _MARKER_RADIUS * scale) for x, y in pixels]
    shown_legend = axes.get_legend()
    if shown_legend is not None:
        taken.append(shown_legend.get_window_extent(renderer))
    taken += [text.get_window_extent(renderer) for text in axes.texts]
    inside = axes.get_window_extent(renderer)

    placed = 0
    for point, text in zip(points, texts, strict=True):
        own = _around(*axes.transData.transform(point), _MARKER_RADIUS * scale)
        others = [box for box in taken if not np.allclose(box.bounds, own.bounds)]
        for distance, (right, up) in _places():
            note = axes.annotate(
                plain(text),
                point,
                xytext=(right * distance, up * distance),
                textcoords="offset points",
                ha=_ALIGN[right][0],
                va=_ALIGN[up][1],
                fontsize=fontsize,
                color=INK,
                zorder=5,
                arrowprops=_leader(distance),
            )
            box = _text_box(note, renderer)
            if _within(box, inside) and not any(box.overlaps(other) for other in others):
                taken.append(box)
                placed += 1
                break
            note.remove()
    return placed


def _text_box(note, renderer) -> Bbox:  # noqa: ANN001
    """The text alone, without its leader line, with a little air."""
    from matplotlib.text import Text

    note.update_positions(renderer)
    return Text.get_window_extent(note, renderer).padded(2)


def _places() -> Iterator[tuple[float, tuple[int, int]]]:
    for distance in _DISTANCES:
        for direction in _DIRECTIONS:
            yield distance, direction


def _around(x: float, y: float, radius: float) -> Bbox:
    return Bbox.from_extents(x - radius, y - radius, x + radius, y + radius)


def _within(inner: Bbox, outer: Bbox) -> bool:
    return inner.x0 >= outer.x0 and inner.x1 <= outer.x1 and inner.y0 >= outer.y0 and inner.y1 <= outer.y1


def _leader(distance: float) -> dict[str, object] | None:
    if distance < _LEADER_FROM:
        return None
    return {"arrowstyle": "-", "color": FAINT, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 4}
