"""Several devices of one machine: the same rows, work for all, and what happens when one is lost or time is up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import toolkit
from tests.models import make_qwen3
from toolkit.embedding.cache import VectorCache
from toolkit.embedding.device_process import _visible
from toolkit.embedding.devices import DevicesEmbedder, device_names
from toolkit.embedding.fill import Filler
from toolkit.embedding.open import open_embedder
from toolkit.embedding.request_queue import Waiting
from toolkit.errors import DeviceError, EngineClosedError, ModelError, PlanError

TWO = ["cpu", "cpu"]
TEXTS = [f"text {i} " * (1 + i % 40) for i in range(4_000)]


@pytest.fixture
def several():
    with open_embedder("static", devices=TWO) as embedder:
        yield embedder


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory) -> str:
    """A decoder that takes seconds for `LONG`, and is cut off in between."""
    return f"local:{make_qwen3(tmp_path_factory.mktemp('model') / 'qwen3')}"


LONG = ["a long text about nothing " * 19] * 600


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(condition, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


def processor_s(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def test_rows_are_those_of_one_process_and_both_devices_work(several):
    before = [processor_s(process.pid) for process in several._processes]
    rows = several.encode(TEXTS)
    np.testing.assert_array_equal(rows, open_embedder("static").encode(TEXTS))
    spent = [processor_s(process.pid) - was for process, was in zip(several._processes, before, strict=True)]
    assert min(spent) > 0


def test_a_process_that_dies_is_told_of_and_the_rest_goes_on(slow_model):
    with open_embedder(slow_model, devices=TWO) as several:
        expected = several.encode(["after"])
        running = several.submit(LONG)
        assert until(lambda: all(process.under_way for process in several._processes))
        os.kill(several._processes[0].pid, signal.SIGKILL)
        other = several.submit(["after"])
        with pytest.raises(DeviceError, match=r"device cpu has ended \(killed by SIGKILL\)"):
            running.result(60)
        np.testing.assert_array_equal(other.result(60), expected)
        np.testing.assert_array_equal(several.encode(["after"]), expected)


def test_a_process_that_died_while_nothing_ran_costs_nobody_anything(several):
    os.kill(several._processes[1].pid, signal.SIGKILL)
    assert until(lambda: several._processes[1].has_ended)
    assert several.encode(TEXTS[:100]).shape == (100, 256)
    os.kill(several._processes[0].pid, signal.SIGKILL)
    assert until(lambda: several._processes[0].has_ended)
    with pytest.raises(DeviceError, match="all devices"):
        several.encode(TEXTS[:100])


def test_what_was_encoded_before_a_process_died_is_on_disk(slow_model, tmp_path):
    texts = [f"{i} {text}" for i, text in enumerate(LONG)]
    with open_embedder(slow_model, devices=TWO) as several:
        filler = Filler(several, VectorCache(tmp_path))
        kept = []

        def kill_one(count: int) -> None:
            kept.append(count)
            if sum(kept) > 100 and several._processes[0].under_way:
                os.kill(several._processes[0].pid, signal.SIGKILL)

        with pytest.raises(DeviceError):
            filler.fill(texts, progress=kill_one)
        assert len(filler.shards) == sum(kept) > 100


def test_cancelled_texts_stop_within_a_pass(slow_model):
    with open_embedder(slow_model, devices=TWO) as several:
        running = several.submit(LONG)
        assert until(lambda: all(process.under_way for process in several._processes))
        running.cancel()
        assert until(lambda: not any(process.under_way for process in several._processes), seconds=5)
        assert several.encode(["after"]).shape == (1, 64)


def test_closing_ends_every_process(slow_model):
    several = open_embedder(slow_model, devices=TWO)
    pids = [process.pid for process in several._processes]
    running = several.submit(LONG)
    several.close(cancel=True)
    assert running.cancelled()
    assert not any(is_alive(pid) for pid in pids)
    with pytest.raises(EngineClosedError):
        several.encode(["a"])


def test_no_process_outlives_one_that_was_killed():
    code = (
        "import toolkit, sys, time\n"
        "several = toolkit.open_embedder('static', devices=['cpu', 'cpu'])\n"
        "print(*(process.pid for process in several._processes), flush=True)\n"
        "time.sleep(60)\n"
    )
    front = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in front.stdout.readline().split()]
    assert all(is_alive(pid) for pid in pids)
    front.kill()
    front.wait()
    front.stdout.close()
    assert until(lambda: not any(is_alive(pid) for pid in pids))


def test_no_process_outlives_an_embedder_that_nobody_closed():
    several = open_embedder("static", devices=TWO)
    pids = [process.pid for process in several._processes]
    several.encode(TEXTS[:10])
    del several
    assert until(lambda: not any(is_alive(pid) for pid in pids))


def test_parts_shrink_so_that_devices_end_together(several):
    sizes, left = [], 100_000
    while left:
        sizes.append(min(left, several._part_size(Waiting(left, 400, 4))))
        left -= sizes[-1]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 2**20 // 400  # what a part may have
    assert sum(sizes[-4:]) * 400 < 2**18  # what the last to end may have alone


def test_few_texts_are_shared_by_idle_devices(several):
    assert several._part_size(Waiting(64, 50, 0)) == 32
    assert several._part_size(Waiting(32, 50, 1)) == 32


def test_devices_are_named_by_number_or_as_torch_does():
    assert device_names([0, "1", "cuda:2", "cpu"]) == ("cuda:0", "cuda:1", "cuda:2", "cpu")


@pytest.mark.parametrize(
    ("spec", "devices", "settings", "said"),
    [
        ("static", ["gpu0"], {}, "device 'gpu0' is not known; choose cpu, or GPUs by number"),
        ("static", [], {}, "devices names none"),
        ("static", [0], {}, "runs on the CPU, not on cuda:0"),
        ("http://localhost:1/v1#m", ["cpu"], {}, "devices are for models on this machine"),
        ("local:x", ["cpu"], {"device": "cpu"}, "exclude each other"),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(spec, devices, settings, said):
    with pytest.raises(PlanError, match=said):
        open_embedder(spec, devices=devices, **settings)


def test_what_a_model_fails_with_is_raised_here(tmp_path):
    with pytest.raises(ModelError, match=r"\(on cpu\)"):
        open_embedder(f"local:{tmp_path}", devices=["cpu"])


def test_a_gpu_that_is_not_there_is_said_to_be_missing(slow_model, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5")
    assert _visible("cuda:1") == "GPU-5"
    with pytest.raises(DeviceError, match="shows 2"):
        open_embedder(slow_model, devices=[2])


def test_a_sweep_encodes_on_devices_and_its_plan_is_the_same(tmp_path):
    docs = {f"d{i}": text for i, text in enumerate(TEXTS[:100])}
    data = (docs, {"q0": "text 5", "q1": "text 7"}, {"q0": {"d5": 1}, "q1": {"d7": 1}})
    asked = {"embedder": "static", "data": data, "dims": [64], "max_unlabelled": 0, "progress": False}
    asked |= {"k": 10, "metrics": ["ndcg@10"], "timing": {"queries": 2, "rounds": 1, "threads": [1]}}
    views = [
        toolkit.sweep(
            **asked, out=tmp_path / name, cache=VectorCache(tmp_path / "cache" / name), devices=devices
        )
        for name, devices in (("one", None), ("two", TWO))
    ]
    assert (tmp_path / "one/plan.toml").read_text() == (tmp_path / "two/plan.toml").read_text()
    left, right = (view.results.measurements.set_index("dim")["ndcg@10"] for view in views)
    assert left.equals(right)


def test_the_command_line_embeds_on_devices(tmp_path):
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS[:200]))
    command = [
        sys.executable,
        "-m",
        "toolkit",
        "embed",
        "texts.txt",
        "--out",
        "rows.npy",
        "--devices",
        "cpu,cpu",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = np.load(tmp_path / "rows.npy")
    expected = open_embedder("static").encode(TEXTS[:200])
    np.testing.assert_allclose(rows, expected, atol=1e-6)


def test_several_is_the_embedder_that_is_opened(several):
    assert isinstance(several, DevicesEmbedder)
    assert several.tokenizer_file() == open_embedder("static").tokenizer_file()


def test_devices_that_make_other_vectors_are_refused(several):
    from dataclasses import replace

    from toolkit.embedding.devices import _common_space

    other = replace(several.space, dtype="bfloat16")
    with pytest.raises(
        PlanError, match=r"devices cpu and cuda:0 make different vectors \(dtype float32 and bfloat16\)"
    ):
        _common_space(["cpu", "cuda:0"], [several.space, other])
