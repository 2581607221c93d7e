"""What grows with the corpus and what must not: Ray's workers, cost per document, memory, a file larger than memory.

    ray           `toolkit embed --ray` on two workers against two `toolkit embed` processes on halves of the corpus.
                  Both at two sizes: what the larger takes more, per document, is the rate once all has started.
    cost_per_doc  a stream of texts through the static embedder into shards, at growing sizes in turns, each in a
                  process of its own.
    ten_million   a sweep of float16 vectors in a file: exact search at each dimension, IVF with product codes, its
                  lists in memory and on disk. Nobody judged anything: relevant is what exact search finds.

Private memory is what the kernel cannot take back; resident memory also has pages of mapped files, which it can.

    python benchmarks/scale.py [--parts ray cost_per_doc ten_million] [--folder DIR] [--save]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from _record import ROOT, record
from all_dims import decaying_vectors

import toolkit
from toolkit.embedding.cache import VectorCache
from toolkit.embedding.pipeline import embed_texts
from toolkit.scale.corpus import embed_corpus
from toolkit.space import Role

GIB = 2**30
WORDS = 60
_POLL_S = 0.02


def main() -> None:
    """Measure the parts that are asked for; the recorded figures of the others stay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--folder", type=Path, help="on a disk with 20 GB; a temporary one without it")
    parser.add_argument("--ray-documents", type=int, nargs=2, default=(150_000, 600_000))
    parser.add_argument("--ray-rounds", type=int, default=1)
    parser.add_argument("--sizes", type=int, nargs="+", default=(10_000, 100_000, 1_000_000))
    parser.add_argument("--rounds", type=int, default=3, help="of each size")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--dims", type=int, nargs="+", default=(64, 256))
    parser.add_argument("--lists", type=int, default=1024)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--vectors", type=Path, help="the file to sweep; written and kept if it is not there")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(CHILDREN[options.child[0]](json.loads(options.child[1]))))
        return
    figures: dict[str, Any] = {} if set(options.parts) == set(PARTS) else recorded()
    load = figures.setdefault("load_average_after", {})
    for part in options.parts:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            figures |= PARTS[part](options, Path(folder))
        # Two cores: well above 2 means that others worked, too, and durations are too long.
        load[part] = [round(one, 2) for one in os.getloadavg()]
        print(json.dumps({part: figures}), flush=True)
    record("scale", figures, options.save)


def recorded() -> dict[str, object]:
    """The figures of an earlier run, without what is written down anew."""
    path = ROOT / "results" / "benchmarks" / "scale.json"
    if not path.exists():
        return {}
    about = {"hardware", "versions", "command", "commit", "date"}
    return {name: value for name, value in json.loads(path.read_text()).items() if name not in about}


def ray(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Seconds of both ways at both sizes, and whether they made the same vectors."""
    small, large = options.ray_documents
    seconds: dict[str, list[float]] = {}
    for turn in range(options.ray_rounds):
        for count in (small, large):
            halves = [folder / f"{count}-{half}.jsonl" for half in ("a", "b")]
            corpus = folder / f"{count}.jsonl"
            write_corpus(halves[0], range(count // 2))
            write_corpus(halves[1], range(count // 2, count))
            corpus.write_bytes(halves[0].read_bytes() + halves[1].read_bytes())
            apart = [folder / f"apart-{turn}-{count}-{half}" for half in ("a", "b")]
            together = folder / f"ray-{turn}-{count}"
            began = time.perf_counter()
            running = [embedding(half, out) for half, out in zip(halves, apart, strict=True)]
            check(running)
            seconds.setdefault(f"two_processes_{count}", []).append(time.perf_counter() - began)
            began = time.perf_counter()
            check([embedding(corpus, together, "--ray", "--workers", "2")])
            seconds.setdefault(f"ray_{count}", []).append(time.perf_counter() - began)
    best = {name: min(taken) for name, taken in seconds.items()}
    rates = {
        side: (large - small) / (best[f"{side}_{large}"] - best[f"{side}_{small}"])
        for side in ("two_processes", "ray")
    }
    return {
        "ray_vs_two_processes": round(rates["ray"] / rates["two_processes"], 3),
        "ray_vs_two_processes_with_start": round(best[f"two_processes_{large}"] / best[f"ray_{large}"], 3),
        "ray_documents_per_s": round(rates["ray"]),
        "two_processes_documents_per_s": round(rates["two_processes"]),
        "ray_seconds": {name: [round(one, 2) for one in taken] for name, taken in seconds.items()},
        "ray_largest_difference": largest_difference(together, apart, [halves[0], halves[1]]),
    }


def embedding(corpus: Path, out: Path, *arguments: str) -> subprocess.Popen[str]:
    """A `toolkit embed` of one corpus, running; two at a time get a core each, as Ray's workers do."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    command = [sys.executable, "-m", "toolkit", "embed", str(corpus), "--out", str(out), "--yes", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | threads
    )


def check(running: list[subprocess.Popen[str]]) -> None:
    """Wait for processes; raises RuntimeError with what one says that failed."""
    for one in running:
        _, said = one.communicate()
        if one.returncode:
            raise RuntimeError(said[-2_000:])


def largest_difference(together: Path, apart: list[Path], halves: list[Path]) -> float:
    """Between the vectors of both ways, over every document; raises VectorError if one has none."""
    with toolkit.open_embedder("static") as engine:

        class Closed:
            space = engine.space

            def stream(self, texts: list[str]) -> Iterator[object]:
                raise RuntimeError(f"{len(texts)} texts have no vector")

        worst = 0.0
        for half, out in zip(halves, apart, strict=True):
            texts = [json.loads(line)["text"] for line in half.read_text().splitlines()]
            found = [
                embed_texts(
                    Closed(), texts, role=Role.DOCUMENT, cache=VectorCache(where), progress=False
                ).rows
                for where in (together, out)
            ]
            worst = max(worst, float(np.abs(found[0] - found[1]).max()))
    return worst


def cost_per_doc(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Microseconds and memory at each size."""
    sizes = sorted(options.sizes)
    found: dict[int, list[dict[str, float]]] = {}
    # In turns, so that a slow minute of the host does not hit one size alone.
    for turn in range(options.rounds):
        for size in sizes:
            out = folder / f"{size}-{turn}"
            given = {"documents": size, "folder": str(folder), "out": str(out)}
            found.setdefault(size, []).append(child("embed", given))
            shutil.rmtree(out)
    cost = {size: median(one["seconds"] for one in rounds) / size for size, rounds in found.items()}
    return {
        "cost_per_doc_1m_vs_10k": round(cost[sizes[-1]] / cost[sizes[0]], 3),
        "cost_per_doc": [
            {
                "documents": size,
                "us_per_document": round(1e6 * cost[size], 2),
                "rounds_s": [round(one["seconds"], 3) for one in rounds],
                "peak_private_gib": round(max(one["peak_private_gib"] for one in rounds), 3),
                "private_gib_before": round(max(one["private_gib_before"] for one in rounds), 3),
                "peak_resident_gib": round(max(one["peak_resident_gib"] for one in rounds), 3),
            }
            for size, rounds in found.items()
        ],
    }


def embed_child(given: dict[str, object]) -> dict[str, float]:
    """Embed and store documents; the engine is open and warm before the clock starts."""
    corpus = Path(str(given["folder"])) / f"{given['documents']}.jsonl"
    if not corpus.exists():
        write_corpus(corpus, range(int(str(given["documents"]))))
    with toolkit.open_embedder("static") as engine:
        engine.warm_up()
        before = memory_gib("RssAnon")
        with measured_memory() as peak:
            began = time.perf_counter()
            done = embed_corpus(engine, corpus, str(given["out"]), progress=False)
            seconds = time.perf_counter() - began
    if done.encoded != given["documents"]:
        raise RuntimeError(f"{done.encoded} of {given['documents']} documents were encoded")
    return {"seconds": seconds, "private_gib_before": before, **peak}


def ten_million(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Write the file, sweep it in a process of its own, and say what was found."""
    path = (options.vectors or folder / "docs.npy").resolve()
    if not path.exists():
        write_vectors(path, options)
    given = {name: getattr(options, name) for name in ("rows", "dim", "dims", "lists", "queries")}
    found = child("sweep", given | {"folder": str(folder), "vectors": str(path)})
    return {
        "peak_gib_10m": found["peak_resident_gib"],
        "peak_private_gib_10m": found["peak_private_gib"],
        "float32_gib_10m": round(4 * options.rows * options.dim / GIB, 2),
        "file_gib_10m": round(2 * options.rows * options.dim / GIB, 2),
        "ten_million": given | {name: found[name] for name in ("seconds", "settings", "builds")},
    }


def write_vectors(path: Path, options: argparse.Namespace) -> None:
    """Float16 rows in clusters, block by block."""
    rows = np.lib.format.open_memmap(path, "w+", np.float16, (options.rows, options.dim))
    for seed, start in enumerate(range(0, options.rows, 131_072)):
        part = rows[start : start + 131_072]
        part[:] = decaying_vectors(len(part), options.dim, seed=seed + 10)
    rows.flush()


def sweep_child(given: dict[str, object]) -> dict[str, object]:
    """The sweep; its table, what each build took, and its peak memory."""
    folder = Path(str(given["folder"]))
    docs = np.load(str(given["vectors"]), mmap_mode="r")
    if docs.shape != (given["rows"], given["dim"]):
        raise RuntimeError(f"{given['vectors']} has shape {docs.shape}, not {given['rows']} x {given['dim']}")
    queries = decaying_vectors(int(str(given["queries"])), int(str(given["dim"])), seed=2)
    probes = [{"nprobe": number} for number in (1, 8, 64)]
    factory = f"IVF{given['lists']}"
    began = time.perf_counter()
    with measured_memory() as peak:
        view = toolkit.sweep(
            embedder=(docs, queries),
            out=folder / "out",
            dims=list(given["dims"]),
            precisions=["pq"],
            indexes=[
                {"factory": factory, "search": probes},
                {"factory": factory, "search": probes, "build": {"on_disk": 1}},
            ],
            timing={"queries": 5, "rounds": 1, "threads": [0]},
            progress=sys.stderr.isatty(),
        )
    seconds = time.perf_counter() - began
    frame = view.frame()
    columns = ["setting", "overlap@10", "kept_ndcg@10", "p50_ms", "qps", "index_bytes", "build_s"]
    builds = [json.loads(path.read_text()) for path in sorted((folder / "out" / "raw").glob("*.build.json"))]
    return {
        "seconds": round(seconds),
        "settings": [
            {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}
            for row in frame[columns].to_dict("records")
        ],
        "builds": [
            {
                "factory": facts["factory"],
                "steps_s": {name: round(taken, 1) for name, taken in facts["steps_s"].items()},
                "peak_resident_gib": round(facts["peak_bytes"] / GIB, 2),
            }
            for facts in builds
        ],
        **{name: round(value, 2) for name, value in peak.items()},
    }


def write_corpus(path: Path, numbers: range) -> None:
    """JSONL of documents whose words depend on their number alone."""
    words = np.array(
        [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in ("r", "n", "ly", "tion", "s")]
    )
    with path.open("w", encoding="utf-8") as file:
        for start in range(numbers.start, numbers.stop, 10_000):
            block = range(start, min(start + 10_000, numbers.stop))
            drawn = words[np.random.default_rng(start).zipf(1.3, (len(block), WORDS)) % len(words)]
            file.writelines(
                json.dumps({"text": f"document {number} " + " ".join(text)}) + "\n"
                for number, text in zip(block, drawn, strict=True)
            )


def child(name: str, given: dict[str, object]) -> dict[str, object]:
    """What a part of this program finds in a process of its own, whose memory is only its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--child", name, json.dumps(given)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | {"TMPDIR": str(given["folder"])},
    )
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def measured_memory() -> Iterator[dict[str, float]]:
    """Highest private and resident memory of this process within the block, in GiB; Linux only."""
    lines = {"peak_private_gib": "RssAnon", "peak_resident_gib": "VmRSS"}
    peak = dict.fromkeys(lines, 0.0)
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_POLL_S):
            for name, line in lines.items():
                peak[name] = max(peak[name], memory_gib(line))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def memory_gib(name: str) -> float:
    """A line of this process's status in GiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1]) * 1024 / GIB


PARTS: dict[str, Callable[[argparse.Namespace, Path], dict[str, object]]] = {
    "ray": ray,
    "cost_per_doc": cost_per_doc,
    "ten_million": ten_million,
}
CHILDREN: dict[str, Callable[[dict[str, object]], dict[str, object]]] = {
    "embed": embed_child,
    "sweep": sweep_child,
}


if __name__ == "__main__":
    main()
