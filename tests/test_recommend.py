"""Recommendations on synthetic sweeps with a known answer, and against brute force."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.decide.cost import Footprint, Prices, monthly_cost, parse_count, read_prices
from toolkit.decide.recommend import Evidence, recommend
from toolkit.decide.recommendation import Constraints
from toolkit.errors import PlanError, ResultsError
from toolkit.experiment.plan import make_plan
from toolkit.experiment.results import BY_SIZE, PER_QUERY, SCALING, Results
from toolkit.experiment.setting import Setting
from toolkit.measure.noninferiority import non_inferiority
from toolkit.measure.statistics import holm
from toolkit.notebook.views import RecommendationView

FULL = Setting(256)
DOCUMENTS = 10_000
QUERIES = 2_000


def sweep_of(folder: Path, rows: dict[Setting, dict], *, queries=QUERIES, seed=0, **extra) -> Results:
    """A finished sweep: for each setting the share of queries it loses, its bytes per vector and p95."""
    rng = np.random.default_rng(seed)
    full = rng.choice([1.0, 0.63, 0.5, 0.0], size=queries, p=[0.6, 0.15, 0.1, 0.15])
    order = rng.permutation(queries)
    measured, values = [], []
    for setting, row in rows.items():
        column = full.copy()
        column[order[: round(row["lost"] * queries)]] = 0.0
        if row.get("noise"):
            moved = rng.random(queries) < row["noise"]
            column[moved] = rng.permutation(column[moved])
        values.append(
            pd.DataFrame({"setting": setting.key, "query_id": np.arange(queries), "ndcg@10": column})
        )
        measured.append(
            {
                "dataset": "toy",
                "model": "toy-model",
                "setting": setting.key,
                **setting.columns,
                "ndcg@10": column.mean(),
                "p95_ms": row["p95_ms"],
                "qps": 4_000 / row["p95_ms"],
                "qps_1_thread": 1_000 / row["p95_ms"],
                "index_bytes": int(row["bytes"] * DOCUMENTS) + row.get("fixed_bytes", 0),
                "bytes_per_vector": row["bytes"] + row.get("fixed_bytes", 0) / DOCUMENTS,
                **(
                    {"disk_bytes_per_vector": row["disk_bytes_per_vector"]}
                    if "disk_bytes_per_vector" in row
                    else {}
                ),
            }
        )
    folder.mkdir(parents=True, exist_ok=True)
    pd.concat(values).astype({"setting": "category"}).to_parquet(folder / PER_QUERY, index=False)
    return Results(folder, make_plan(), {}, pd.DataFrame(measured), **extra)


SWEEP = {
    FULL: {"lost": 0.0, "bytes": 1024, "p95_ms": 2.0},
    Setting(128): {"lost": 0.001, "bytes": 512, "p95_ms": 1.0},
    Setting(128, "int8"): {"lost": 0.0015, "bytes": 128, "p95_ms": 4.0},
    Setting(64, "int8"): {"lost": 0.0075, "bytes": 64, "p95_ms": 0.6},
    Setting(32, "binary"): {"lost": 0.3, "bytes": 4, "p95_ms": 0.2},
}
STORAGE_ONLY = Prices(vcpu_usd=0.0)


@pytest.fixture
def toy(tmp_path):
    return sweep_of(tmp_path / "toy", SWEEP)


def test_the_cheapest_that_keeps_the_quality(toy):
    found = recommend(toy, prices=STORAGE_ONLY)
    assert found.choice.setting == "128 int8 Flat"
    assert found.runner_up.setting == "128 float32 Flat"
    assert found.reference.setting == FULL.key
    assert found.choice.at_least >= 0.99
    assert found.choice.retained == pytest.approx(0.9985, abs=2e-3)
    verdicts = found.table.set_index("setting")["verdict"]
    assert verdicts.to_dict() == {
        "256 float32 Flat": "reference",
        "128 float32 Flat": "keeps (proven)",
        "128 int8 Flat": "keeps (proven)",
        "64 int8 Flat": "undecided",
        "32 binary Flat": "loses",
    }


def test_less_quality_asked_for_is_cheaper(toy):
    assert recommend(toy, keep=0.97, prices=STORAGE_ONLY).choice.setting == "64 int8 Flat"
    assert recommend(toy, keep=0.5, prices=STORAGE_ONLY).choice.setting == "32 binary Flat"


def test_a_latency_limit_and_what_it_costs(toy):
    found = recommend(toy, max_p95_ms=1.5, prices=STORAGE_ONLY)
    assert found.choice.setting == "128 float32 Flat"
    by_words = {one.constraint: one for one in found.relaxed}
    limit = by_words["at most 1.5 ms p95"]
    assert limit.offer.setting == "128 int8 Flat"
    assert limit.saves_usd == pytest.approx((512 - 128) * DOCUMENTS / 1e9 * STORAGE_ONLY.ram_usd_per_gb)
    assert by_words["at least 99 % of nDCG@10"].offer.setting == "32 binary Flat"


def test_a_limit_that_binds_nothing_costs_nothing(toy):
    found = recommend(toy, max_p95_ms=100, max_bytes_per_vector=2_000, prices=STORAGE_ONLY)
    assert [one.saves_usd for one in found.relaxed[1:]] == [0.0, 0.0]
    assert "at most 100 ms p95: costs nothing" in str(found)


def test_limits_nothing_meets_name_the_nearest(toy):
    found = recommend(toy, max_bytes_per_vector=100, max_p95_ms=0.5, prices=STORAGE_ONLY)
    assert not found.feasible
    assert found.choice is None
    nearest = {one.constraint: one.offer and one.offer.setting for one in found.relaxed}
    assert nearest == {
        "at least 99 % of nDCG@10": "32 binary Flat",
        "at most 100 bytes per vector": None,
        "at most 0.5 ms p95": None,
        "both limits together": "128 int8 Flat",
    }
    text = str(found)
    assert "no measured setting is proven or likely to meet at least 99 % of nDCG@10 and at most 100" in text
    assert "Nearest settings" in text

    nothing_so_fast = recommend(toy, max_p95_ms=0.1, max_bytes_per_vector=100, prices=STORAGE_ONLY)
    latency = nothing_so_fast.relaxed[2]
    assert latency.met_by_none
    assert latency.offer.setting == "32 binary Flat"
    assert "at most 0.1 ms p95: met by no setting, the nearest is 32 binary Flat" in str(nothing_so_fast)

    by_bytes = recommend(toy, max_bytes_per_vector=100, prices=STORAGE_ONLY)
    nearest = {one.constraint: one.offer.setting for one in by_bytes.relaxed}
    assert nearest["at most 100 bytes per vector"] == "128 int8 Flat"
    assert nearest["at least 99 % of nDCG@10"] == "64 int8 Flat"


def test_too_few_queries_are_said_with_how_many_would_do(tmp_path):
    few = sweep_of(tmp_path / "few", SWEEP, queries=200)
    found = recommend(few, prices=STORAGE_ONLY)
    assert found.choice.setting == FULL.key
    assert found.undecided.count == 3
    assert found.undecided.offer.setting == "128 int8 Flat"
    text = str(found)
    assert "3 cheaper settings are undecided" in text
    low, high = found.undecided.labels
    assert "labelled queries like these" in text
    assert 200 < low < high
    # The plan is honest: with that many queries of the same kind the setting is decided.
    many = sweep_of(tmp_path / "many", SWEEP, queries=2 * high)
    assert recommend(many, prices=STORAGE_ONLY).choice.setting == "128 int8 Flat"


def test_settings_that_cannot_be_told_apart_are_marked(toy):
    table = recommend(toy, prices=STORAGE_ONLY).table.set_index("setting")
    assert table["alike"].to_dict() == {
        "256 float32 Flat": True,
        "128 float32 Flat": True,
        "128 int8 Flat": True,
        "64 int8 Flat": False,
        "32 binary Flat": False,
    }


def test_the_cheapest_that_may_is_named_where_nothing_is_shown(tmp_path):
    found = recommend(sweep_of(tmp_path / "few", SWEEP, queries=200), prices=STORAGE_ONLY)
    assert found.headline == (
        "toy · toy-model: keep 256 float32 Flat; no cheaper setting is proven or likely to keep 99 % of nDCG@10; "
        "the cheapest that might is 128 int8 Flat, and more queries would tell"
    )
    assert "the cheapest that may keep 99 %: 128 int8 Flat" in str(found)


def test_all_settings_are_one_family_of_tests_whatever_the_limits(tmp_path):
    """Dearer settings too: two families under one label would be wrong twice as often."""
    rows = SWEEP | {
        Setting(256, index="HNSW32"): {"lost": 0.001, "bytes": 1300, "p95_ms": 0.4},
        Setting(128, index="HNSW32"): {"lost": 0.004, "bytes": 1100, "p95_ms": 0.3},
        Setting(128, "int8", "HNSW32"): {"lost": 0.004, "bytes": 1050, "p95_ms": 0.3},
    }
    sweep = sweep_of(tmp_path / "dear", rows)
    wide = {
        key: group["ndcg@10"].to_numpy() for key, group in sweep.per_query.groupby("setting", observed=True)
    }
    others = [key for key in wide if key != FULL.key]
    alone = [non_inferiority(wide[key], wide[FULL.key]).p_proven for key in others]
    together = dict(zip(others, holm(alone), strict=True))
    for limits in ({}, {"max_p95_ms": 0.5}, {"max_bytes_per_vector": 600}):
        table = recommend(sweep, prices=STORAGE_ONLY, **limits).table.set_index("setting")
        assert table["p_proven"].drop(FULL.key).to_dict() == pytest.approx(together)
        verdicts = table["verdict"].drop(FULL.key)
        assert {key for key in others if verdicts[key] == "keeps (proven)"} == {
            key for key in others if together[key] <= 0.05
        }
    assert "all 7 settings beside the reference were tested together" in str(recommend(sweep))


def test_small_costs_are_never_zero(tmp_path):
    tiny = {
        FULL: {"lost": 0.0, "bytes": 1024, "p95_ms": 0.02},
        Setting(128): {"lost": 0.0, "bytes": 0.5, "p95_ms": 0.00004},
    }
    found = recommend(sweep_of(tmp_path / "tiny", tiny), prices=STORAGE_ONLY)
    text, html = str(found), RecommendationView.of(found, embedder="static")._repr_html_()
    assert found.reference.cost.usd == pytest.approx(0.0225, abs=1e-3)
    assert "less than USD 0.0001 per month" in text
    assert "0.023" in html
    for said in (text, html):
        assert "0.00 " not in said
        assert "e-05" not in said


# --- cost ----------------------------------------------------------------------------------------


PQ = Setting(256, "pq")
CODEBOOK = 262_144


def with_sizes(sweep: Results, times: dict[Setting, np.ndarray], sizes, *, fixed_bytes=None) -> Results:
    """The sweep, timed at several corpus sizes."""
    per_vector = sweep.measurements.set_index("setting")["bytes_per_vector"]
    pd.concat(
        pd.DataFrame(
            {
                "setting": setting.key,
                "documents": sizes,
                "p95_ms": p95_ms,
                "qps": 4_000 / p95_ms,
                "qps_1_thread": 1_000 / p95_ms,
                "index_bytes": (fixed_bytes or {}).get(setting, 0)
                + (per_vector[setting.key] - (fixed_bytes or {}).get(setting, 0) / DOCUMENTS) * sizes,
            }
        )
        for setting, p95_ms in times.items()
    ).to_parquet(sweep.folder / SCALING)
    return sweep


def test_cost_at_another_size_counts_what_does_not_grow(tmp_path):
    rows = {
        FULL: {"lost": 0.0, "bytes": 1024, "p95_ms": 2.0, "disk_bytes_per_vector": 0.0},
        PQ: {
            "lost": 0.0,
            "bytes": 64,
            "p95_ms": 1.0,
            "fixed_bytes": CODEBOOK,
            "disk_bytes_per_vector": 1024.0,
        },
    }
    sizes = np.array([5_000, DOCUMENTS])
    sweep = sweep_of(tmp_path / "pq", rows)
    prices = Prices(ram_usd_per_gb=3.0, disk_usd_per_gb=0.1, vcpu_usd=0.0)
    blind = recommend(sweep, corpus_size=10_000_000, prices=prices)
    assert blind.choice.bytes_per_vector == pytest.approx(64 + CODEBOOK / DOCUMENTS)
    assert any("codebooks and centroids included" in note for note in blind.notes)

    again = with_sizes(
        sweep_of(tmp_path / "sizes", rows),
        {FULL: sizes / 5_000, PQ: sizes / 9_000},
        sizes,
        fixed_bytes={PQ: CODEBOOK},
    )
    found = recommend(again, corpus_size=10_000_000, prices=prices)
    chosen = found.choice
    assert chosen.setting == PQ.key
    assert chosen.cost.memory_gb == pytest.approx((64 * 10_000_000 + CODEBOOK) / 1e9)
    assert chosen.cost.disk_gb == pytest.approx(10.24)
    assert chosen.bytes_per_vector == pytest.approx(64.0262144)
    assert chosen.cost.usd == pytest.approx(0.640262144 * 3.0 + 10.24 * 0.1)
    assert chosen.cost.vcpus is None
    assert "0.6403 GB memory x 3 + 10.24 GB disk x 0.1" in str(found)
    assert chosen.latency == "measured at 10,000 documents"
    assert len(found.notes) == 1
    assert "is not known at 10,000,000" in found.notes[0]


def test_a_second_stage_in_memory_grows_with_the_corpus(tmp_path):
    rescored = Setting(64, "int8", rescore=((256, 400),))
    rows = {
        FULL: {"lost": 0.0, "bytes": 1024, "p95_ms": 2.0},
        rescored: {"lost": 0.0, "bytes": 64, "p95_ms": 1.0},
    }
    sweep = sweep_of(tmp_path / "two", rows)
    held = sweep.measurements.assign(bytes_per_vector=sweep.measurements["bytes_per_vector"] + [0.0, 512.0])
    sweep = Results(sweep.folder, sweep.plan, {}, held)
    assert recommend(sweep).choice.bytes_per_vector == pytest.approx(576.0)
    assert recommend(sweep, corpus_size=1_000_000).choice.bytes_per_vector == pytest.approx(576.0)


def test_latency_at_another_size_is_extrapolated_from_three_sizes_and_says_so(tmp_path):
    graph = Setting(256, index="HNSW32")
    rows = {
        FULL: {"lost": 0.0, "bytes": 1024, "p95_ms": 10.0},
        graph: {"lost": 0.0, "bytes": 1300, "p95_ms": 0.5},
    }
    sizes = np.array([2_500, 5_000, 10_000])
    sweep = with_sizes(
        sweep_of(tmp_path / "scale", rows), {FULL: sizes / 1_000.0, graph: 0.04 * np.log(sizes)}, sizes
    )
    found = recommend(sweep, corpus_size=1_000_000, max_p95_ms=5.0, prices=Prices(peak_qps=100))
    assert found.choice.setting == "256 float32 HNSW32"
    # The width of the graph's search grows with the logarithm too: 100 nodes are handed on anyway.
    assert found.choice.p95_ms == pytest.approx(0.04 * np.log(1e6))
    assert found.reference.p95_ms == pytest.approx(1_000.0)
    assert found.reference.cost.vcpus == pytest.approx(100.0)
    assert (
        found.choice.latency
        == "extrapolated (at most) from 3 sizes, 2,500..10,000 documents, to 100.0 times the largest"
    )
    assert [note.partition(" (")[0] for note in found.notes] == [
        "lists, probes and graph width follow the corpus"
    ]
    # At the measured size nothing is extrapolated, and the graph no longer pays.
    assert recommend(sweep, prices=STORAGE_ONLY).choice.setting == FULL.key


def test_monthly_cost_by_hand():
    prices = Prices(ram_usd_per_gb=2.0, disk_usd_per_gb=0.1, vcpu_usd=20.0, peak_qps=50.0)
    cost = monthly_cost(4e9, 10e9, 200.0, prices)
    assert cost.usd == pytest.approx(4 * 2 + 10 * 0.1 + 50 / 200 * 20)
    assert cost.formula == "4 GB memory x 2 + 10 GB disk x 0.1 + 0.25 vCPU x 20"


def test_bytes_are_the_line_through_what_was_measured():
    assert Footprint.through([10, 5, 20], [1_100, 600, 2_100]) == Footprint(100.0, 100.0)
    assert Footprint.through([10, 20], [1_100, 2_100]).bytes_at(1_000) == 100_100
    assert Footprint.through([10], [1_100]).bytes_at(100) == 11_000


def test_price_file(tmp_path):
    file = tmp_path / "prices.toml"
    file.write_text("ram_usd_per_gb = 5\npeak_qps = 1.5\n")
    assert read_prices(file) == Prices(ram_usd_per_gb=5, peak_qps=1.5, source=str(file))
    for text, message in [
        ("ram = 5", "unknown key 'ram'; allowed: ram_usd_per_gb"),
        ("vcpu_usd = -1", "vcpu_usd = -1 must be a number of at least 0"),
        ("vcpu_usd = true", "must be a number"),
        ("vcpu_usd = ", "is not valid TOML"),
        ("", "sets no price; it needs at least one of ram_usd_per_gb"),
        ("source = 'a table'", "sets no price"),
    ]:
        file.write_text(text)
        with pytest.raises(PlanError, match=message):
            read_prices(file)
    with pytest.raises(PlanError, match="cannot be read"):
        read_prices(tmp_path / "absent.toml")


def test_corpus_sizes_as_people_write_them():
    assert [parse_count(text) for text in ("10M", "250k", "1.5b", "1_000", "42", "1e6", "2.5E3")] == [
        10_000_000, 250_000, 1_500_000_000, 1_000, 42, 1_000_000, 2_500,
    ]  # fmt: skip
    for text in ("", "M", "ten", "-5", "0", "_", "_e5", "1e", "1e999"):
        with pytest.raises(PlanError, match="is not a number of documents"):
            parse_count(text)


# --- brute force ---------------------------------------------------------------------------------


def by_brute_force(results: Results, prices: Prices, *, keep, max_bytes, max_p95_ms) -> str | None:
    """Every setting looked at by itself, with nothing of the recommendation's code but single tests."""
    frame = results.measurements
    wide = {
        key: group["ndcg@10"].to_numpy() for key, group in results.per_query.groupby("setting", observed=True)
    }
    usd = (
        frame["index_bytes"] / 1e9 * prices.ram_usd_per_gb
        + prices.peak_qps / frame["qps_1_thread"] * prices.vcpu_usd
    )
    rank = dict(zip(frame["setting"], zip(usd, frame["p95_ms"], frame["setting"], strict=True), strict=True))
    within = {
        row.setting
        for row in frame.itertuples()
        if row.bytes_per_vector <= max_bytes and row.p95_ms <= max_p95_ms
    }
    tested = sorted(key for key in wide if key != FULL.key)
    p = holm([non_inferiority(wide[key], wide[FULL.key], keep=keep).p_proven for key in tested])
    good = {key for key, one in zip(tested, p, strict=True) if one <= 0.05} | {FULL.key}
    return min(good & within, key=rank.__getitem__, default=None)


@given(
    seed=st.integers(0, 10_000),
    keep=st.sampled_from([0.9, 0.97, 0.99]),
    max_bytes=st.sampled_from([40.0, 150.0, 5_000.0]),
    max_p95_ms=st.sampled_from([0.3, 1.0, 50.0]),
)
@settings(max_examples=10, deadline=None)
def test_no_cheaper_setting_meets_the_demand(tmp_path_factory, seed, keep, max_bytes, max_p95_ms):
    rng = np.random.default_rng(seed)
    grid = [
        Setting(dim, precision, index)
        for dim in (32, 64, 128, 256)
        for precision in ("float32", "int8", "binary")
        for index in ("Flat", "HNSW32")
    ]
    rows = {
        setting: {
            "lost": float(rng.choice([0.0, 0.002, 0.01, 0.1])),
            "noise": float(rng.choice([0.0, 0.02])),
            "bytes": float(rng.choice([16, 32, 128, 1024])),
            "p95_ms": float(rng.choice([0.2, 0.9, 3.0])),
        }
        for setting in grid
    }
    rows[FULL] = {"lost": 0.0, "bytes": 1024.0, "p95_ms": 2.0}
    sweep = sweep_of(tmp_path_factory.mktemp("grid"), rows, queries=600, seed=seed)
    prices = Prices(peak_qps=0.001)
    found = recommend(sweep, keep=keep, max_bytes_per_vector=max_bytes, max_p95_ms=max_p95_ms, prices=prices)
    wanted = by_brute_force(sweep, prices, keep=keep, max_bytes=max_bytes, max_p95_ms=max_p95_ms)
    assert (found.choice and found.choice.setting) == wanted
    if found.runner_up:
        assert found.runner_up.cost.usd >= found.choice.cost.usd
    for relaxed in found.relaxed:
        assert relaxed.saves_usd >= 0.0
    assert str(found)


# --- several instructions, faces, bad input ------------------------------------------------------


def test_one_bar_for_all_instructions(tmp_path):
    rows = {
        FULL: {"lost": 0.0, "bytes": 1024, "p95_ms": 2.0},
        Setting(256, instruction="none"): {"lost": 0.2, "bytes": 1024, "p95_ms": 2.0},
        Setting(64, instruction="none"): {"lost": 0.2, "bytes": 256, "p95_ms": 1.0},
    }
    found = recommend(sweep_of(tmp_path / "two", rows))
    assert found.reference.setting == FULL.key
    assert found.choice.setting == FULL.key
    assert found.headline == (
        "toy · toy-model: keep 256 float32 Flat with the default instruction; "
        "no cheaper setting is proven or likely to keep 99 % of nDCG@10"
    )
    best, other = found.instructions
    assert (best.label, best.difference, other.label) == ("default", 0.0, "none")
    assert other.difference == pytest.approx(other.quality - best.quality)
    assert other.low < other.difference < other.high < 0
    said = f"the default instruction {best.quality:.3f}, the best and the reference; no instruction"
    assert said in str(found)
    assert f"no instruction {other.quality:.3f} ({other.difference:+.3f}, 95 % interval" in str(found)


def test_text_and_html_say_the_same(toy):
    found = recommend(toy, max_p95_ms=1.5)
    text, html = str(found), RecommendationView.of(found, embedder="static")._repr_html_()
    for said in (
        found.headline,
        "USD",
        found.choice.setting,
        found.prices.source,
        "What each constraint costs",
    ):
        assert said in text
        assert said in html
    assert found.choice.cost.formula in text
    assert found.choice.cost.formula in html
    assert "<script" not in html


def test_bad_input(toy, tmp_path):
    for limits, message in [
        ({"keep": 1.2}, "keep 1.2 is not a share"),
        ({"max_p95_ms": 0}, "max_p95_ms 0 must be above 0"),
        ({"metric": "ndcg@5"}, "metric 'ndcg@5' was not measured for every query; choose from ndcg@10"),
        ({"metric": "nDCG@10"}, "did you mean 'ndcg@10'"),
        ({"keep": "0.9"}, "keep '0.9' must be a number, not str"),
        ({"corpus_size": "10M"}, "corpus_size '10M' must be a number, not str"),
    ]:
        with pytest.raises(PlanError, match=message):
            recommend(toy, **limits)
    pairs = Results(toy.folder, toy.plan, {}, toy.measurements.drop(columns="p95_ms"))
    with pytest.raises(ResultsError, match="the sweep has no p95_ms"):
        recommend(pairs)
    partial = Results(toy.folder, toy.plan, {}, toy.measurements[toy.measurements["dim"] < 256])
    assert recommend(partial, keep=0.5).reference.setting == "128 float32 Flat"
    short = Results(toy.folder, toy.plan, {}, toy.measurements[toy.measurements["precision"] == "int8"])
    with pytest.raises(ResultsError, match="no exact full-dimension search"):
        recommend(short)


def test_proven_alone_counts_where_that_is_asked_for(tmp_path):
    rows = {
        FULL: {"lost": 0.0, "bytes": 1024, "p95_ms": 2.0},
        Setting(128): {"lost": 0.0, "bytes": 512, "p95_ms": 1.0},
        Setting(64): {"lost": 0.3, "bytes": 256, "p95_ms": 0.5},
    }
    results = sweep_of(tmp_path / "toy", rows, queries=400)
    evidence = Evidence.of(results)
    for keep in (0.9, 0.99, 0.999):
        proven = recommend(results, keep=keep, grade="proven")
        either = recommend(results, keep=keep)
        assert proven.likely is None
        assert proven.advised.setting == either.choice.setting
        assert proven.advised.verdict in ("reference", "keeps (proven)")
        assert evidence.tested(keep) is evidence.tested(keep)
    assert "no cheaper setting is proven to keep" in recommend(results, keep=1.0, grade="proven").headline
    with pytest.raises(PlanError, match="grade 'sure' is not one of proven, likely"):
        recommend(results, grade="sure")


def test_evidence_read_once_answers_as_a_fresh_one_does(toy):
    evidence = Evidence.of(toy, prices=STORAGE_ONLY)
    for demand in (
        {},
        {"keep": 0.95},
        {"keep": 0.95, "corpus_size": 1_000_000},
        {"max_p95_ms": 1.0},
        {"keep": 0.95, "max_bytes_per_vector": 2.0},
    ):
        constraints = Constraints("ndcg@10", **demand)
        fresh = recommend(toy, prices=STORAGE_ONLY, **demand)
        assert str(evidence.recommendation(constraints)) == str(fresh)
        pd.testing.assert_frame_equal(evidence.recommendation(constraints).table, fresh.table)
        brief = evidence.recommendation(constraints, brief=True)
        assert brief.headline == fresh.headline
        assert np.isnan(brief.reference.at_least)
        assert "alike" not in brief.table


GROWING = {
    FULL: {"lost": 0.0, "bytes": 1024, "p95_ms": 2.0},
    Setting(128, "int8"): {"lost": 0.0005, "bytes": 128, "p95_ms": 1.0},
    Setting(64, "int8"): {"lost": 0.001, "bytes": 64, "p95_ms": 0.6},
}


def by_size_of(shares, queries=200):
    """by_size: for each setting its share of the reference at sizes that double, at every query alike but noise."""
    rng = np.random.default_rng(0)
    full = rng.choice([1.0, 0.63, 0.5], size=queries)
    rows = []
    for setting, kept in {FULL: [1.0] * 4, **shares}.items():
        for size, share in zip([1_250, 2_500, 5_000, DOCUMENTS], kept, strict=True):
            rows.append(
                pd.DataFrame(
                    {
                        "setting": setting.key,
                        "documents": size,
                        "query_id": [str(i) for i in range(queries)],
                        "cluster": "",
                        "ndcg@10": full * share,
                    }
                )
            )
    return pd.concat(rows)


def test_a_setting_that_falls_short_within_ten_times_the_corpus_is_not_advised(tmp_path):
    results = sweep_of(tmp_path / "toy", GROWING)
    falling, steady = Setting(64, "int8"), Setting(128, "int8")
    table = by_size_of({falling: [1.0, 0.9975, 0.995, 0.9925], steady: [0.999] * 4})
    table.to_parquet(tmp_path / "toy" / BY_SIZE)
    here = recommend(results, prices=STORAGE_ONLY)
    assert here.advised.setting == falling.key
    assert here.advised.by_size.slope.per_tenfold == pytest.approx(-0.0025 * np.log2(10), rel=1e-6)
    assert "points per tenfold" in str(here)
    there = recommend(results, corpus_size=80_000, prices=STORAGE_ONLY)
    assert there.advised.setting == steady.key
    [note] = [note for note in there.notes if note.startswith("left out")]
    assert falling.key in note
    assert there.table.set_index("setting")["falls_short"].to_dict()[falling.key]
    far = recommend(results, corpus_size=200_000, prices=STORAGE_ONLY)
    assert far.advised.setting == falling.key, "twenty times the corpus decides nothing"
    assert not far.advised.by_size.asked.decides
    assert "an extrapolation that decides nothing" in str(far)
    brief = Evidence.of(results, prices=STORAGE_ONLY).recommendation(
        Constraints("ndcg@10", corpus_size=80_000), brief=True
    )
    assert brief.advised.setting == steady.key


def test_a_recommendation_as_json_has_what_the_text_says(tmp_path):
    results = sweep_of(tmp_path / "toy", GROWING)
    by_size_of({Setting(128, "int8"): [0.999] * 4, Setting(64, "int8"): [0.999] * 4}).to_parquet(
        tmp_path / "toy" / BY_SIZE
    )
    found = recommend(results, corpus_size=1_000_000)
    facts = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    advised = facts["advised"]
    assert (advised["setting"], advised["dim"], advised["precision"]) == (
        found.advised.setting,
        int(found.advised.setting.split()[0]),
        found.advised.setting.split()[1],
    )
    assert advised["kept"] == found.advised.retained
    assert advised["kept_at_least"]["proven"] == found.advised.at_least
    assert advised["verdict"] == "keeps (proven)"
    assert advised["usd_per_month"] == found.advised.cost.usd
    assert facts["choice"] == advised
    assert facts["reference"]["setting"] == FULL.key
    assert facts["undecided"]["count"] == found.undecided.count
    at = advised["kept_by_size"]["at_corpus_size"]
    assert (at["documents"], at["decides"]) == (1_000_000, False)
    assert facts["headline"] == found.headline


def test_an_interval_of_the_share_is_that_of_the_difference(tmp_path):
    results = sweep_of(tmp_path / "toy", SWEEP)
    full = results.measurements["ndcg@10"].iloc[0]
    measured = results.measurements.assign(
        **{"ndcg@10_delta_lo": -0.01 * full, "ndcg@10_delta_hi": 0.002 * full}
    )
    found = recommend(replace(results, measurements=measured))
    assert found.as_dict()["advised"]["kept_95"] == pytest.approx([0.99, 1.002])
