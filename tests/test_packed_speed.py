"""What the speed measurement counts, and what it refuses. No figure of time is asserted."""

import math

import numpy as np
import pytest

from toolkit.embedding.static import StaticEmbedder
from toolkit.errors import DataError, DimensionError, PlanError
from toolkit.experiment.encode_speed import (
    WORKLOADS,
    EncodeSpeed,
    SpeedPlan,
    measure_encode,
    measure_latency,
    workload_texts,
)


def test_built_in_workloads_have_the_stated_sizes():
    for name, lengths in WORKLOADS.items():
        texts = workload_texts(name)
        counts = np.array([len(text.split()) + 1 for text in texts])
        np.testing.assert_array_equal(counts, lengths.draw())
        assert len(texts) == lengths.texts
        assert abs(np.median(counts) / lengths.median - 1) < 0.1
        assert counts.max() <= lengths.longest
        assert texts == workload_texts(name)


def test_a_file_is_one_text_a_line(tmp_path):
    file = tmp_path / "texts.txt"
    file.write_text("one\n\n  \ntwo words\n", encoding="utf-8")
    assert workload_texts(file) == ["one", "two words"]
    file.write_text("\n")
    with pytest.raises(DataError, match="no text"):
        workload_texts(file)
    with pytest.raises(PlanError, match="passages, queries, long"):
        workload_texts("pasages")


def test_any_embedder_is_measured(tmp_path):
    file = tmp_path / "texts.txt"
    file.write_text("a text\nanother text\n")
    speed = measure_encode(
        StaticEmbedder(), file, plan=SpeedPlan(dims=(64, 256), repeats=2, latency_queries=4)
    )
    assert (speed.texts, len(speed.seconds), speed.engine) == (2, 2, "wordllama")
    assert math.isnan(speed.mfu)
    assert {dim: len(samples) for dim, samples in speed.latency_ms.items()} == {64: 4, 256: 4}
    frame = speed.frame()
    assert list(frame["dim"]) == [64, 256]
    assert (frame["p50_ms"] <= frame["p99_ms"]).all()
    with pytest.raises(DimensionError):
        measure_encode(StaticEmbedder(), file, plan=SpeedPlan(dims=(257,)))
    with pytest.raises(PlanError, match="at least 1"):
        SpeedPlan(repeats=0)


def test_rates_follow_from_the_samples():
    speed = EncodeSpeed(
        embedder="m",
        engine="packed",
        dtype="bfloat16",
        device="gpu",
        workload="w",
        texts=10,
        of_texts=10,
        seconds=(4.0, 1.0, 2.0),
        first_result_s=0.1,
        tokens=100,
        flops=3e12,
        ceiling_tflops=5.0,
        latency_ms={32: (1.0, 2.0, 3.0), 64: (5.0, 6.0, 70.0)},
    )
    assert (speed.texts_s, speed.tok_s, speed.mfu) == pytest.approx((5.0, 50.0, 0.3))
    assert speed.dimension_effect_ms == 4.0


class Slow(StaticEmbedder):
    """Encodes a hundred characters in a fixed time of a clock of its own, and notes how many texts it saw."""

    def __init__(self, clock, seconds_per_100):
        self.clock, self.pace, self.streamed = clock, seconds_per_100 / 100, []

    def encode(self, texts):
        self.clock[0] += self.pace * sum(map(len, texts))
        return np.zeros((len(texts), self.space.full_dim), dtype=np.float32)

    def stream(self, texts):
        self.streamed.append(len(texts))
        yield np.arange(len(texts)), self.encode(texts)


@pytest.fixture
def clock(monkeypatch):
    """A clock that only stands still or is moved on: [seconds]."""
    now = [0.0]
    monkeypatch.setattr("toolkit.experiment.encode_speed.time.perf_counter", lambda: now[0])
    return now


def test_a_workload_beyond_the_budget_is_cut_and_said_first(tmp_path, clock):
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(["ten chars."] * 1_000))
    slow = Slow(clock, seconds_per_100=5.0)  # 500 s a pass
    said = []
    speed = measure_encode(
        slow,
        file,
        plan=SpeedPlan(repeats=1, latency_queries=100, budget_s=100.0),
        announce=lambda estimate: said.append((estimate, len(slow.streamed))),
    )
    ((estimate, passes_before),) = said
    assert estimate.whole_s == pytest.approx(1_000.0)  # two passes, the warm-up among them
    assert estimate.measured_s <= 100.0
    assert (estimate.texts, estimate.of_texts) == (speed.texts, speed.of_texts) == (100, 1_000)
    assert str(estimate).startswith("about 100 s for 100 of the workload's 1,000 texts; all of them")
    assert "100 of 1,000 texts" in str(speed)
    assert slow.streamed.count(100) == 2  # both passes over the part that was said, after it was said
    assert 100 not in slow.streamed[:passes_before]
    assert 10 < len(speed.latency_ms[256]) < 100
    assert sum(speed.latency_ms[256]) / 1e3 == pytest.approx(100.0, rel=0.3)


def test_a_workload_within_the_budget_is_measured_whole(tmp_path, clock):
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(["ten chars."] * 200))
    slow = Slow(clock, seconds_per_100=0.1)
    speed = measure_encode(slow, file, plan=SpeedPlan(repeats=1, latency_queries=7, budget_s=100.0))
    assert (speed.texts, speed.of_texts, len(speed.latency_ms[256])) == (200, 200, 7)
    whole = measure_encode(Slow(clock, 50.0), file, plan=SpeedPlan(repeats=1, latency_queries=1))
    assert whole.texts == 200
    with pytest.raises(PlanError, match="above 0"):
        SpeedPlan(budget_s=0)


def test_every_latency_sample_is_another_query():
    seen = []

    class Listening(StaticEmbedder):
        def encode(self, texts):
            seen.extend(texts)
            return super().encode(texts)

    measure_latency(Listening(), [64, 128], count=3)
    assert len(seen) == len(set(seen)) == 2 * (3 + 5)


def test_the_packed_engine_counts_its_work(tmp_path):
    from tests.models import make_qwen3
    from toolkit.embedding.config import LocalConfig
    from toolkit.embedding.open import open_embedder

    folder = make_qwen3(tmp_path / "qwen3")
    embedder = open_embedder(LocalConfig(model=str(folder), device="cpu"))
    file = tmp_path / "texts.txt"
    file.write_text("the cat\nsun and rain\n")
    speed = measure_encode(embedder, file, plan=SpeedPlan(repeats=1, latency_queries=1, ceiling_tflops=1.0))
    counts = embedder.token_counts(["the cat", "sun and rain"])
    assert speed.tokens == sum(counts)
    assert speed.flops == embedder.flops(counts)
    assert speed.mfu > 0
