"""The explorer driven from Python: each control changes charts and recommendation as `recommend` would answer."""

from pathlib import Path
from time import thread_time
from types import SimpleNamespace

import numpy as np
import pytest

import toolkit
from toolkit.decide.recommend import recommend

pytest.importorskip("plotly", reason="the explorer needs plotly")
pytest.importorskip("anywidget", reason="the explorer needs anywidget")
RECORDED = Path(__file__).parents[1] / "results" / "grid-minilm-scifact"


@pytest.fixture(scope="module")
def results():
    return toolkit.load_results(RECORDED)


@pytest.fixture(scope="module")
def shared(results):
    import ipywidgets

    yield results.explore(keep=0.95)
    ipywidgets.Widget.close_all()


@pytest.fixture
def view(shared):
    """The explorer as it is at the start."""
    for control, value in (
        ("keep", 0.95),
        ("size", shared.size.options[0][1]),
        ("most_bytes", np.inf),
        ("most_ms", np.inf),
        ("most_memory", np.inf),
        ("grade", "likely"),
        ("cost", "usd_per_month"),
        ("setting", ""),
        ("target", "faiss"),
    ):
        getattr(shared, control).value = value
    return shared


def trace(figure, name):
    [found] = [one for one in figure.data if one.name == name]
    return found


def asked(view, results, **demand):
    """Whether the explorer stands where `recommend` does for a demand."""
    wanted = recommend(results.results, **demand)
    assert view.found.headline == wanted.headline
    key = wanted.advised and wanted.advised.setting
    assert (view.found.advised and view.found.advised.setting) == key
    mark = trace(view.tradeoff.figure, "recommended")
    assert len(mark.x) == (key is not None)
    if key:
        assert mark.x[0] == pytest.approx(wanted.advised.cost.usd)
        assert mark.y[0] == pytest.approx(wanted.advised.quality)
    return wanted


def test_every_setting_is_a_mark_of_its_verdict(view, results):
    found = asked(view, results, keep=0.95)
    counts = found.table["verdict"].value_counts()
    for verdict, count in counts.items():
        marks = trace(view.tradeoff.figure, verdict)
        assert len(marks.x) == count
        assert all(one == 1.0 for one in marks.marker.opacity)
    assert sum(counts) == len(results.frame())
    assert found.advised.setting in view._answer.value
    assert f"dim={found.advised.setting.split()[0]}" in view.code


def test_the_share_to_keep_moves_verdicts_line_and_advice(view, results):
    before = (view.found.advised.setting, len(trace(view.tradeoff.figure, "keeps (proven)").x))
    view.keep.value = 0.8
    found = asked(view, results, keep=0.8)
    after = (found.advised.setting, len(trace(view.tradeoff.figure, "keeps (proven)").x))
    assert before[0] != after[0]
    assert before[1] < after[1]
    for figure in (view.tradeoff.figure, view.dimensions.figure):
        assert figure.layout.shapes[0].y0 == pytest.approx(0.8 * found.reference.quality)
    assert "results.recommend(keep=0.8)" in view._answer.value


def test_limits_fade_what_they_rule_out(view, results):
    limit = view.most_bytes.options[4][1]
    view.most_bytes.value = limit
    found = asked(view, results, keep=0.95, max_bytes_per_vector=limit)
    faded = sum(
        (np.asarray(one.marker.opacity) < 1).sum()
        for one in view.tradeoff.figure.data
        if one.marker.opacity is not None
    )
    assert faded == (~found.table["within_limits"]).sum() > 0
    front = trace(view.tradeoff.figure, "best within the limits")
    assert (np.diff(front.x) > 0).all()
    assert (np.diff(front.y) > 0).all()
    view.most_bytes.value = np.inf
    view.most_ms.value = view.most_ms.options[2][1]
    asked(view, results, keep=0.95, max_p95_ms=view.most_ms.value)


def test_memory_is_counted_at_the_corpus_size(view, results):
    view.size.value = 1_000_000
    asked(view, results, keep=0.95, corpus_size=1_000_000)
    size_bytes = dict(view.most_memory.options)["50 MB"]
    assert size_bytes == pytest.approx(50e6)
    view.most_memory.value = size_bytes
    asked(view, results, keep=0.95, corpus_size=1_000_000, max_bytes_per_vector=size_bytes / 1_000_000)


def test_proven_alone(view, results):
    view.keep.value = 0.99
    view.grade.value = "proven"
    found = asked(view, results, keep=0.99, grade="proven")
    assert found.advised.verdict in ("reference", "keeps (proven)")


def test_the_cost_axis_changes(view):
    assert view.tradeoff.figure.layout.xaxis.title.text == "cost (USD per month)"
    view.cost.value = "bytes_per_vector"
    assert "bytes" in view.tradeoff.figure.layout.xaxis.title.text
    marks = trace(view.tradeoff.figure, "reference")
    assert marks.x[0] == view.found.reference.bytes_per_vector


def test_the_dimension_curve_is_the_exact_search(view, results):
    curve = trace(view.dimensions.figure, "exact search, float32")
    frame = results.frame()
    exact = frame[(frame["precision"] == "float32") & (frame["index"] == "Flat") & (frame["rescore"] == "")]
    assert curve.x.tolist() == sorted(exact["dim"])
    quality = exact.set_index("dim").loc[curve.x, "ndcg@10"]
    np.testing.assert_allclose(curve.y, quality)
    symbols = set(curve.marker.symbol)
    view.keep.value = 0.8
    assert set(trace(view.dimensions.figure, "exact search, float32").marker.symbol) != symbols


def test_a_click_pins_a_setting_and_shows_its_code(view):
    marks = trace(view.tradeoff.figure, "loses")
    place = next(i for i, text in enumerate(marks.text) if "<b>32 float32 HNSW32" in text)

    for call in marks._click_callbacks:
        call(marks, SimpleNamespace(point_inds=[place]), None)
    assert view.shown.startswith("32 float32 HNSW32")
    pinned = trace(view.tradeoff.figure, "pinned")
    assert (pinned.x[0], pinned.y[0]) == (marks.x[place], marks.y[place])
    assert "dim=32" in view.code
    assert "HNSW32" in view.code
    view.target.value = "qdrant"
    assert "QdrantClient" in view._code.value
    view.keep.value = 0.9
    assert view.shown.startswith("32 float32 HNSW32"), "what is pinned stays"


def test_a_setting_that_a_target_lacks_says_so(view):
    view.setting.value = next(key for _, key in view.setting.options if key and "IVF" in key)
    view.target.value = "pgvector"
    assert "pgvector has no equivalent" in view.code


def test_each_step_is_answered_within_200_ms(view):
    """Time of this thread on the processor, so that what runs beside the test does not count."""
    view._read_ahead()
    slowest = 0.0
    for control in (view.keep, view.size, view.most_ms):
        for _, value in control.options:
            before = thread_time()
            control.value = value
            slowest = max(slowest, thread_time() - before)
    assert len(view.found.table) > 500
    assert slowest < 0.2


def test_a_page_without_a_kernel_has_pictures_and_words(view):
    view.keep.value = 0.9
    bundle = view._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    html = bundle["text/html"]
    assert html.count('class="toolkit-chart"') == 2
    assert "results.recommend(keep=0.9)" in html
    assert "<script" not in html


def test_missing_plotly_names_the_extra(results, monkeypatch):
    monkeypatch.setattr("toolkit.errors.find_spec", lambda name: None if name == "plotly" else name)
    with pytest.raises(toolkit.ToolkitError, match="notebook"):
        results.explore()
