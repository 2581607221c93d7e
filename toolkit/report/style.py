"""How every chart looks and how it is written to a file. Knows no measurement.

Works on matplotlib's object-oriented API with the Agg canvas; never touches pyplot or its global state.
Colours are Okabe and Ito's (Color Universal Design, 2008), each paired with a marker of its own.
"""

from __future__ import annotations

import functools
import hashlib
import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from toolkit.files import write_atomically
from toolkit.report.compact import compact

# Okabe-Ito without yellow, which vanishes on white, and without black, which is the ink.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
INK, FAINT, GRID = "#24292F", "#6B7280", "#E5E7EB"
PAPER = "#FFFFFF"
_DPI = 144
_LEFT_OF_AXES = 1.2  # inches that labels and ticks may take
_SCREEN_DPI = 96
# DejaVu Sans comes with matplotlib; the others are tried, glyph by glyph, where a text needs them.
_CJK_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "Microsoft YaHei",
    "PingFang SC",
    "Hiragino Sans GB",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "SimHei",
    "Arial Unicode MS",
)
_STYLE = {
    "font.size": 12,
    "axes.titlesize": 12,
    "axes.labelsize": 12,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "legend.fontsize": 11,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "lines.markersize": 7,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "svg.fonttype": "path",
    "axes.unicode_minus": True,
}


class Chart(Figure):
    """A matplotlib Figure that notebooks show without pyplot being loaded."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        width, height = self.get_size_inches()
        return png_bytes(self), {"width": round(width * _SCREEN_DPI), "height": round(height * _SCREEN_DPI)}

    def _repr_html_(self) -> str:
        return themed_html(self)


def new_chart(width: float = 8.0, height: float = 5.0) -> Chart:
    """An empty chart of a size in inches, laid out so that nothing is cut off."""
    chart = Chart(figsize=(width, height), layout="constrained", dpi=_DPI)
    FigureCanvasAgg(chart)
    return chart


def heading(chart: Chart, finding: str, context: str = "") -> None:
    """The finding as the title, and below it in small what it was measured on."""
    width = chart.get_size_inches()[0]
    lines = _wrapped(finding, 0.97 * width, points=15, weight="bold")
    small = _wrapped(context, width - _LEFT_OF_AXES, points=11)
    # Two texts of different size cannot share a suptitle, so the second is the first axes' own title.
    chart.suptitle(plain(lines), x=0.012, ha="left", fontsize=15, fontweight="bold", color=INK)
    if small:
        chart.axes[0].set_title(plain(small), loc="left", fontsize=11, color=FAINT, pad=10)


def styled(draw: Callable[..., Chart]) -> Callable[..., Chart]:
    """Draw in this package's style, whatever the user's own is, and leave theirs untouched."""

    @functools.wraps(draw)
    def wrapper(*args: object, **kwargs: object) -> Chart:
        with _style():
            return draw(*args, **kwargs)

    return wrapper


def plain(text: str) -> str:
    """Text that matplotlib shows as it is: no formula between dollar signs, not hidden by an underscore."""
    shown = text.replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def png_bytes(chart: Figure) -> bytes:
    """The chart as PNG; equal charts give equal bytes."""
    return _bytes(chart, "png", {"Software": None})


def svg_bytes(chart: Figure) -> bytes:
    """The chart as SVG with its text as shapes; equal charts give equal bytes."""
    return _bytes(chart, "svg", {"Date": None, "Creator": None})


def save_chart(chart: Figure, stem: Path) -> tuple[Path, Path]:
    """Write ``<stem>.png`` and ``<stem>.svg``; both are the same bytes for the same chart."""
    png, svg = stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.svg")
    write_atomically(png, png_bytes(chart))
    write_atomically(svg, svg_bytes(chart))
    return png, svg


def inline_svg(svg: bytes, prefix: str, label: str) -> str:
    """An SVG to stand inside a page: own ids, a name for screen readers, and colours the page may change.

    Comments go, because matplotlib copies the chart's texts into them.
    """
    from html import escape

    text = svg.decode("utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'href="#', f'href="#{prefix}-', text)
    text = text.replace("url(#", f"url(#{prefix}-")
    names = {INK: "ink", FAINT: "faint", GRID: "grid", PAPER: "paper"}
    names |= {colour: f"c{i}" for i, colour in enumerate(COLOURS)}
    for colour, name in names.items():
        text = re.sub(
            rf"(fill|stroke): {colour}\b", rf"\1: var(--{name}, {colour})", text, flags=re.IGNORECASE
        )
    # Width and height in points would fix the size; the viewBox alone lets the page scale it.
    text = re.sub(r'(<svg\b[^>]*?) width="[^"]*" ?', r"\1 ", text, count=1)
    text = re.sub(r'(<svg\b[^>]*?) height="[^"]*" ?', r"\1 ", text, count=1)
    text = compact(text, prefix)
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(label, quote=True)}"', 1)


def themed_html(chart: Figure, *, label: str = "", width_px: int | None = None) -> str:
    """The chart for a notebook: an SVG in the colours of its theme, light or dark, as the report's page has them.

    label : for screen readers, the chart's title if not given. width_px : at most so wide, else as wide as it is.
    """
    svg = svg_bytes(chart)
    title = chart.get_suptitle().replace("\n", " ")
    # Several charts stand in one page, and the same one may stand there twice: equal pictures share their names.
    prefix = f"c{hashlib.blake2b(svg, digest_size=4).hexdigest()}"
    width = width_px or round(chart.get_size_inches()[0] * _SCREEN_DPI)
    light, dark = _palettes()
    rules = (
        f".toolkit-chart{{{light}background:var(--paper)}}.toolkit-chart svg{{width:100%;height:auto;display:block}}"
        f"@media (prefers-color-scheme:dark){{.toolkit-chart{{{dark}}}}}"
        f'[data-jp-theme-light="true"] .toolkit-chart,.vscode-light .toolkit-chart{{{light}}}'
        f'[data-jp-theme-light="false"] .toolkit-chart,.vscode-dark .toolkit-chart{{{dark}}}'
    )
    inline = inline_svg(svg, prefix, label or title)
    return f'<div class="toolkit-chart" style="max-width:{width}px"><style>{rules}</style>{inline}</div>'


@functools.cache
def _palettes() -> tuple[str, str]:
    """The report's colours as CSS declarations: light, and dark."""
    css = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", css, flags=re.DOTALL)[:2]
    light, dark = ("".join(re.findall(r"--[\w]+: [^;]+;", block)).replace(": ", ":") for block in blocks)
    return light, dark


def legend(axes: Axes, **where: object) -> None:
    """A legend if there is more than one thing to tell apart."""
    handles, labels = axes.get_legend_handles_labels()
    if len(handles) > 1:
        axes.legend(handles, labels, **where)


def colour_and_marker(position: int) -> dict[str, str]:
    """The two channels of the n-th category; pairs repeat only after 63."""
    return {"color": COLOURS[position % len(COLOURS)], "marker": MARKERS[position % len(MARKERS)]}


def text_on(rgba: tuple[float, float, float, float]) -> str:
    """Ink or paper, whichever reads better on a colour (relative luminance of WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgba[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # Not quite white: what is the paper's white turns dark with the page.
    return "#000000" if luminance > 0.18 else "#fefefe"


@functools.cache
def _fonts() -> list[str]:
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in _CJK_FONTS if name in installed)]


@contextmanager
def _style() -> Iterator[None]:
    with mpl.rc_context(), warnings.catch_warnings():
        # Without a font for a script its characters are drawn as boxes; the rest of the chart stands.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font", category=UserWarning)
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE | {"font.family": _fonts()})
        yield


def _bytes(chart: Figure, kind: str, metadata: dict[str, None]) -> bytes:
    buffer = io.BytesIO()
    with _style(), mpl.rc_context({"svg.hashsalt": "embedding-toolkit"}):
        chart.savefig(buffer, format=kind, dpi=_DPI, metadata=metadata)
    return buffer.getvalue()


def _wrapped(text: str, inches: float, *, points: float, weight: str = "normal") -> str:
    """The text on lines that are no wider, as the font draws them; a word that is wider alone is cut."""
    font = FontProperties(size=points, weight=weight)

    def fits(line: str) -> bool:
        width, _, _ = text_to_path.get_text_width_height_descent(line, font, ismath=False)
        return width <= 72 * inches

    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".lstrip()
        if fits(longer):
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for character in word:
            if not fits(lines[-1] + character):
                lines.append("")
            lines[-1] += character
    return "\n".join(lines)
