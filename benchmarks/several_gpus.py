"""Several GPUs of one host against one: encoding, exact search over a sharded corpus, and serving.

The model has the 4B shape and random weights, written once as a checkpoint, so that every side opens it as it would
any other. Scaling is the rate of all GPUs over GPUs times the rate of one; 1 is linear. `serve_scaling` is the rate of
one server over all engines over that of a server over one, so 2 is linear on two. `ray_scaling` is the rate at which
Ray's workers write shards, once each has written one, over that of one engine alone; `encode` gives that, else
`ray` measures it first.

    python benchmarks/several_gpus.py --tokenizer FOLDER [--gpus N] [--parts encode ray search serve] [--save]

Needs beside torch, transformers, triton and numpy: pydantic, typer, tqdm, psutil, threadpoolctl, safetensors,
tokenizers and sentence-transformers; for `ray` also ray, for `serve` uvicorn, starlette, orjson prometheus-client.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from _checkpoints import write_qwen3
from _record import record
from _servers import own, running

from toolkit.conformance.load import Load, run_load
from toolkit.embedding.open import open_embedder
from toolkit.embedding.packed.shape import QWEN3_SHAPES, DecoderShape
from toolkit.embedding.protocol import Embedder
from toolkit.experiment.encode_speed import workload_texts
from toolkit.search.exact.search import exact_search
from toolkit.search.exact.sharded import sharded_search

DIMS = (32, 64, 128, 256, 512, 768, 1024)
K = 100
CHECKED_ROWS = 200_000
START_S = 300.0
TINY = DecoderShape(
    layers=2,
    hidden=64,
    heads=4,
    kv_heads=2,
    head_dim=16,
    intermediate=128,
    vocabulary=151_936,
    positions=4_096,
)


def main() -> None:
    """Measure each part that is asked for; one that fails leaves the others' figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder with Qwen3's tokenizer.json")
    parser.add_argument("--gpus", type=int, default=torch.cuda.device_count())
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--folder", type=Path, help="for the checkpoint; a temporary one without it")
    parser.add_argument("--passes", type=int, default=4, help="the passages workload so often for each GPU")
    parser.add_argument("--ray-passes", type=int, default=6, help="the same for each of Ray's workers")
    parser.add_argument("--rows", type=int, default=10_000_000, help="of the searched corpus, over all GPUs")
    parser.add_argument("--queries", type=int, default=1_024)
    parser.add_argument("--seconds", type=float, default=20.0, help="of load on each server")
    parser.add_argument(
        "--cpu", action="store_true", help="a tiny model on the CPU, to try the benchmark itself"
    )
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    options.devices = ["cpu"] * 2 if options.cpu else [f"cuda:{i}" for i in range(options.gpus)]
    figures: dict[str, object] = {
        "gpus": 0 if options.cpu else options.gpus,
        "device_names": [] if options.cpu else [torch.cuda.get_device_name(i) for i in range(options.gpus)],
    }
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        if set(options.parts) & {"encode", "ray", "serve"}:
            options.model = write_qwen3(
                folder / "random-4b",
                TINY if options.cpu else QWEN3_SHAPES["4b"],
                tokenizer=options.tokenizer,
                device=options.devices[0],
            )
        for part in options.parts:
            began = time.perf_counter()
            try:
                figures |= PARTS[part](options)
            except Exception as error:  # noqa: BLE001 - the other parts' figures must not be lost with it
                traceback.print_exc()
                figures[f"{part}_failed"] = f"{type(error).__name__}: {error}"[:300]
            figures[f"{part}_part_s"] = round(time.perf_counter() - began, 1)
            print(json.dumps(figures), flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        record("several_gpus", figures, options.save)


def encode(options: argparse.Namespace) -> dict[str, object]:
    """Texts per second from strings: one engine in this process's place, then one for each GPU."""
    workload = passages(1, options)
    rates, rows = {}, {}
    for name, devices in (("one", options.devices[:1]), ("all", options.devices)):
        with open_embedder(f"local:{options.model}", devices=devices) as embedder:
            rates[name] = rate_of(embedder, options.passes * len(devices), options)
            rows[name] = embedder.encode(workload[:256])
    options.one_engine_texts_s = rates["one"]
    return {
        "encode_scaling": round(rates["all"] / (len(options.devices) * rates["one"]), 4),
        "encode_texts_s": {name: round(rate, 1) for name, rate in rates.items()},
        "encode_lowest_cosine": round(float((rows["one"] * rows["all"]).sum(axis=1).min()), 6),
    }


def rate_of(embedder: Embedder, passes: int, options: argparse.Namespace) -> float:
    """Texts per second, after two rounds: the first compiles, the second records."""
    warming = passages(max(1, passes // options.passes), options)
    for _ in range(2):
        embedder.encode(warming)
    began = time.perf_counter()
    count = sum(len(positions) for positions, _block in embedder.stream(passages(passes, options)))
    return count / (time.perf_counter() - began)


def passages(times: int, options: argparse.Namespace) -> list[str]:
    """The passages workload so often, each text with a number of its own: a cache takes equal texts for one."""
    workload = workload_texts("passages")[: 64 if options.cpu else None]
    return [f"{number} {text}" for number in range(times) for text in workload]


def ray(options: argparse.Namespace) -> dict[str, object]:
    """Texts per second that workers, a GPU each, write as shards; `encode` has the rate of one engine."""
    from toolkit.scale.ray_encode import embed_on_ray
    from toolkit.scale.ray_workers import RayWorkers

    count = len(options.devices)
    if not hasattr(options, "one_engine_texts_s"):
        with open_embedder(f"local:{options.model}", devices=options.devices[:1]) as embedder:
            options.one_engine_texts_s = rate_of(embedder, options.passes, options)
    texts = passages(options.ray_passes * count, options)
    corpus, out = options.model.parent / "corpus.jsonl", options.model.parent / "shards"
    corpus.write_text(
        "".join(json.dumps({"_id": str(i), "text": text}) + "\n" for i, text in enumerate(texts))
    )
    on = RayWorkers(workers=count, gpus_per_worker=0 if options.cpu else 1)
    began = time.perf_counter()
    done = embed_on_ray(f"local:{options.model}", corpus, out, on=on, progress=False)
    whole_s = time.perf_counter() - began
    written = sorted((shard.stat() for shard in out.rglob("*.safetensors")), key=lambda stat: stat.st_mtime)
    if len(written) <= count:
        raise SystemExit(f"{len(written)} shards of {count} workers show no rate; give more --ray-passes")
    later = written[count:]
    share = sum(stat.st_size for stat in later) / sum(stat.st_size for stat in written)
    rate = share * done.encoded / (written[-1].st_mtime - written[count - 1].st_mtime)
    return {
        "ray_scaling": round(rate / (count * options.one_engine_texts_s), 4),
        "ray_texts": done.encoded,
        "ray_shards": len(written),
        "ray_texts_s": round(rate, 1),
        "ray_whole_s": round(whole_s, 1),
    }


def search(options: argparse.Namespace) -> dict[str, object]:
    """Seconds for a corpus over all GPUs, a thread for each, against one GPU's share alone."""
    share = options.rows // len(options.devices)
    queries = np.random.default_rng(2).standard_normal((options.queries, DIMS[-1])).astype(np.float32)
    shards = [unit_rows(share, device, seed) for seed, device in enumerate(options.devices)]
    timed_one: list[float] = []
    timed_all: list[float] = []
    sharded_search(shards, queries, DIMS, k=K)  # warms up
    for _ in range(3):
        timed_one.append(seconds(lambda: exact_search(shards[0], queries, DIMS, k=K)))
        timed_all.append(seconds(lambda: sharded_search(shards, queries, DIMS, k=K)))
    # The same rows on one GPU: what lies on several must be found in the same order.
    part = max(K, CHECKED_ROWS // len(shards))
    some = [shard[:part] for shard in shards]
    together = torch.cat([shard.to(some[0].device) for shard in some])
    whole, merged = (
        exact_search(together, queries[:128], DIMS, k=K),
        sharded_search(some, queries[:128], DIMS, k=K),
    )
    same = {dim: float(np.mean(whole[dim].rows == merged[dim].rows)) for dim in DIMS}
    one_s, all_s = float(np.median(timed_one)), float(np.median(timed_all))
    return {
        "search_scaling": round(one_s / all_s, 4),
        "search_rows": share * len(shards),
        "search_dims": DIMS,
        "search_s": {"one_gpu_on_its_share": round(one_s, 3), "all": round(all_s, 3)},
        "search_same_neighbours": min(same.values()),
    }


def unit_rows(count: int, device: str, seed: int) -> torch.Tensor:
    """(count, 1024) bfloat16 rows of norm 1, drawn on the device a part at a time."""
    generator = torch.Generator(device).manual_seed(seed)
    rows = torch.empty(count, DIMS[-1], device=device, dtype=torch.bfloat16)
    for block in rows.split(500_000):
        drawn = torch.randn(block.shape, device=device, generator=generator)
        block.copy_(torch.nn.functional.normalize(drawn, dim=1))
    return rows


def seconds(work: Callable[[], object]) -> float:
    """Of one call; an exact search returns when its devices are done."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def serve(options: argparse.Namespace) -> dict[str, object]:
    """Texts per second of a server over all engines against one over one, under the same closed loop per engine."""
    texts = workload_texts("passages")
    requests = [texts[start : start + 16] for start in range(0, 1_024, 16)]
    found = {}
    for name, devices in (("one", options.devices[:1]), ("all", options.devices)):
        one = own(f"local:{options.model}", "--devices", ",".join(devices))
        with running(one, ready_s=START_S) as url:
            load = Load(
                url=url,
                model="random-4b",
                requests=requests,
                clients=32 * len(devices),
                seconds=options.seconds,
                warm_up=64 * len(devices),
                dimensions=64,
                more={"truncate": True},
                processes=4 * len(devices) if not options.cpu else 1,
            )
            found[name] = run_load(load).row()
    return {
        "serve_scaling": round(found["all"]["texts_per_s"] / found["one"]["texts_per_s"], 4),
        "serve_load": found,
    }


PARTS = {"encode": encode, "ray": ray, "search": search, "serve": serve}

if __name__ == "__main__":
    main()
