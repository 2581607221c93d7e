"""Scales and ticks for dimensions, bytes and times. Knows no measurement."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from toolkit.decide.wording import bytes_text, number

_MOST_DIM_TICKS = 12


def dim_axis(axis: Axis, dims: Sequence[int]) -> None:
    """A base-2 logarithmic scale with the measured dimensions as ticks, thinned out where they crowd."""
    axis.axes.set_xscale("log", base=2)
    ticks = sorted(set(dims))
    if len(ticks) > _MOST_DIM_TICKS:
        ticks = [dim for dim in ticks if dim & (dim - 1) == 0 or dim == ticks[-1]]
    if len(ticks) > 1 and math.log2(ticks[-1] / ticks[-2]) < 0.2 and len(ticks) > 8:
        ticks = [*ticks[:-2], ticks[-1]]
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))


def share_axis(axes: Axes, highest: float) -> None:
    """End a y axis for a measure that cannot exceed 1 there, with room for the markers on it."""
    if highest <= 1.0:
        low, high = axes.get_ylim()
        axes.set_ylim(low, min(high, 1.0 + 0.03 * (1.0 - low)))


def cost_axis(axis: Axis, values: Sequence[float], unit: str) -> None:
    """A logarithmic scale for positive costs, with plain numbers as ticks; linear within a factor of 3."""
    finite = [value for value in values if math.isfinite(value) and value > 0]
    if not finite:
        return
    low, high = min(finite), max(finite)
    name: Callable[[float], str] = bytes_text if unit == "bytes" else number
    axis.set_minor_locator(NullLocator())
    if high / low < 3:
        axis.set_major_locator(MaxNLocator(5))
        axis.set_major_formatter(FuncFormatter(lambda value, _: name(value)))
        return
    set_scale = axis.axes.set_xscale if axis.axis_name == "x" else axis.axes.set_yscale
    set_scale("log")
    axis.set_major_locator(FixedLocator(_ticks(low, high, unit)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: name(value)))


def _ticks(low: float, high: float, unit: str) -> list[float]:
    """Powers of two for bytes, else 1-2-5 steps; as many as read well, one beyond each end."""
    if unit == "bytes":
        exponents = range(math.floor(math.log2(low)), math.ceil(math.log2(high)) + 1)
        every = max(1, len(exponents) // 8)
        return [2.0**e for e in exponents if e % every == 0]
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(decades) <= 4 else (1,)
    return [step * 10.0**decade for decade in decades for step in steps]
