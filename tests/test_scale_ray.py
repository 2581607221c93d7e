"""Ray workers write what one process writes, and a killed one loses nothing. Real Ray, on this machine."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from importlib.util import find_spec

import numpy as np
import psutil
import pytest

import toolkit
from toolkit.embedding.cache import VectorCache
from toolkit.embedding.pipeline import embed_texts
from toolkit.errors import PlanError
from toolkit.space import Role

if find_spec("ray") is None:
    pytest.skip("ray is not installed: pip install 'embedding-toolkit[ray]'", allow_module_level=True)

import ray

from toolkit.scale import ray_encode
from toolkit.scale.ray_encode import embed_on_ray
from toolkit.scale.ray_workers import RayWorkers

TEXTS = [f"document {i} about topic {i * 7 % 1009} " + "and more words " * (i % 30) for i in range(12_000)]


@pytest.fixture(scope="module")
def started():
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Two cores to Ray whatever the machine has: two workers are what is tested.
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


def kill_an_encoder(folder, killed):
    """SIGKILL an actor once it has written its first shard."""
    until = time.monotonic() + 60
    while not list(folder.glob("*/*.safetensors")) and time.monotonic() < until:
        time.sleep(0.005)
    for process in psutil.process_iter(["pid", "cmdline"]):
        if "MapBatches(Encoder)" in " ".join(process.info["cmdline"] or []):
            process.send_signal(signal.SIGKILL)
            killed.append(process.info["pid"])
            return


def test_a_killed_worker_loses_nothing_and_vectors_are_those_of_one_process(
    started, corpus, tmp_path, monkeypatch
):
    monkeypatch.setattr(ray_encode, "_PART_BYTES", 2**19)
    killed = []
    killer = threading.Thread(target=kill_an_encoder, args=(tmp_path, killed))
    killer.start()
    done = embed_on_ray("static", corpus, tmp_path, on=RayWorkers(workers=2), progress=False)
    killer.join()
    assert killed
    assert done.texts == len(TEXTS)
    with toolkit.open_embedder("static") as engine:

        class Closed:
            space = engine.space

            def stream(self, texts):
                raise AssertionError(f"{len(texts)} texts have no vector")

        cache = VectorCache(tmp_path)
        found = embed_texts(Closed(), TEXTS, role=Role.DOCUMENT, cache=cache, progress=False).rows
        np.testing.assert_allclose(found, toolkit.embed(engine, TEXTS, progress=False), atol=1e-6)
    again = embed_on_ray("static", corpus, tmp_path, on=RayWorkers(workers=2), progress=False)
    assert (again.texts, again.encoded) == (len(TEXTS), 0)


def test_what_a_worker_cannot_read_is_told_in_one_line(started, tmp_path):
    (tmp_path / "c.jsonl").write_text('{"text": "x"}\n{"txt": "y"}\n')
    with pytest.raises(toolkit.ToolkitError, match=r'c.jsonl:byte 14.*"text"') as caught:
        embed_on_ray("static", tmp_path / "c.jsonl", tmp_path / "out", progress=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "on", [{"workers": 0}, {"workers": 3}, {"gpus_per_worker": 1.0}, {"cpus_per_worker": 0}]
)
def test_workers_for_which_there_is_no_room_are_refused(started, corpus, tmp_path, on):
    with pytest.raises(PlanError):
        embed_on_ray("static", corpus, tmp_path, on=RayWorkers(**on), progress=False)
