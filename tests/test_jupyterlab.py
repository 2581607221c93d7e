"""Notebooks in a real JupyterLab: run, interrupted, read in both themes, their widgets used by mouse and keyboard."""

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
from toolkit.judge.journal import JOURNAL, Journal

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
QUICKSTART, TRADEOFFS, YOUR_DATA = "01_quickstart", "03_tradeoffs", "07_your_data"


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


def notebook_with(name, **values):
    """A notebook with other parameters."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    with_parameters(notebook, SMALL[name][0] | values)
    return notebook


def up_to_judging(notebook):
    """Without the cell that answers in a person's place, and those that need its answers."""
    [place] = [
        i
        for i, cell in enumerate(notebook.cells)
        if "results.judge(" in cell.source and "\njudging" in cell.source
    ]
    notebook.cells = notebook.cells[: place + 1]
    return notebook


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory):
    with jupyterlab(tmp_path_factory.mktemp("lab")) as found:
        files = own_files(found.folder.parent / "files")
        for name, notebook in {
            QUICKSTART: notebook_with(QUICKSTART, dims=[32, 64, 96, 128, 192]),
            TRADEOFFS: notebook_with(TRADEOFFS, data=f"csv:{files}"),
            YOUR_DATA: up_to_judging(notebook_with(YOUR_DATA)),
        }.items():
            nbformat.write(notebook, found.folder / f"{name}.ipynb")
        yield found


@pytest.fixture
def notebook(request, lab, browser):
    """The notebook that a test names."""
    with lab.open(browser, request.param) as found:
        yield found


def first_file(folder, pattern, *, within_s=120):
    """The first file to appear below a folder."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        for path in folder.glob(pattern):
            return path
        time.sleep(0.02)
    pytest.fail(f"no {pattern} in {folder} within {within_s} s")


def reads_in_both_themes(notebook, *elements):
    """Text of 4.5:1 at least, as WCAG 2 asks for."""
    for theme in ("Dark", "Light"):
        notebook.theme(theme)
        for element in elements:
            assert notebook.contrast(element) >= 4.5, (theme, element)


@pytest.mark.parametrize("notebook", [QUICKSTART], indirect=True)
def test_an_interrupted_sweep_goes_on_and_its_views_read_in_both_themes(notebook, lab):
    notebook.menu("Run", "Run All Cells")
    first_file(lab.folder.parent / "tmp", "*/quickstart/raw/*.neighbours.npz")
    notebook.menu("Kernel", "Interrupt Kernel")
    notebook.wait_until_stopped()
    [error] = notebook.errors
    assert error.startswith("Interrupted: stopped; what was computed so far is kept")
    notebook.page.get_by_text(error).wait_for()

    notebook.select("results = toolkit.sweep(")
    notebook.menu("Run", "Run Selected Cell and All Below")
    notebook.wait_until_run()
    [said] = notebook.outputs("pre").filter(has_text="continued: ").all_inner_texts()
    kept, of = map(int, re.search(r"continued: (\d+) of (\d+) settings", said).groups())
    assert 0 < kept <= of == 18

    charts = notebook.outputs(".toolkit-chart svg")
    assert charts.count() >= 2
    reads_in_both_themes(
        notebook,
        *(charts.nth(place).locator("use").first for place in range(charts.count())),
        notebook.outputs("td").first,
        notebook.outputs("th").first,
    )
    notebook.theme("Dark")
    charts.last.scroll_into_view_if_needed()
    notebook.picture("quickstart-dark")


@pytest.mark.parametrize("notebook", [TRADEOFFS], indirect=True)
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
    shown = explorer.locator("select").first.evaluate("list => list.selectedOptions[0].label")
    assert shown.replace("\xa0", " ") == "the recommended one"  # widgets keep spaces together
    cut = [
        button.inner_text()
        for button in explorer.locator(".widget-toggle-button").all()
        if button.evaluate("node => node.scrollWidth > node.clientWidth")
    ]
    assert cut == []
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
    notebook.narrow(480)
    explorer.locator(".js-plotly-plot").first.scroll_into_view_if_needed()
    notebook.picture("explorer-narrow")


@pytest.mark.parametrize("notebook", [YOUR_DATA], indirect=True)
def test_pairs_are_judged_from_the_keyboard_and_kept_at_every_press(notebook, lab):
    page = notebook.page
    notebook.menu("Run", "Run All Cells")
    notebook.wait_until_run()
    judging = page.locator(".toolkit-judge")
    reads_in_both_themes(
        notebook,
        notebook.outputs(".toolkit-chart svg").first.locator("use").first,
        notebook.outputs("td").first,
        judging.locator(".widget-html-content").first,
        judging.locator("button").first,
    )
    folder = first_file(lab.folder.parent / "tmp", "*/without-judgements")
    texts = pd.read_csv(folder.parent / "documents.csv").set_index("id")["text"]
    questions = pd.read_csv(folder.parent / "queries.csv").set_index("id")["text"]

    def press(key):
        """Type it into the field; returns the query and the document that it was about."""
        shown = judging.inner_text()
        page.keyboard.press(key)
        page.wait_for_function(
            "shown => document.querySelector('.toolkit-judge').innerText !== shown", arg=shown
        )
        return shown

    judging.locator("input").click()
    # Outside a field, 0 pressed twice restarts JupyterLab's kernel.
    shown = [press(key) for key in "200u3"]
    assert page.locator(".jp-Dialog").count() == 0
    answers = Journal(folder / "judgements" / JOURNAL).answers
    assert [one.gain for one in answers if one.doc_id] == [2, 0, 0, None, 3]
    given = [one for one in answers if one.doc_id]
    for words, one in zip(shown[:3], given[:3], strict=True):
        assert words_of(questions[one.query_id]) in words_of(words)
        assert words_of(texts[one.doc_id]) in words_of(words)
    assert given[2].doc_id == given[3].doc_id == given[4].doc_id
    assert shown[4] == shown[2], "what was taken back is asked again"
    judging.scroll_into_view_if_needed()
    notebook.picture("judging-light")


def words_of(text):
    """A text without its line breaks and spaces, which a page shows in its own way."""
    return "".join(text.split())
