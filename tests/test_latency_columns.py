"""The columns of time that a table shows, from samples written out by hand."""

import numpy as np
import pytest

from toolkit.experiment.derive import latency

SINGLE_MS = np.array([[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 104.0]])  # 2 rounds, 4 queries


def samples(**more):
    return {
        "single_ms_0": SINGLE_MS,
        "batch_s_0": np.array([0.2, 0.4, 9.0]),
        "batch_s_1": np.array([0.1, 0.1, 5.0]),
        **more,
    }


def test_percentiles_are_over_all_samples_of_single_queries():
    found = latency(samples())
    for percent in (50, 95, 99):
        assert found[f"p{percent}_ms"] == np.percentile(SINGLE_MS, percent)
    assert found["p50_ms"] == 2.5


def test_throughput_is_at_the_last_thread_count_and_that_of_one_thread_at_the_first():
    found = latency(samples())
    assert found["qps"] == pytest.approx(4 / 0.1)
    assert found["qps_1_thread"] == pytest.approx(4 / 0.4)
    ten = samples(**{f"batch_s_{i}": np.array([1.0 / (i + 1)]) for i in range(11)})
    assert latency(ten)["qps"] == pytest.approx(4 * 11)


@pytest.mark.parametrize(
    ("stages", "share"), [([3.0, 1.0], 0.75), ([1.0, 3.0], 0.25), ([1.0, 2.0, 1.0], 0.25)]
)
def test_the_first_stages_share_is_its_part_of_the_median_times(stages, share):
    stage_ms = np.tile(np.array(stages), (3, 5, 1))
    stage_ms[0, 0] = 100.0  # one slow query must not matter
    assert latency(samples(stage_ms=stage_ms))["first_stage_share"] == pytest.approx(share)


def test_a_single_stage_is_all_of_it():
    assert latency(samples())["first_stage_share"] == 1.0
