"""Charts, report and notebook view: claims follow from the numbers, and nobody's text breaks them."""

import json
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import toolkit
from toolkit.decide.dimension import headline_of, smallest_dim
from toolkit.decide.evidence import headline, judged, recommended, with_recommendation
from toolkit.decide.wording import bytes_text, number, seconds_text, shorten, signed, usd_text
from toolkit.errors import PlanError, ResultsError
from toolkit.experiment.results import Results
from toolkit.measure.noninferiority import KEEPS
from toolkit.notebook.views import ResultsView
from toolkit.report import charts, grid_charts, style
from toolkit.report.kinds import draw, kinds, possible_kinds
from toolkit.report.labels import label_points
from toolkit.report.pareto import pareto_front
from toolkit.report.write import write_report

NASTY = "<script>alert(1)</script> $x$ 检索相关段落 _\"'&"
METRICS = ("ndcg@10", "recall@1", "recall@10", "recall@100", "mrr@10", "map@100", "overlap@10")


def row(dim, value, *, delta=(0.0, 0.0), **fields):
    """A measured setting; `delta` is the interval of the paired difference."""
    found = {
        "dataset": "letters",
        "model": "model",
        "instruction": "default",
        "dim": dim,
        "precision": "float32",
        "index": "Flat",
        "build_args": "",
        "search_args": "",
        "rescore": "",
        "p50_ms": dim / 1000,
        "p95_ms": dim / 800,
        "p99_ms": dim / 700,
        "qps": 1e6 / dim,
        "build_s": 0.1,
        "index_bytes": dim * 4000,
        "bytes_per_vector": dim * 4.0,
        "gb_per_million": dim * 4 / 1000,
    } | fields
    for metric in METRICS:
        found |= {
            metric: value,
            f"{metric}_lo": value - 0.03,
            f"{metric}_hi": value + 0.03,
            f"{metric}_delta": sum(delta) / 2,
            f"{metric}_delta_lo": delta[0],
            f"{metric}_delta_hi": delta[1],
            f"{metric}_p": 0.5,
        }
    names = ("dim", "precision", "index", "search_args", "rescore", "instruction")
    return {"setting": " ".join(str(found[name]) for name in names)} | found


@pytest.fixture
def curve():
    """128 of 256 dimensions keep 99 % with confidence; 64 do not."""
    return pd.DataFrame(
        [
            row(256, 0.415),
            row(32, 0.30, delta=(-0.13, -0.10)),
            row(64, 0.38, delta=(-0.05, -0.02)),
            row(128, 0.4135, delta=(-0.004, 0.001)),
        ]
    )


@pytest.fixture
def grid(curve):
    """The curve in three precisions, an index with search arguments, and a second stage."""
    rows = curve.to_dict("records")
    for dim, value in ((64, 0.37), (128, 0.40), (256, 0.414)):
        low = value - 0.415 - 0.001
        rows += [
            row(dim, value, delta=(low, low + 0.002), precision="int8", bytes_per_vector=dim * 1.0),
            row(dim, value / 2, delta=(-0.3, -0.2), precision="binary", bytes_per_vector=dim / 8),
            row(dim, value, delta=(low, 0.0), precision="binary", rescore="256x4", bytes_per_vector=dim / 8),
        ]
        rows += [
            row(
                dim, value - 1 / ef, index="HNSW32", search_args=f"efSearch={ef}", qps=2e6 / ef, delta=(-1, 0)
            )
            for ef in (16, 64, 128)
        ]
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A real sweep of twenty documents in two precisions and two indexes."""
    folder = tmp_path_factory.mktemp("data") / "tiny"
    (folder / "qrels").mkdir(parents=True)
    names = [
        f"{kind} {colour}"
        for kind in ("cat", "oak", "iron", "moon")
        for colour in ("red", "blue", "green", "grey", "pink")
    ]
    docs = [{"_id": f"d{i}", "title": name, "text": f"All about {name}."} for i, name in enumerate(names)]
    queries = [{"_id": f"q{i}", "text": f"Tell me about {name}"} for i, name in enumerate(names)]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, docs)))
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    lines = ["query-id\tcorpus-id\tscore", *(f"q{i}\td{i}\t1" for i in range(len(names)))]
    (folder / "qrels" / "test.tsv").write_text("\n".join(lines))
    return toolkit.sweep(
        data=f"beir:{folder}",
        dims=[64, 128],
        precisions=["float32", "int8"],
        indexes=["Flat", {"factory": "HNSW8", "search": [{"efSearch": 16}]}],
        timing={"queries": 5, "rounds": 1},
        k=10,
        out=tmp_path_factory.mktemp("out") / "tiny",
        progress=False,
    )


# --- Pareto


@given(
    st.lists(st.tuples(*[st.sampled_from([0.0, 1.0, 2.0, 3.0, np.nan])] * 2), max_size=12),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_pareto_front_is_what_brute_force_finds(points, maximise_y, minimise_x):
    frame = pd.DataFrame(points, columns=["x", "y"], dtype=float)
    front = pareto_front(frame, "x", "y", maximise_y=maximise_y, minimise_x=minimise_x)

    def beats(a, b):
        x = (b[0] - a[0]) * (1 if minimise_x else -1)
        y = (a[1] - b[1]) * (1 if maximise_y else -1)
        return x >= 0 and y >= 0 and (x > 0 or y > 0)

    for point, on_front in zip(points, front, strict=True):
        expected = np.isfinite(point).all() and not any(
            np.isfinite(o).all() and beats(o, point) for o in points
        )
        assert on_front == expected


def test_pareto_front_names_the_columns_there_are():
    with pytest.raises(PlanError, match=r"no column 'z'.*x, y"):
        pareto_front(pd.DataFrame({"x": [1.0], "y": [1.0]}), "z", "y")


# --- what is claimed


def test_headline_states_figures_interval_and_saving(curve):
    assert headline_of(curve) == (
        "128 of 256 dimensions keep 99 % of nDCG@10 "
        "(0.413 of 0.415, 95 % interval of the difference -0.004..+0.001) at half the bytes"
    ).replace("0.413", f"{0.4135:.3f}")


def test_a_good_mean_with_a_wide_interval_is_not_called_certain(curve):
    curve.loc[curve["dim"] == 128, "ndcg@10_delta_lo"] = -0.02
    verdict = smallest_dim(curve)
    assert (verdict.dim, verdict.certain) == (128, False)
    assert "may keep" in verdict.finding
    assert "more queries are needed" in verdict.sentence


def test_a_shorter_dimension_does_not_pass_over_a_longer_one_that_fails(curve):
    curve.loc[curve["dim"] == 64, "ndcg@10_delta_lo"] = 0.0
    curve.loc[curve["dim"] == 128, ["ndcg@10", "ndcg@10_delta_lo"]] = (0.38, -0.05)
    assert smallest_dim(curve).dim == 256


def test_only_the_full_dimension_keeps(curve):
    curve.loc[curve["dim"] == 128, ["ndcg@10", "ndcg@10_delta_lo", "ndcg@10_delta_hi"]] = (0.39, -0.03, -0.02)
    assert headline_of(curve).startswith("Only the full 256 dimensions keep 99 % of nDCG@10; 128 reach 0.390")
    curve.loc[curve["dim"] == 128, "ndcg@10_delta_hi"] = 0.001
    assert headline_of(curve).startswith("No dimension below 256 is proven or likely to keep")


def test_per_query_verdicts_go_before_intervals(curve):
    curve["verdict_alone"] = ["reference", "undecided", "loses", "loses"]
    assert not smallest_dim(curve).certain


def test_a_single_dimension_has_a_headline(curve):
    assert "no shorter one was measured" in headline_of(curve[curve["dim"] == 256])


def test_results_without_quality_or_reference_say_so(curve):
    with pytest.raises(ResultsError, match="no quality was measured"):
        headline_of(curve[["dim", "precision", "index", "rescore"]])
    with pytest.raises(ResultsError, match="exact full-dimension"):
        headline_of(curve.assign(index="HNSW32"))


def test_headline_is_about_the_instruction_that_serves_best(curve):
    worse = curve.assign(instruction="other words", **{"ndcg@10": curve["ndcg@10"] / 2})
    none = curve.assign(instruction="none", **{"ndcg@10": curve["ndcg@10"] - 0.015})
    assert headline_of(pd.concat([worse, none, curve])) == headline_of(curve) + (
        "; with the default instruction, the best of 3 (0.415 at the full dimension; "
        "no instruction 0.400, the instruction 'other words' 0.207)"
    )
    assert "no instruction, the best of 2" in headline_of(pd.concat([worse, none]))


def test_pair_sets_are_judged_by_their_own_measure(curve):
    columns = {name: name.replace("ndcg@10", "spearman") for name in curve if name.startswith("ndcg@10")}
    pairs = curve.rename(columns=columns)[
        ["dataset", "model", "instruction", "dim", "precision", "index", "rescore", *columns.values()]
    ]
    assert "128 of 256 dimensions keep 99 % of Spearman" in headline_of(pairs)
    assert [name for name, kind in kinds().items() if kind.possible(pairs)] == ["dimension", "kept"]
    charts.quality_by_dimension(pairs)


def test_nothing_relevant_found_is_said_and_no_share_of_it_claimed(curve, swept, tmp_path):
    lost = curve.assign(**{column: 0.0 for column in curve if column.startswith("ndcg@10")})
    lost = lost.drop(columns=[c for c in curve if c.startswith(("recall", "mrr", "map", "overlap"))])
    said = headline_of(lost)
    assert said.startswith(
        "nDCG@10 is not above 0 at the full 256 dimensions: there is nothing to keep (0.000)"
    )
    assert "judgements" in said
    assert "keep 99 %" not in said
    names = [name for name, kind in kinds().items() if kind.possible(lost)]
    assert "kept" not in names
    assert "precision" not in names
    page = write_report(replace(swept.results, folder=tmp_path, measurements=lost)).read_text(
        encoding="utf-8"
    )
    assert "there is nothing to keep" in page
    charts.quality_by_dimension(lost)


# --- charts


def titles(chart):
    return chart.get_suptitle()


def test_titles_state_the_finding(curve, grid):
    assert titles(charts.quality_by_dimension(curve)) == "128 of 256 dimensions keep 99 % of nDCG@10"
    assert titles(charts.kept_by_dimension(curve)) == "128 of 256 dimensions keep 99 % of nDCG@10"
    assert "128 keeps 99 % of nDCG@10 at 512 B instead of 1 KiB" in titles(
        charts.tradeoff(curve, "bytes_per_vector")
    )
    assert (
        titles(grid_charts.precision_heat_map(grid))
        .replace("\n", " ")
        .startswith("256 x binary, rescored, keeps 99 %")
    )


def test_dimension_axis_has_the_measured_dimensions_as_ticks(curve):
    axes = charts.quality_by_dimension(curve).axes[0]
    assert axes.get_xscale() == "log"
    assert list(axes.get_xticks()) == [32, 64, 128, 256]
    assert axes.get_xlabel() == "embedding dimension"


def test_heat_map_shows_the_share_kept(grid):
    texts = {text.get_text() for axes in grid_charts.precision_heat_map(grid).axes for text in axes.texts}
    assert {"100.0", f"{100 * 0.38 / 0.415:.1f}", f"{100 * 0.37 / 2 / 0.415:.1f}"} <= texts


def test_recall_throughput_needs_search_arguments(curve, grid):
    with pytest.raises(ResultsError, match="for example HNSW32"):
        grid_charts.recall_by_throughput(curve)
    assert grid_charts.recall_by_throughput(grid).axes[0].get_yscale() == "log"


def test_a_scan_faster_than_every_graph_is_said_to_be(grid):
    exact = grid.assign(**{"overlap@10": 1.0})
    scans = (grid["index"] == "Flat") & (grid["precision"] == "float32") & (grid["rescore"] == "")
    slow, quick = (exact.assign(qps=grid["qps"].where(~scans, qps)) for qps in (1.0, 1e6))
    assert "HNSW32" in titles(grid_charts.recall_by_throughput(slow))
    title = titles(grid_charts.recall_by_throughput(quick)).replace("\n", " ")
    assert title == "256 dimensions: Flat float32 is fastest at overlap@10 of 0.99 with 1,000,000 queries/s"


@pytest.mark.parametrize("wide", ["W", "i"])
def test_no_line_of_a_title_is_wider_than_the_chart(wide):
    chart = style.new_chart()
    chart.subplots()
    style.heading(chart, " ".join([wide * 9] * 40) + wide * 300, "context")
    title = chart._suptitle.get_window_extent(chart.canvas.get_renderer())
    assert 0.8 * chart.bbox.width < title.x1 <= chart.bbox.width


def test_labels_of_a_narrow_range_of_recall_do_not_cover_each_other(grid):
    narrow = grid.assign(**{"overlap@10": 0.2363 + 0.0027 * np.linspace(0, 1, len(grid))})
    chart = grid_charts.recall_by_throughput(narrow)
    chart.canvas.draw()
    for axes in chart.axes:
        boxes = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
        assert len(boxes) >= 2
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_charts_are_drawn_at_the_depths_that_a_plan_chose(grid):
    at_five = {
        name: name.replace("recall@10", "recall@5").replace("overlap@10", "overlap@5")
        for name in grid
        if name.startswith(("recall@10", "overlap@10")) and not name.startswith("recall@100")
    }
    chosen = grid.drop(columns=[c for c in grid if c.startswith(("recall@1_", "recall@100"))])
    chosen = chosen.drop(columns="recall@1").rename(columns=at_five)
    assert {"latency", "bytes", "throughput"} <= set(possible_kinds(chosen))
    assert draw(chosen, "latency").axes[0].get_ylabel() == "recall@5 (0 to 1)"
    assert draw(chosen, "throughput").axes[0].get_xlabel() == "overlap@5 (0 to 1)"
    assert draw(grid, "latency").axes[0].get_ylabel() == "recall@10 (0 to 1)"
    without = chosen.drop(columns=[c for c in chosen if c.startswith(("recall", "overlap"))])
    assert {"latency", "throughput"}.isdisjoint(possible_kinds(without))


def test_every_axis_says_its_unit(grid):
    for kind in kinds().values():
        if kind.possible(grid):
            labels = [axes.get_ylabel() for axes in kind.draw(grid).axes]
            assert any(re.search(r"\(.+\)|one stage", label) for label in labels), labels


def test_labels_cover_neither_each_other_nor_points():
    chart = style.new_chart()
    axes = chart.add_subplot()
    rng = np.random.default_rng(0)
    points = [tuple(p) for p in rng.random((25, 2))]
    axes.scatter(*zip(*points, strict=True))
    placed = label_points(axes, points, [f"label {i}" for i in range(25)])
    assert 10 <= placed == len(axes.texts)
    renderer = chart.canvas.get_renderer()
    from matplotlib.text import Text

    boxes = [Text.get_window_extent(text, renderer) for text in axes.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    pixels = axes.transData.transform(points)
    assert not any(box.contains(x, y) for box in boxes for x, y in pixels)


def test_charts_are_the_same_bytes_each_time(curve, tmp_path):
    pairs = [style.save_chart(charts.quality_by_dimension(curve), tmp_path / name) for name in ("a", "b")]
    for first, second in zip(*pairs, strict=True):
        assert first.read_bytes() == second.read_bytes()


def test_drawing_leaves_the_users_matplotlib_alone(curve):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    charts.quality_by_dimension(curve)._repr_png_()
    assert dict(mpl.rcParams) == before
    probe = (
        "import sys, toolkit.report.charts, toolkit.notebook.views; print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_any_text_can_be_a_label(grid):
    two = pd.concat([grid, grid.assign(instruction=NASTY)], ignore_index=True).assign(model="_hidden $a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chart = charts.quality_by_dimension(two)
        svg = style.svg_bytes(chart)
    labels = [text.get_text() for text in chart.axes[0].get_legend().get_texts()]
    assert len(labels) == 2
    assert b"alert(1)</script>" not in style.inline_svg(svg, "x", NASTY).encode()


# --- report and view


class Reader(HTMLParser):
    """Collects ids, tags and what is loaded from outside."""

    def __init__(self):
        super().__init__()
        self.ids, self.tags, self.outside = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href") and not value.startswith("#"):
                self.outside.append(value)


def read(path):
    page = Reader()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def test_report_of_a_real_sweep(swept):
    folder = swept.results.folder
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = read(folder / "report.html")
    assert page.outside == []
    assert len(page.ids) == len(set(page.ids))
    assert page.tags.count("tr") >= len(swept.frame())
    assert swept.headline in text
    assert swept.results.environment["data"]["hash"] in text
    assert "Recommendation" in text
    drawn = {path.stem for path in (folder / "charts").glob("*.png")}
    assert drawn == {path.stem for path in (folder / "charts").glob("*.svg")} == set(swept.kinds)
    assert {"dimension", "kept", "latency", "bytes", "precision", "quality-cost", "throughput"} <= drawn


def test_every_setting_of_a_sweep_has_a_verdict_and_a_price(swept):
    frame = with_recommendation(judged(swept.results), recommended(swept.results))
    assert set(frame["verdict"]) <= {*KEEPS, "loses", "undecided", "reference"}
    assert (frame["verdict"] == "reference").sum() == 1
    assert frame["usd_per_month"].notna().all()


def test_report_says_how_it_was_judged(swept):
    text = (swept.results.folder / "report.html").read_text(encoding="utf-8")
    words = " ".join(re.sub(r"<[^>]+>", " ", text).split())
    for said in (
        "How this was measured",
        "One row per setting",
        "An interval of a difference is too narrow where a setting loses a few queries entirely",
        "All settings beside the reference are tested together (Holm)",
        "from the longest down",
        "USD per month",
    ):
        assert said in words, said
    assert "Origin" not in words
    assert re.findall(r"[^ ]*(?: 0\.00 |[0-9]e-[0-9]|USD 0\.00(?![0-9]))[^ ]*", words) == []


def test_notes_of_a_sweep_stand_in_the_report_and_beside_the_recommendation(swept, tmp_path):
    noted = replace(swept.results, folder=tmp_path, notes=("only 2,000 of 5,000 queries <b>", "k is 10"))
    for name in ("per_query.parquet", "plan.toml"):
        (tmp_path / name).write_bytes((swept.results.folder / name).read_bytes())
    page = write_report(noted).read_text(encoding="utf-8")
    assert page.count("only 2,000 of 5,000 queries &lt;b&gt;") == 2
    assert "Note: only 2,000 of 5,000 queries <b>\nNote: k is 10" in str(toolkit.recommend(noted, keep=0.5))


def test_report_escapes_what_users_wrote(swept, tmp_path):
    frame = swept.frame().assign(model=NASTY, dataset=NASTY)
    environment = dict(swept.results.environment) | {"command": NASTY, NASTY: {NASTY: NASTY}}
    results = Results(tmp_path / "<b>", swept.results.plan, environment, frame)
    results.folder.mkdir()
    page = write_report(results)
    assert "<script>alert" not in page.read_text(encoding="utf-8")
    assert read(page).tags.count("script") == 1
    assert "<script>alert" not in ResultsView(results)._repr_html_()


def test_report_of_results_without_per_query_values(curve, swept, tmp_path):
    results = replace(swept.results, folder=tmp_path, measurements=curve)
    assert headline(results) == headline_of(curve)
    assert write_report(results).stat().st_size > 10_000


def test_report_into_a_folder_that_cannot_be_written(swept, tmp_path):
    (tmp_path / "charts").write_text("in the way")
    with pytest.raises(ResultsError, match="cannot be written"):
        write_report(replace(swept.results, folder=tmp_path))


def test_recommend_takes_a_folder_results_and_a_view(swept):
    found = [toolkit.recommend(given, keep=0.5) for given in (swept, swept.results, swept.results.folder)]
    found.append(toolkit.recommend(str(swept.results.folder), keep=0.5))
    assert len({str(one) for one in found}) == 1
    assert "<table>" in found[0]._repr_html_()
    with pytest.raises(PlanError, match="results of type dict cannot be read; give a results folder"):
        toolkit.recommend({})
    with pytest.raises(PlanError, match="results of type DataFrame"):
        toolkit.recommend(swept.frame())


def test_decide_knows_no_markup_no_index_and_no_embedder():
    import ast

    for path in sorted((Path(toolkit.__file__).parent / "decide").glob("*.py")):
        source = path.read_text(encoding="utf-8")
        assert not re.search(r"</?(table|td|tr|p|div|li)>|_repr_html_|markupsafe|jinja2", source), path
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom):
                room = (node.module or "").removeprefix("toolkit.").partition(".")[0]
                assert room not in {"search", "embedding", "report", "notebook", "html"}, path


def test_view_in_a_notebook(swept):
    assert swept._repr_html_().count("<tr>") == 1 + min(12, len(swept.frame()))
    png, size = swept.plot("kept")._repr_png_()
    assert png.startswith(b"\x89PNG")
    assert size["width"] == 768
    with pytest.raises(PlanError, match="'dimensoin' is unknown; choose from dimension, kept"):
        swept.plot("dimensoin")
    own = swept.frame()
    own["dim"] = 0
    assert (swept.frame()["dim"] > 0).all()


# --- words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.01234, "0.0123"),
        (1.5, "1.5"),
        (123.4, "123"),
        (1234567.0, "1,234,567"),
        (float("nan"), "–"),
        (9.17e-05, "0.0000917"),
        (0.0, "0"),
        (999.6, "1,000"),
        (-0.5, "-0.5"),
    ],
)
def test_numbers_for_reading(value, text):
    assert number(value) == text


def test_times_and_money_have_units_that_read_well():
    assert [seconds_text(v) for v in (9.17e-05, 0.0352, 1.234, 612.0)] == [
        "91.7 µs",
        "35.2 ms",
        "1.23 s",
        "612 s",
    ]
    assert [usd_text(v) for v in (0.0, 0.00003, 0.00234, 0.5, 12.345, 1234.5)] == [
        "USD 0", "less than USD 0.0001", "USD 0.0023", "USD 0.5", "USD 12.35", "USD 1,234.50",
    ]  # fmt: skip


def test_bytes_differences_and_long_texts():
    assert [bytes_text(v) for v in (24, 1024, 1536, 3 * 2**30)] == ["24 B", "1 KiB", "1.5 KiB", "3 GiB"]
    assert [signed(v) for v in (0.0012, -0.0004, -0.02)] == ["+0.001", "0.000", "-0.020"]
    assert len(shorten("word " * 40)) <= 44
