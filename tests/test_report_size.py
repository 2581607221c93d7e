"""Pictures inside a page are made small without becoming other pictures."""

import re

import numpy as np
import pandas as pd

from toolkit.report.compact import compact, share_glyphs
from toolkit.report.style import inline_svg, new_chart, styled, svg_bytes


@styled
def scatter(points: pd.DataFrame):
    chart = new_chart()
    axes = chart.subplots()
    axes.scatter(points["x"], points["y"], color="#0072B2")
    axes.set_xlabel("an axis with letters")
    return chart


def numbers(svg: str) -> np.ndarray:
    return np.array([float(n) for n in re.findall(r' [xy]="(-?[\d.]+)"', svg)])


def test_a_picture_inside_a_page_is_smaller_and_the_same():
    rng = np.random.default_rng(0)
    whole = svg_bytes(scatter(pd.DataFrame({"x": rng.random(300), "y": rng.random(300)}))).decode()
    small = inline_svg(whole.encode(), "p0", "a chart")
    assert len(small) < 0.6 * len(whole)
    assert small.count("<use") == whole.count("<use")
    assert small.count("<path") == whole.count("<path")
    assert np.abs(numbers(small) - numbers(whole)).max() <= 0.005
    ids = set(re.findall(r' id="([^"]+)"', small))
    assert all(name.startswith("p0-") for name in ids)
    assert set(re.findall(r'href="#([^"]+)"', small)) <= ids
    classes = set(re.findall(r'class="([^"]+)"', small))
    assert classes
    assert all(f".{name}{{" in small for name in classes)


def test_letters_are_kept_once_for_all_pictures():
    frame = pd.DataFrame({"x": [1.0, 2.0], "y": [1.0, 2.0]})
    svgs = [inline_svg(svg_bytes(scatter(frame)), prefix, "a chart") for prefix in ("p0", "p1")]
    letters, bare = share_glyphs(svgs)
    shared = dict(re.findall(r'<path id="(g\d+)" d="([^"]*)"', letters))
    for before, after in zip(svgs, bare, strict=True):
        outlines = dict(re.findall(r'<path id="([^"]+)" d="([^"]*)"', before))
        drawn = [outlines.get(name, name) for name in re.findall(r'href="#([^"]+)"', before)]
        kept = dict(re.findall(r'<path id="([^"]+)" d="([^"]*)"', after)) | shared
        assert [kept.get(name, name) for name in re.findall(r'href="#([^"]+)"', after)] == drawn
        assert len(after) < len(before)
    assert compact("<svg></svg>", "p0") == "<svg><style></style></svg>"
