"""Timing: what is called how often and in which order, what is kept, and the figures derived from it."""

import gc

import numpy as np
import pytest

from toolkit.errors import DataError
from toolkit.measure.storage import bytes_per_vector, gb_per_million
from toolkit.measure.timing import Samples, Timed, batch_seconds, interleaved, single_query_ms

QUERIES = np.arange(12.0, dtype=np.float32).reshape(6, 2)


def recorder(log, name):
    def search(queries):
        log.append((name, queries.shape, gc.isenabled()))

    return search


def test_single_queries_keep_every_sample_in_order():
    seen = []
    samples = single_query_ms(lambda query: seen.append(query.copy()), QUERIES)
    assert samples.shape == (6,)
    assert samples.dtype == np.float64
    assert (samples >= 0).all()
    assert np.array_equal(np.concatenate(seen), QUERIES)


def test_collector_is_off_while_timing_and_back_after_a_failure():
    states = []
    single_query_ms(lambda query: states.append(gc.isenabled()), QUERIES)
    batch_seconds(lambda query: states.append(gc.isenabled()), QUERIES)
    assert not any(states)
    assert gc.isenabled()

    def broken(queries):
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        single_query_ms(broken, QUERIES)
    assert gc.isenabled()


def test_samples_are_the_time_the_search_took(monkeypatch):
    now = [0]
    monkeypatch.setattr("toolkit.measure.timing.perf_counter_ns", lambda: now[0])

    def search(queries):
        now[0] += int(queries.sum()) * 1_000_000

    found = interleaved({"a": Timed(search, QUERIES)}, rounds=2)["a"]
    assert found.single_ms.tolist() == [QUERIES.sum(axis=1).tolist()] * 2
    assert found.batch_s.tolist() == [QUERIES.sum() / 1_000] * 2


def test_turns_are_interleaved_and_warmed_up():
    log = []
    timed = {name: Timed(recorder(log, name), QUERIES) for name in "abc"}
    found = interleaved(timed, rounds=8, warmup=7, seed=1)
    calls_per_turn = 7 + 6 + 2  # warm-up, single queries, the batch warm and timed
    turns = [log[i : i + calls_per_turn] for i in range(0, len(log), calls_per_turn)]
    assert len(turns) == 24
    orders = []
    for start in range(0, 24, 3):
        names = [turn[0][0] for turn in turns[start : start + 3]]
        assert sorted(names) == ["a", "b", "c"], "every round times every search once"
        orders.append("".join(names))
    assert len(set(orders)) > 1, "the order differs between rounds"
    for turn in turns:
        assert len({name for name, _, _ in turn}) == 1
        assert [shape for _, shape, _ in turn] == [(1, 2)] * 13 + [(6, 2)] * 2
        assert [collecting for _, _, collecting in turn[7:13]] == [False] * 6
    for samples in found.values():
        assert samples.single_ms.shape == (8, 6)
        assert samples.batch_s.shape == (8,)


def test_figures_come_from_all_samples():
    samples = Samples(np.arange(1.0, 101.0).reshape(4, 25), np.array([0.5, 0.25, 5.0, 0.5]))
    assert samples.p50_ms == pytest.approx(50.5)
    assert samples.p95_ms == pytest.approx(95.05)
    assert samples.p99_ms == pytest.approx(99.01)
    assert samples.qps == pytest.approx(25 / 0.5)


def test_batch_can_be_left_out():
    sizes = []
    found = interleaved({"a": Timed(lambda queries: sizes.append(len(queries)), QUERIES)}, batched=False)
    assert set(sizes) == {1}
    assert np.isnan(found["a"].qps)


def test_what_cannot_be_timed():
    with pytest.raises(DataError, match="rounds 0"):
        interleaved({"a": Timed(len, QUERIES)}, rounds=0)
    with pytest.raises(DataError, match=r"\(0, 2\) cannot be timed"):
        Timed(len, QUERIES[:0])


def test_bytes():
    assert bytes_per_vector(1_045, 10) == 104.5
    assert gb_per_million(1024 * 4 * 5_000, 5_000) == pytest.approx(4.096)
    with pytest.raises(DataError, match="0 vectors"):
        bytes_per_vector(45, 0)
