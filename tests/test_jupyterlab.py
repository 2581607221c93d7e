"""A notebook in a real JupyterLab: run, read in both themes, its explorer moved and clicked."""

import itertools
import re
import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from tests.browser import chromium
from tests.jupyterlab import jupyterlab
from tests.sweeps import NAMES
from tests.test_notebooks import SMALL, with_parameters

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def own_files(folder):
    """Three files of one's own: documents about two things each, and queries that ask for both."""
    folder.mkdir()
    pairs = list(itertools.combinations(NAMES, 2))[:600]
    docs = pd.DataFrame([(f"d{i}", f"a page about {a} and {b}") for i, (a, b) in enumerate(pairs)])
    asked = pd.DataFrame([(f"q{i}", f"what has {b} of {a}?") for i, (a, b) in enumerate(pairs) if i % 4 == 0])
    judged = pd.DataFrame([(query, f"d{query[1:]}", 1) for query in asked[0]])
    docs.to_csv(folder / "documents.csv", index=False, header=["id", "text"])
    asked.to_csv(folder / "queries.csv", index=False, header=["id", "text"])
    judged.to_csv(folder / "qrels.csv", index=False, header=["query_id", "document_id", "score"])
    return folder


def mine(name, files):
    """A notebook as a person would change it for their own files."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    with_parameters(notebook, SMALL[name][0] | {"data": f"csv:{files}"})
    return notebook


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory):
    with jupyterlab(tmp_path_factory.mktemp("lab")) as found:
        files = own_files(found.folder.parent / "files")
        nbformat.write(mine("03_tradeoffs", files), found.folder / "03_tradeoffs.ipynb")
        yield found


@pytest.fixture
def notebook(request, lab, browser):
    """The notebook that a test names."""
    with lab.open(browser, request.param) as found:
        yield found


def reads_in_both_themes(notebook, *elements):
    """Text of 4.5:1 at least, as WCAG 2 asks for."""
    for theme in ("Dark", "Light"):
        notebook.theme(theme)
        for element in elements:
            assert notebook.contrast(element) >= 4.5, (theme, element)


@pytest.mark.parametrize("notebook", ["03_tradeoffs"], indirect=True)
def test_the_explorer_follows_a_slider_and_a_click(notebook, record_property):
    page = notebook.page
    notebook.menu("Run", "Run All Cells")
    notebook.wait_until_run()
    explorer = page.locator(".toolkit-explorer")
    mark = explorer.locator(".scatterlayer .point").first
    mark.wait_for()
    assert explorer.locator(".js-plotly-plot").count() == 2
    reads_in_both_themes(
        notebook,
        explorer.locator(".xtick text").first,
        explorer.locator(".legendtext").first,
        explorer.locator(".widget-label").first,
        explorer.locator("td").first,
        explorer.locator("pre").first,
    )
    explorer.scroll_into_view_if_needed()
    notebook.picture("explorer-light")

    call, line = explorer.locator("code").first, explorer.locator(".shapelayer path").first
    told, height, waited = call.inner_text(), line.get_attribute("d"), []
    explorer.locator(".noUi-handle").first.focus()
    for _ in range(5):  # from 95 % down
        began = time.perf_counter()
        page.keyboard.press("ArrowLeft")
        page.wait_for_function(
            "told => document.querySelector('.toolkit-explorer code').textContent !== told", arg=told
        )
        waited.append(time.perf_counter() - began)
        told = call.inner_text()
    record_property("slider_to_advice_ms", [round(1000 * one) for one in waited])
    assert "keep=0.8)" in told
    assert "80 % of nDCG@10" in explorer.locator("ul").first.inner_text()
    page.wait_for_function(
        "d => document.querySelector('.toolkit-explorer .shapelayer path').getAttribute('d') !== d",
        arg=height,
    )

    mark.scroll_into_view_if_needed()
    box = mark.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    hover = explorer.locator(".hoverlayer .hovertext")
    hover.wait_for()
    setting = hover.locator("tspan").first.text_content()
    page.mouse.down()
    page.mouse.up()
    explorer.locator("p b", has_text=re.compile(f"^{re.escape(setting)}$")).wait_for()
    assert f"dim={setting.split()[0]}" in explorer.locator("pre").inner_text()
    notebook.theme("Dark")
    explorer.scroll_into_view_if_needed()
    notebook.picture("explorer-dark")
