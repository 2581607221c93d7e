"""`toolkit serve` beside vLLM and SGLang on one GPU: the 4B shape, bf16, the same texts from the same load client.

Every server gets one text a request from 1, 8, 32 and 128 clients that each wait for their answer, passages and
queries. Beside it the engine alone over the same texts, in one call. Weights are random: they cost what real ones do.

A peer is a shell script that starts its server in the foreground (`--peer vllm=start.sh`), with model `m` on the
port in $PORT and a tokenizer that has the words w0 to w9999.

    python benchmarks/serve_h100.py [--peer NAME=SCRIPT ..] [--save]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _record import record
from _servers import Server, peer, running

from toolkit.conformance.load import Load, LoadResult, run_load

MODEL = "m"
SHAPE = "4b"
CLIENTS = (1, 8, 32, 128)
TEXTS = {"passages": (110, 0.7, 8, 512, 3072), "queries": (16, 0.4, 4, 64, 4096)}
START_S = 300.0
REQUEST_SIZES = (1, 10, 100, 1000)
DIMS = (32, 256, 2560)


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=SCRIPT")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--parts", nargs="+", default=["offline", "toolkit", "more"])
    parser.add_argument("--shape", default=SHAPE)
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS)
    parser.add_argument("--serve", type=int, help="be the server on this port, and nothing else")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--profile", type=Path, help="write where the server's time goes, by py-spy")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    if options.serve is not None:
        be_server(options)
        return
    figures: dict[str, Any] = {}
    try:
        if "offline" in options.parts:
            figures["offline"] = run_self(options, "--parts", "engine")
        if "engine" in options.parts:
            print(json.dumps(offline(options)))
            return
        if "toolkit" in options.parts:
            with running(own_server(options), ready_s=START_S) as url:
                figures["toolkit"] = measure(url, options)
                if "more" in options.parts:
                    figures["sizes"] = request_sizes(url, options)
                    figures["dimensions"] = dimensions(url, options)
        for name, script in (peer.split("=", 1) for peer in options.peer):
            with running(peer(script, model=MODEL), ready_s=START_S) as url:
                figures[name] = measure(url, options)
    finally:  # what one server fails with does not lose the others' figures
        figures |= summary(figures)
        if "engine" not in options.parts:
            record("serve_h100", figures, options.save)


def engine_of(options: argparse.Namespace):
    """The packed engine with random weights."""
    from toolkit.embedding.config import LocalConfig
    from toolkit.embedding.packed import PackedEmbedder
    from toolkit.embedding.packed.shape import QWEN3_SHAPES

    dtype = "bfloat16" if options.device.startswith("cuda") else "float32"
    config = LocalConfig(model=MODEL, device=options.device, dtype=dtype, max_tokens=8192)
    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(Path(folder))
        return PackedEmbedder.random(config, QWEN3_SHAPES[options.shape], Path(folder))


def write_tokenizer(folder: Path) -> None:
    """Words w0 to w9999, a token each, and the end token after every text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    from toolkit.embedding.eos_token import END_TOKEN

    words = {f"w{i}": i for i in range(10_000)} | {END_TOKEN: 10_000, "<unk>": 10_001}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([END_TOKEN])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END_TOKEN}", special_tokens=[(END_TOKEN, 10_000)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))


def be_server(options: argparse.Namespace) -> None:
    """`toolkit serve` over the engine with random weights."""
    from toolkit.serve.run import serve
    from toolkit.serve.settings import ServeSettings

    serve(lambda: engine_of(options), ServeSettings(port=options.serve, names=(MODEL,)))


def run_self(options: argparse.Namespace, *arguments: str) -> Any:  # noqa: ANN401 - what it printed last
    """Another process of this program, so that the device is free again after it."""
    command = [sys.executable, __file__, "--shape", options.shape]
    command += ["--device", options.device, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def offline(options: argparse.Namespace) -> dict[str, float]:
    """Texts per second of the engine alone, strings to rows, all in one call; the best of three."""
    rates = {}
    with engine_of(options) as engine:
        for workload in TEXTS:
            texts = texts_of(workload)
            seconds = []
            for _ in range(4):
                begin = time.perf_counter()
                engine.encode(texts)
                seconds.append(time.perf_counter() - begin)
            rates[f"{workload}_texts_per_s"] = round(len(texts) / min(seconds[1:]), 1)
    return rates


def texts_of(workload: str) -> list[str]:
    """The same for every server; a word is a token."""
    median, sigma, least, most, count = TEXTS[workload]
    rng = np.random.default_rng(1)
    lengths = np.clip(np.exp(rng.normal(math.log(median), sigma, count)).astype(int), least, most)
    return [" ".join(f"w{i}" for i in rng.integers(10, 9000, length)) for length in lengths]


def own_server(options: argparse.Namespace) -> Server:
    """This program as a server, beside py-spy if its profile is asked for, which writes it when interrupted."""
    command = (sys.executable, __file__, "--shape", options.shape, "--device", options.device)
    if options.profile:
        spy = ("py-spy", "record", "--gil", "--nonblocking", "-f", "raw", "-r", "200")
        command = (*spy, "-o", str(options.profile.resolve()), "--", *command)
    return Server("embedding-toolkit", command, port_option="--serve", model=MODEL, stop=signal.SIGINT)


def load(
    url: str,
    requests: list[list[str]],
    clients: int,
    options: argparse.Namespace,
    *,
    dim: int | None = None,
) -> LoadResult:
    """A closed loop; its processes are never the limit on a machine with spare cores."""
    processes = max(1, min(clients // 16, (os.cpu_count() or 2) // 2))
    asked = Load(
        url,
        MODEL,
        requests,
        clients=clients,
        seconds=options.seconds,
        warm_up=3 * clients,
        processes=processes,
        dimensions=dim,
    )
    result = run_load(asked)
    if result.client_limit or result.failures:
        print(f"{result.client_limit} {result.failures}", file=sys.stderr, flush=True)
    return result


def shown(result: LoadResult) -> dict[str, Any]:
    """Of a row, what a reader compares."""
    row = result.row()
    names = ("requests_per_s", "p50_ms", "p95_ms", "p99_ms", "client_limit", "failures")
    return {name: row[name] for name in names if row[name]}


def measure(url: str, options: argparse.Namespace) -> dict[str, Any]:
    """Both workloads at every number of clients."""
    found = {}
    for workload in TEXTS:
        requests = [[text] for text in texts_of(workload)]
        load(url, requests, max(options.clients), options)  # compiles, records, fills
        for clients in options.clients:
            found[f"{workload}_{clients}"] = shown(load(url, requests, clients, options))
            print(workload, clients, json.dumps(found[f"{workload}_{clients}"]), file=sys.stderr, flush=True)
    return found


def request_sizes(url: str, options: argparse.Namespace) -> dict[str, Any]:
    """Passages in requests of several sizes, from four clients."""
    texts = texts_of("passages")
    found = {}
    for size in REQUEST_SIZES:
        requests = [texts[i : i + size] for i in range(0, len(texts) - size + 1, size)]
        found[f"{size}"] = shown(result := load(url, requests, 4, options))
        found[f"{size}"]["texts_per_s"] = round(result.texts_per_s, 1)
    return found


def dimensions(url: str, options: argparse.Namespace) -> dict[str, Any]:
    """Queries at several dimensions, from the most clients."""
    requests = [[text] for text in texts_of("queries")]
    clients = max(options.clients)
    return {f"{dim}": shown(load(url, requests, clients, options, dim=dim)) for dim in DIMS}


def summary(figures: dict[str, Any]) -> dict[str, float]:
    """Ratios with the first peer, and with the engine alone."""
    found = {}
    ours = figures.get("toolkit", {})
    most = ours.get("passages_128")
    if most:
        found["p99_ms_128"] = most["p99_ms"]
        if "offline" in figures:
            rate = figures["offline"]["passages_texts_per_s"]
            found["throughput_vs_offline"] = round(most["requests_per_s"] / rate, 3)
    for name in ("vllm", "sglang"):
        theirs = figures.get(name, {})
        for workload in TEXTS:
            here, there = ours.get(f"{workload}_128"), theirs.get(f"{workload}_128")
            if here and there:
                found[f"{workload}_vs_{name}"] = round(here["requests_per_s"] / there["requests_per_s"], 3)
                found[f"{workload}_p99_vs_{name}"] = round(here["p99_ms"] / there["p99_ms"], 3)
            here, there = ours.get(f"{workload}_1"), theirs.get(f"{workload}_1")
            if here and there:
                found[f"{workload}_p50_1_vs_{name}"] = round(here["p50_ms"] / there["p50_ms"], 3)
    return found


if __name__ == "__main__":
    main()
