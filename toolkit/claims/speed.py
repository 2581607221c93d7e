"""Claims about time and memory, on the machine at hand."""

from __future__ import annotations

import time

import numpy as np

from toolkit.claims.bench import SUBJECT, SUBJECT_SPEC, Bench
from toolkit.claims.claim import FAILS, HOLDS, OPEN, Claim, Finding
from toolkit.experiment.encode_speed import measure_latency, workload_texts
from toolkit.measure.statistics import mean_interval

_CLAIMED_MS = 3.0
_CLAIMED_SPREAD = 0.15
_CLAIMED_GB = 14.2
_MEMORY_SHARE = 0.05  # of the figure, as close as a rounded one can be taken
_CLAIMED_FULL_MS, _CLAIMED_SHORT_MS = 112.0, 89.0
_BATCHES = (1, 8, 64)


def dimension_latency(bench: Bench) -> Finding:
    """One query from string to vector, at the shortest and the full dimension, in turns."""
    short, full = bench.dims[0], bench.full_dim
    samples = {
        dim: np.array(taken)
        for dim, taken in measure_latency(bench.embedder, [short, full], count=bench.repeats).items()
    }
    # Turn by turn, so that drift of the machine is in both; one slow turn in a hundred moves no trimmed mean.
    differences = _without_extremes(samples[full] - samples[short])
    found = mean_interval(differences)
    decided = HOLDS if max(abs(found.low), abs(found.high)) < _CLAIMED_MS else OPEN
    if min(abs(found.low), abs(found.high)) >= _CLAIMED_MS and found.low * found.high > 0:
        decided = FAILS
    return Finding(
        decided,
        f"{found.mean:+.3f} ms from {short} to {full} dimensions",
        (found.low, found.high),
        sample=f"{len(differences)} pairs of single queries with {bench.model}; medians "
        f"{np.median(samples[short]):.2f} and {np.median(samples[full]):.2f} ms",
        why="the model's work does not depend on the dimension; 112 against 89 ms, claimed elsewhere in the same "
        "article, is a difference of 23 ms",
        measured={f"p50_ms_at_{dim}": float(np.median(taken)) for dim, taken in samples.items()},
        needs="" if decided != OPEN else "--repeats 1000",
    )


def _without_extremes(values: np.ndarray, share: float = 0.05) -> np.ndarray:
    low, high = np.quantile(values, [share, 1 - share])
    return values[(values >= low) & (values <= high)]


def absolute_latency(bench: Bench) -> Finding:
    """What the article states in ms, for the model and a GPU only."""
    if not (bench.is_subject and _on_gpu(bench)):
        return Finding(
            OPEN,
            why=f"89 ms at 32 and 112 ms at 2560 dimensions are claimed for {SUBJECT} on a GPU; here is {bench.model} "
            f"on {_device(bench)}",
            needs=f"--embedder {SUBJECT_SPEC}",
        )
    samples = measure_latency(bench.embedder, [32, bench.full_dim], count=bench.repeats)
    short, full = (np.array(samples[dim]) for dim in (32, bench.full_dim))
    found = mean_interval(full - short)
    claimed = _CLAIMED_FULL_MS - _CLAIMED_SHORT_MS
    return Finding(
        HOLDS if found.low <= claimed <= found.high else FAILS,
        f"medians {np.median(short):.2f} ms at 32 and {np.median(full):.2f} ms at {bench.full_dim}",
        (found.low, found.high),
        sample=f"{len(full)} pairs of single queries on {_device(bench)}; the interval is of the difference in ms",
        measured={"p50_ms_at_32": float(np.median(short)), "p50_ms_at_full": float(np.median(full))},
    )


def batch_spread(bench: Bench) -> Finding:
    """How much longer a request of many texts takes than one of a single text."""
    texts = workload_texts("queries")
    rounds = max(5, bench.repeats // 10)
    taken: dict[int, list[float]] = {size: [] for size in _BATCHES}
    for turn in range(-1, rounds):
        for size in _BATCHES:
            start = (turn + 1) * size % (len(texts) - size)
            begin = time.perf_counter()
            bench.embedder.encode(texts[start : start + size])
            if turn >= 0:
                taken[size].append((time.perf_counter() - begin) * 1e3)
    medians = {size: float(np.median(one)) for size, one in taken.items()}
    ratios = np.array(taken[_BATCHES[-1]]) / np.array(taken[_BATCHES[0]]) - 1
    found = mean_interval(ratios)
    decided = HOLDS if found.high < _CLAIMED_SPREAD else FAILS if found.low > _CLAIMED_SPREAD else OPEN
    return Finding(
        decided,
        f"a request of {_BATCHES[-1]} texts takes {100 * found.mean:+,.0f} % longer than a request of one",
        (100 * found.low, 100 * found.high),
        sample=f"{rounds} requests each of {', '.join(map(str, _BATCHES))} texts with {bench.model} on "
        f"{_device(bench)}",
        measured={f"p50_ms_of_{size}_texts": value for size, value in medians.items()},
        needs="" if decided != OPEN else "--repeats 1000",
    )


def gpu_memory(bench: Bench) -> Finding:
    """Most device memory that torch held while passages were encoded."""
    if not (bench.is_subject and _on_gpu(bench)):
        return Finding(
            OPEN,
            why=f"14.2 GB of GPU memory are claimed for {SUBJECT}; here is {bench.model} on {_device(bench)}",
            needs=f"--embedder {SUBJECT_SPEC}",
        )
    import torch

    torch.cuda.reset_peak_memory_stats()
    bench.embedder.encode(workload_texts("passages")[: bench.most])
    peak, now = torch.cuda.max_memory_allocated() / 1e9, torch.cuda.memory_allocated() / 1e9
    return Finding(
        HOLDS if abs(peak - _CLAIMED_GB) <= _MEMORY_SHARE * _CLAIMED_GB else FAILS,
        f"{peak:.1f} GB at most, {now:.1f} GB of it weights and what stays",
        sample=f"{min(bench.most, 3072):,} passages on {_device(bench)}",
        measured={"peak_gb": peak, "held_gb": now},
    )


def _on_gpu(bench: Bench) -> bool:
    return str(getattr(bench.embedder, "device", "cpu")).startswith("cuda")


def _device(bench: Bench) -> str:
    if not _on_gpu(bench):
        return "a CPU"
    import torch

    return torch.cuda.get_device_name()


CLAIMS = (
    Claim(
        "dimension-latency",
        "Latency differs by less than 3 ms between dimensions.",
        "holds if the interval of the mean paired difference, shortest to full, lies within ±3 ms",
        dimension_latency,
    ),
    Claim(
        "latency-figures",
        "A request takes 112 ms at 2560 dimensions and 89 ms at 32.",
        "holds if 23 ms lie in the interval of the paired difference",
        absolute_latency,
    ),
    Claim(
        "batch-spread",
        "Latency varies by less than 15 % between small and large batches.",
        "holds if the interval of (64 texts / 1 text - 1) lies below 15 %",
        batch_spread,
    ),
    Claim(
        "gpu-memory",
        "The model takes 14.2 GB of GPU memory.",
        "holds if the most memory held is within 5 % of 14.2 GB",
        gpu_memory,
    ),
)
