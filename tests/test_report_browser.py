"""The report in a real browser: nothing inaccessible, nothing cut off, sorting and filtering, and without scripts."""

from pathlib import Path

import pytest

from tests.browser import chromium
from toolkit import load_results
from toolkit.experiment.results import Results
from toolkit.report.write import write_report

RECORDED = Path(__file__).parents[1] / "results" / "static-scifact"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "static"
    folder.mkdir()
    for path in RECORDED.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    return write_report(Results.load(folder))


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


def opened(browser, report, **options):
    page = browser.new_page(**options)
    page.goto(report.as_uri())
    return page


@pytest.mark.parametrize(
    ("width", "scheme", "media"),
    [(1280, "light", "screen"), (1280, "dark", "screen"), (390, "light", "screen"), (1000, "light", "print")],
)
def test_axe_finds_nothing_and_nothing_is_cut_off(browser, report, width, scheme, media):
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-core is not installed"
    ).Axe()
    page = opened(browser, report, viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.emulate_media(media=media)
    found = axe.run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_the_table_sorts_filters_and_shows_all_columns(browser, report):
    page = opened(browser, report)
    rows = page.locator("table.sortable tr[data-setting]")
    total = rows.count()
    first = rows.first.get_attribute("data-setting")
    page.fill("input[type=search]", "64 float32")
    shown = [row.get_attribute("data-setting") for row in rows.all() if row.is_visible()]
    assert 0 < len(shown) < total
    assert all("64" in name for name in shown)
    assert page.locator("[role=status]").inner_text() == f"{len(shown)} of {total} settings"
    page.fill("input[type=search]", "")
    page.click("table.sortable thead th:nth-child(2) button")
    values = [float(cell) for cell in page.locator("tr[data-setting] td:nth-child(2)").all_inner_texts()]
    assert values == sorted(values)
    page.click("text=group again")
    assert rows.first.get_attribute("data-setting") == first
    hidden = page.locator("thead th.extra").first
    assert not hidden.is_visible()
    page.check("input.more")
    assert hidden.is_visible()
    page.close()


def test_without_scripts_every_row_and_column_is_there(browser, report):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.locator(".tools").is_hidden()
    assert page.locator("thead th.extra").first.is_visible()
    assert page.locator("tr[data-setting]").last.is_visible()
    context.close()


@pytest.mark.parametrize(
    ("scheme", "theme", "dark"),
    [
        ("light", None, False),
        ("dark", None, True),
        ("dark", "true", False),
        ("light", "false", True),
    ],
)
def test_a_notebooks_charts_follow_its_theme(browser, scheme, theme, dark):
    """JupyterLab's own theme goes before what the system asks for; ink and paper change together."""
    html = load_results(RECORDED).plot("kept")._repr_html_()
    page = browser.new_page(color_scheme=scheme)
    mark = "" if theme is None else f' data-jp-theme-light="{theme}"'
    page.set_content(f"<body{mark}>{html}</body>")
    paper = page.evaluate("getComputedStyle(document.querySelector('.toolkit-chart')).backgroundColor")
    inks = page.evaluate(
        "[...document.querySelectorAll('.toolkit-chart svg g')].map((one) => getComputedStyle(one).fill)"
    )
    light, ink = "rgb(255, 255, 255)", "rgb(230, 232, 235)" if dark else "rgb(36, 41, 47)"
    assert (paper == light) is not dark
    assert ink in inks
    page.close()
