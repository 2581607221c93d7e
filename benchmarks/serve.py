"""`toolkit serve` beside infinity on the CPU: the same weights, the same short requests, in turns in one run.

    TOOLKIT_INFINITY=VENV/bin/python python benchmarks/serve.py [--clients 128] [--seconds 20] [--rounds 3] [--save]

`make models` links the model. Infinity lives in an environment of its own:
pip install 'infinity-emb[server,torch]==0.0.78' 'transformers<4.49' 'optimum<2' 'click<8.2' 'typer<0.16' torch==2.13.0

Beside both the engine by itself, in a process without HTTP: as many single texts under way as there are clients. The
clients run on the same machine, and what they take of it is the servers' loss; it is recorded.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import median

import numpy as np
from _host import Rounds
from _record import ROOT, record
from _servers import infinity, own, running

from toolkit.conformance.load import Load, LoadResult, run_load
from toolkit.conformance.server import CheckedServer
from toolkit.embedding.open import open_embedder
from toolkit.experiment.encode_speed import workload_texts

_SAME = 0.999


def in_process(spec: str, workload: str, clients: int, seconds: float) -> float:
    """Texts per second of the engine alone: each of so many texts is followed by the next when it is done."""
    texts = workload_texts(workload)
    with open_embedder(spec) as engine:
        engine.encode(texts[:256])
        done = threading.Event()
        lock = threading.Lock()
        state = {"next": 0, "answered": 0, "under_way": 0}
        end = time.perf_counter() + seconds
        begun = time.perf_counter()

        def send() -> None:
            with lock:
                number = state["next"]
                state["next"] += 1
                state["under_way"] += 1
            engine.submit([texts[number % len(texts)]]).add_done_callback(answered)

        def answered(job) -> None:  # noqa: ANN001
            job.result()
            with lock:
                state["answered"] += 1
                state["under_way"] -= 1
                last = not state["under_way"]
            if time.perf_counter() < end:
                send()
            elif last:
                done.set()

        for _ in range(clients):
            send()
        done.wait()
        return state["answered"] / (time.perf_counter() - begun)


def _in_another_process(options: argparse.Namespace) -> float:
    command = [sys.executable, __file__, "--alone", "--embedder", options.embedder]
    command += [
        "--clients",
        str(options.clients),
        "--seconds",
        str(options.seconds),
        "--workload",
        options.workload,
    ]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def same_vectors(one: str, other: str, models: tuple[str, str], texts: list[str]) -> float:
    """The lowest cosine of the two servers' vectors of some texts."""
    rows = []
    for url, model in zip((one, other), models, strict=True):
        with CheckedServer(url, model) as server:
            rows.append(server.alone(texts))
    return float((rows[0] * rows[1]).sum(axis=1).min())


def _p99(results: list[LoadResult]) -> float:
    return median(result.percentile_ms(99) for result in results)


def _rate(results: list[LoadResult]) -> float:
    return median(result.requests_per_s for result in results)


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--infinity", metavar="PYTHON", default=os.environ.get("TOOLKIT_INFINITY"))
    parser.add_argument("--embedder", default=f"local:{ROOT / '.models' / 'all-MiniLM-L6-v2'}")
    parser.add_argument("--workload", default="queries")
    parser.add_argument("--clients", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(in_process(options.embedder, options.workload, options.clients, options.seconds)))
        return
    if not options.infinity:
        parser.error("neither --infinity nor TOOLKIT_INFINITY names an interpreter; the docstring says which")

    texts = workload_texts(options.workload)
    folder = Path(options.embedder.removeprefix("local:"))
    sides = {"toolkit": own(options.embedder), "infinity": infinity(options.infinity, folder)}
    rounds = Rounds()
    results: dict[str, list[LoadResult]] = {name: [] for name in sides}
    alone = []
    with running(sides["toolkit"]) as toolkit_url, running(sides["infinity"]) as infinity_url:
        urls = {"toolkit": toolkit_url, "infinity": infinity_url}
        models = {}
        for name, url in urls.items():
            with CheckedServer(url, "?") as server:
                [models[name]] = server.models()
        lowest = same_vectors(toolkit_url, infinity_url, (models["toolkit"], models["infinity"]), texts[:32])
        if lowest < _SAME:
            raise SystemExit(
                f"the servers' vectors differ (cosine {lowest:.4f}): these are not the same weights"
            )
        for _ in range(options.rounds):
            for name, url in urls.items():
                load = Load(
                    url,
                    models[name],
                    [[text] for text in texts],
                    clients=options.clients,
                    seconds=options.seconds,
                    warm_up=2 * options.clients,
                )
                with rounds.timed(name):
                    results[name].append(run_load(load))
            with rounds.timed("in process"):
                alone.append(_in_another_process(options))
    ours, theirs = results["toolkit"], results["infinity"]
    figures = {
        "throughput_vs_infinity": round(_rate(ours) / _rate(theirs), 3),
        "p99_vs_infinity": round(_p99(ours) / _p99(theirs), 3),
        "overhead_vs_in_process": round(1 - _rate(ours) / median(alone), 3),
        "requests_per_s": {name: round(_rate(found), 1) for name, found in results.items()},
        "in_process_per_s": round(median(alone), 1),
        "rounds_per_s": {
            name: [round(one.requests_per_s, 1) for one in found] for name, found in results.items()
        }
        | {"in process": [round(one, 1) for one in alone]},
        **{
            f"p{percent}_ms": {
                name: round(median(one.percentile_ms(percent) for one in found), 1)
                for name, found in results.items()
            }
            for percent in (50, 95, 99)
        },
        "failures": {
            name: sum(sum(one.failures.values()) for one in found) for name, found in results.items()
        },
        "client_cpu_share": {
            name: round(float(np.mean([one.client_cpu_share for one in found])), 3)
            for name, found in results.items()
        },
        "client_limit": sorted(
            {one.client_limit for found in results.values() for one in found if one.client_limit}
        ),
        "lowest_cosine": round(lowest, 6),
        "clients": options.clients,
        "workload": options.workload,
        "servers": {name: {"version": side.version, "command": side.shown} for name, side in sides.items()},
    }
    record("serve", figures, options.save, rounds=rounds)


if __name__ == "__main__":
    main()
