"""Latency at another corpus size, from synthetic times whose law is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.decide.cost import extrapolate
from toolkit.experiment.setting import Setting
from toolkit.experiment.work import Work

SIZES = (2_163, 4_326, 8_652)


def work_of(index="Flat", precision="float32", dim=256, k=100, **search):
    return Work(Setting(dim, precision, index, search_args=search), k)


def test_the_line_it_was_made_from_is_recovered():
    fit = extrapolate([1_000, 10_000, 100_000], [1.01, 1.1, 2.0], work=work_of(), per_s=1e3)
    assert (fit.base, fit.slope) == pytest.approx((1.0, 1e-5))
    assert fit.fitted
    assert fit.worst_error < 1e-9
    assert fit.at(1_000_000) == pytest.approx(11.0)
    assert extrapolate([1_000, 10_000, 10_000], [1.0, 0.0, 3.0], work=work_of(), per_s=1e3) is None


LAWS = {
    "scan": (work_of(), lambda n: n),
    "all lists": (work_of("IVF64", "binary", nprobe=64), lambda n: 64 + n),
    "some lists": (work_of("IVF256", "int8", nprobe=16), lambda n: 256 + n / 16),
    "one list by default": (work_of("IVF256"), lambda n: 256 + n / 256),
    "more probes than lists": (work_of("IVF8", nprobe=64), lambda n: 8 + n),
    "lists found by a graph": (
        work_of("IVF256_HNSW32", nprobe=4),
        lambda n: 16 * np.log(256) + n * 4 / 256,
    ),
    "graph": (work_of("HNSW32", efSearch=128), lambda n: 128 * np.log(n)),
    "graph that must find more than its width": (
        work_of("HNSW32", k=400, efSearch=16),
        lambda n: 400 * np.log(n),
    ),
    "rotated lists": (work_of("OPQ16,IVF64,PQ16x8", nprobe=8), lambda n: 64 + n / 8),
    "exact scan": (Work(Setting(256, backend="exact"), 10), lambda n: n),
}


@pytest.mark.parametrize("law", LAWS)
def test_a_backend_counts_what_its_searches_compare(law):
    work, compared = LAWS[law]
    for documents in (20_000, 10_000_000):
        assert work.compared(documents) == pytest.approx(compared(documents))
    assert work.compared(50) <= 50 + 256, "no search compares more than there is"


@pytest.mark.parametrize("law", LAWS)
def test_time_at_ten_million_follows_what_is_compared(law):
    """Times of a known law, with a tenth of noise: the answer is near, or says that it is the most."""
    work, compared = LAWS[law]
    rng = np.random.default_rng(0)

    def truth(documents):
        return 0.02 + 2e-5 * compared(documents)

    for _ in range(20):
        times = [truth(n) * rng.uniform(0.95, 1.05) for n in SIZES]
        fit = extrapolate(SIZES, times, work=work, per_s=1e3)
        found, true = fit.at(10_000_000), truth(10_000_000)
        assert found > 0.7 * true
        if fit.fitted:
            assert found < 1.4 * true


def test_times_that_do_not_grow_do_not_make_a_larger_corpus_free():
    """As measured on a busy machine: every list of 64 is read, and the times fall by chance."""
    work = work_of("IVF64", "binary", nprobe=64)
    fit = extrapolate(SIZES, [0.22, 0.19, 0.193], work=work, per_s=1e3)
    assert not fit.fitted
    assert fit.at(10_000_000) == pytest.approx(0.193 * (10_000_064 / 8_716))


def test_no_vector_is_cheaper_than_a_core_can_read_it():
    """A perfect line without any slope still pays for reading 10,000,000 vectors of 1,024 bytes."""
    fit = extrapolate(SIZES, [50.0, 50.0, 50.0], work=work_of(), per_s=1e3)
    assert fit.at(10_000_000) >= 1e3 * 10_000_000 * 1_024 / 4e11
    tiny = extrapolate((10, 20, 40), [1e-9, 1.0001e-9, 1.0003e-9], work=work_of(), per_s=1e3)
    assert tiny.at(1_000_000) >= 1e3 * 1_000_000 * 1_024 / 4e11


@pytest.mark.parametrize("sizes", [(8_652,), (4_326, 8_652)])
def test_fewer_than_three_sizes_give_the_most_it_can_come_to(sizes):
    times = [0.1 + 1e-5 * n for n in sizes]
    fit = extrapolate(sizes, times, work=work_of(), per_s=1e3)
    assert not fit.fitted
    assert fit.sizes == sizes
    assert fit.at(8_652) == pytest.approx(times[-1])
    assert fit.at(1_000_000) == pytest.approx(times[-1] * 1_000_000 / 8_652)
    assert fit.at(1_000_000) > 0.1 + 1e-5 * 1_000_000


@settings(max_examples=200, deadline=None)
@given(
    times=st.lists(st.floats(1e-3, 1e3), min_size=3, max_size=3),
    law=st.sampled_from(sorted(LAWS)),
)
def test_a_larger_corpus_is_never_faster(times, law):
    fit = extrapolate(SIZES, times, work=LAWS[law][0], per_s=1e3)
    assert fit.base >= 0
    assert fit.slope > 0
    found = [fit.at(n) for n in (8_652, 100_000, 10_000_000)]
    assert found == sorted(found)


@pytest.mark.parametrize(
    ("setting", "bytes_each"),
    [
        (Setting(256), 1_024),
        (Setting(256, "int8"), 256),
        (Setting(256, "uint4", "IVF64"), 128),
        (Setting(256, "binary", "HNSW32"), 32),
        (Setting(256, "pq"), 64),
        (Setting(256, index="IVF64,PQ16x4"), 8),
        (Setting(256, index="PCA64,SQ8"), 256),
        (Setting(256, backend="exact"), 1_024),
    ],
)
def test_bytes_of_one_comparison(setting, bytes_each):
    assert Work(setting, 10).bytes_each == bytes_each


def test_work_of_a_tables_row_counts_the_candidates_of_the_first_stage():
    row = Setting(
        64, "int8", "HNSW32", search_args={"efSearch": 16}, rescore=[(128, 800), (256, 200)]
    ).columns
    assert Work.of_row(row, k=100).handed_on == 800
    assert Work.of_row(row | {"rescore": ""}, k=100).handed_on == 100
    assert Work.of_row(row | {"rescore": "256x4"}, k=100).setting.search_args == (("efSearch", 16),)
