"""Makes the pictures inside a page small: they are most of a report's bytes, and reports are kept in git.

Knows SVG as matplotlib writes it, and nothing of what a picture shows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

_NUMBERS = re.compile(r' (?:d|x|y|points)="[^"]*"|translate\([^)]*\)')
# matplotlib scales the outline of every letter by this, and nothing else.
_GLYPH = re.compile(r'<path id="([^"]+)" d="([^"]*)" transform="scale\(0\.015625\)"/>')
_FEWEST = 3  # a style that stands more often than twice is shorter as a class


def compact(svg: str, prefix: str) -> str:
    """The same picture in fewer bytes: hundredths of a point, short ids, each repeated style once.

    prefix : of the ids and classes, so that several pictures can stand in one page.
    """
    svg = _NUMBERS.sub(_hundredths, svg)
    svg = re.sub(r"\s*\n\s*", "\n", svg).replace("xlink:href=", "href=")
    short = {old: f"{prefix}-{number}" for number, old in enumerate(re.findall(r' id="([^"]+)"', svg))}
    svg = re.sub(r'( id="|href="#|url\(#)([^")]+)', lambda found: found[1] + short[found[2]], svg)
    styles = Counter(re.findall(r' style="([^"]*)"', svg))
    repeated = [style for style, times in styles.items() if times >= _FEWEST]
    for number, style in enumerate(repeated):
        svg = svg.replace(f' style="{style}"', f' class="{prefix}s{number}"')
    rules = "".join(f".{prefix}s{number}{{{style}}}" for number, style in enumerate(repeated))
    return re.sub(r"<svg\b[^>]*>", lambda found: f"{found[0]}<style>{rules}</style>", svg, count=1)


def share_glyphs(svgs: Sequence[str]) -> tuple[str, list[str]]:
    """One hidden picture that holds the outline of every letter once, and the pictures without them."""
    names: dict[str, str] = {}
    without = []
    for svg in svgs:
        letters = dict(_GLYPH.findall(svg))
        for outline in letters.values():
            names.setdefault(outline, f"g{len(names)}")
        bare = _GLYPH.sub("", svg)
        without.append(
            re.sub(
                r'href="#([^"]+)"',
                lambda found, letters=letters: (
                    f'href="#{names[letters[found[1]]]}"' if found[1] in letters else found[0]
                ),
                bare,
            )
        )
    paths = "".join(
        f'<path id="{name}" d="{outline}" transform="scale(0.015625)"/>' for outline, name in names.items()
    )
    hidden = '<svg width="0" height="0" style="position: absolute" aria-hidden="true"><defs>'
    return f"{hidden}{paths}</defs></svg>", without


def _hundredths(found: re.Match[str]) -> str:
    return re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), found[0])
