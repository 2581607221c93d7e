"""What a sweep times: how many queries, on how many threads, which stage; and the figures made of it."""

from __future__ import annotations

import json

import numpy as np
import pytest

import toolkit
from toolkit.experiment import grid_search
from toolkit.experiment.derive import derive_scaling, latency
from toolkit.experiment.setting import Setting


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    folder = tmp_path_factory.mktemp("letters")
    (folder / "qrels").mkdir()
    docs = [{"_id": f"d{i}", "text": f"document {i} about {i * 7 % 13} and {i * 3 % 11}"} for i in range(60)]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, docs)))
    queries = [{"_id": f"q{i}", "text": f"topic {i * 7 % 13} number {i}"} for i in range(12)]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    judged = "\n".join(f"q{i}\td{i}\t1" for i in range(12))
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    return f"beir:{folder}"


def test_every_query_of_the_plan_is_timed_alone_at_every_thread_count(letters, tmp_path, monkeypatch):
    limits, limited = [], grid_search.threads
    monkeypatch.setattr(
        grid_search, "threads", lambda count, used: limits.append(count) or limited(count, used)
    )
    toolkit.sweep(
        data=letters,
        dims=[64],
        precisions=["int8"],
        rescore=[{"candidates": 20}],
        k=10,
        timing={"queries": 7, "rounds": 2, "threads": [1, 3]},
        out=tmp_path / "out",
        progress=False,
    )
    files = sorted((tmp_path / "out" / "raw").glob("*.timing.npz"))
    searches = {
        Setting(256),
        *(Setting(dim, "int8", rescore=stages) for dim in (64, 256) for stages in ((), [(256, 20)])),
    }
    assert {path.name.partition(".")[0] for path in files} == {search.slug for search in searches}
    staged = 0
    for path in files:
        with np.load(path) as samples:
            for place in (0, 1):
                assert samples[f"single_ms_{place}"].shape == (2, 7)
                assert samples[f"batch_s_{place}"].shape == (2,)
                assert (samples[f"single_ms_{place}"] > 0).all()
            if "stage_ms" in samples:
                staged += 1
                assert samples["stage_ms"].shape == (2, 7, 2)
                assert (samples["stage_ms"] > 0).all()
                # Stages are parts of the whole search, which was timed by itself.
                assert len(np.unique(samples["stage_ms"])) > 7
    assert staged == 2
    assert {1, 3} <= set(limits)


SAMPLES = {
    "single_ms_0": np.arange(1.0, 101.0).reshape(4, 25),
    "single_ms_1": np.full((4, 25), 0.5),
    "batch_s_0": np.array([5.0, 0.5, 0.5, 0.25]),
    "batch_s_1": np.array([0.1, 0.1, 9.0, 0.1]),
}


def test_single_queries_are_reported_at_the_first_thread_count_and_batches_at_the_last():
    found = latency(SAMPLES)
    assert found["p50_ms"] == pytest.approx(50.5)
    assert found["p95_ms"] == pytest.approx(95.05)
    assert found["p99_ms"] == pytest.approx(99.01)
    assert found["qps"] == pytest.approx(25 / 0.1)
    assert found["qps_1_thread"] == pytest.approx(25 / 0.5)
    assert found["first_stage_share"] == 1.0


def test_the_first_stages_share_is_its_median_time_over_all_stages():
    stage_ms = np.broadcast_to(np.array([0.3, 0.1, 0.1]), (2, 5, 3)).copy()
    stage_ms[0, 0] = [90.0, 1.0, 1.0]
    assert latency(SAMPLES | {"stage_ms": stage_ms})["first_stage_share"] == pytest.approx(0.6)


class Stored:
    """A raw store of one size."""

    def __init__(self, scale):
        self.scale = scale

    def timing(self, search):
        assert search.instruction == "default"
        return {name: self.scale * samples for name, samples in SAMPLES.items()}

    def build(self, slug):
        return {"index_bytes": int(self.scale * 1_000)}


def test_scaling_has_one_row_for_each_setting_at_each_size():
    settings = [Setting(64), Setting(64, instruction="none"), Setting(32, "int8")]
    table = derive_scaling({100: Stored(1.0), 400: Stored(4.0)}, settings)
    assert table[["setting", "documents"]].to_records(index=False).tolist() == [
        (setting.key, documents) for documents in (100, 400) for setting in settings
    ]
    assert table["p50_ms"].tolist() == pytest.approx([50.5] * 3 + [202.0] * 3)
    assert table["index_bytes"].tolist() == [1_000] * 3 + [4_000] * 3
