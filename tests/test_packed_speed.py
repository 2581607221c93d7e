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
        seconds=(4.0, 1.0, 2.0),
        first_result_s=0.1,
        tokens=100,
        flops=3e12,
        ceiling_tflops=5.0,
        latency_ms={32: (1.0, 2.0, 3.0), 64: (5.0, 6.0, 70.0)},
    )
    assert (speed.texts_s, speed.tok_s, speed.mfu) == pytest.approx((5.0, 50.0, 0.3))
    assert speed.dimension_effect_ms == 4.0


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
