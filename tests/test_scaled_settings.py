"""The setting one would run at another size, and that its price follows what it scans."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from toolkit.decide.at_size import SizedSetting
from toolkit.decide.cost import MOST_BYTES_PER_S
from toolkit.experiment.results import Results
from toolkit.experiment.setting import Setting
from toolkit.experiment.work import Work, scaled_setting
from toolkit.search.faiss.curve import lists_of
from toolkit.search.faiss.factory import check_setting
from toolkit.search.faiss.scaled import bytes_added, scaled

GRIDS = sorted((Path(__file__).parents[1] / "results").glob("grid-*"))


@pytest.mark.parametrize(
    ("index", "search", "sizes", "there", "search_there"),
    [
        ("Flat", {}, (5_000, 10_000_000), "Flat", {}),
        ("IVF64", {"nprobe": 4}, (5_000, 10_000_000), "IVF16384", {"nprobe": 64}),
        ("IVF64", {}, (5_000, 10_000_000), "IVF16384", {"nprobe": 16}),
        ("IVF64", {"nprobe": 64}, (5_000, 10_000_000), "Flat", {}),
        ("BIVF64", {"nprobe": 99}, (5_000, 10_000_000), "BFlat", {}),
        ("IVF1024_HNSW32", {"nprobe": 8}, (10_000, 1_000_000), "IVF8192_HNSW32", {"nprobe": 23}),
        ("OPQ16,IVF64,PQ16x8", {"nprobe": 8}, (5_000, 1_000_000), "OPQ16,IVF4096,PQ16x8", {"nprobe": 64}),
        ("HNSW8", {"efSearch": 64}, (10_000, 1_000_000), "HNSW32", {"efSearch": 96}),
        ("HNSW48", {}, (10_000, 1_000_000), "HNSW48", {"efSearch": 24}),
        ("HNSW8", {"efSearch": 64}, (10_000, 20_000), "HNSW8", {"efSearch": 72}),
        ("IVF64", {"nprobe": 4}, (5_000, 2_000), "IVF64", {"nprobe": 4}),
    ],
)
def test_lists_probes_width_and_links_follow_the_corpus(index, search, sizes, there, search_there):
    assert scaled(index, search, measured=sizes[0], documents=sizes[1]) == (there, search_there)


@pytest.mark.parametrize("documents", [30_000, 250_000, 1_000_000, 10_000_000, 300_000_000])
@pytest.mark.parametrize("lists", [16, 64, 1_024])
def test_lists_stay_within_the_published_range(documents, lists):
    index, _ = scaled(f"IVF{lists}", {"nprobe": 4}, measured=8_652, documents=documents)
    assert (
        4 * math.sqrt(documents)
        <= max(lists_of(index), lists)
        <= max(16 * math.sqrt(documents) * 2**0.5, lists)
    )
    check_setting(index, "int8", 64, documents)


def test_more_links_and_more_centroids_take_bytes():
    assert bytes_added("HNSW16", "HNSW32", centroid_bytes=1, documents=1_000) == 8 * 16 * 1_000
    assert bytes_added("IVF64", "IVF16384", centroid_bytes=1_024, documents=10**7) == (16_384 - 64) * 1_024
    assert bytes_added("Flat", "Flat", centroid_bytes=1_024, documents=10**7) == 0


def test_a_setting_keeps_its_dimension_precision_and_later_stages():
    setting = Setting(64, "int8", "IVF64", search_args={"nprobe": 4}, rescore=[(256, 400)])
    there = scaled_setting(setting, 10_000_000, measured=5_000)
    assert there.key == "64 int8 IVF16384 nprobe=64 rescore=256@400"
    assert scaled_setting(setting, 5_000, measured=5_000) == setting
    assert scaled_setting(Setting(64, backend="exact"), 10**7, measured=5_000) == Setting(64, backend="exact")


@pytest.mark.parametrize("folder", GRIDS, ids=lambda folder: folder.name)
def test_the_price_of_compute_follows_what_an_index_scans(folder):
    """At ten million: never cheaper than reading the scanned bytes, and dearer the more is scanned."""
    results = Results.load(folder)
    sized = dict(list(results.scaling.groupby("setting", observed=True)))
    documents = int(results.scaling["documents"].max())
    size = 10_000_000
    scanned, seconds, growth = [], [], []
    for row in results.measurements.to_dict("records"):
        found = SizedSetting(row, sized[row["setting"]], documents, results.plan.k).at(size)
        work = Work.of_row(row, k=results.plan.k)
        there = work.at(size, measured=documents)
        read_bytes = there.compared(size) * there.bytes_each
        assert 1.0 / found.qps >= read_bytes / MOST_BYTES_PER_S * 0.999, row["setting"]
        scanned.append(read_bytes)
        seconds.append(1.0 / found.qps)
        growth.append((there.compared(size) / work.compared(documents), found.p95_ms / row["p95_ms"]))
    ranks = [np.argsort(np.argsort(values)) for values in (scanned, seconds)]
    assert np.corrcoef(*ranks)[0, 1] > 0.8
    more, slower = np.array(growth).T
    assert (slower[more > 100] > 2).all(), "a hundred times the comparisons cost more than twice the time"


@pytest.mark.parametrize("folder", GRIDS, ids=lambda folder: folder.name)
def test_times_at_the_recorded_sizes_lie_on_the_line_they_are_extrapolated_from(folder):
    from toolkit.decide.cost import extrapolate

    results = Results.load(folder)
    errors = []
    rows = results.measurements.set_index("setting", drop=False)
    for key, sizes in results.scaling.groupby("setting", observed=True):
        work = Work.of_row(rows.loc[key], k=results.plan.k)
        fit = extrapolate(sizes["documents"], 1.0 / sizes["qps_1_thread"], work=work, per_s=1.0)
        if fit.fitted:
            errors.append(fit.worst_error)
    assert np.median(errors) < 0.1
