"""Claims about time and memory, on the machine at hand."""

from __future__ import annotations

import time

import numpy as np

from toolkit.claims.bench import SUBJECT, SUBJECT_SPEC, Bench
from toolkit.claims.claim import FAILS, HOLDS, OPEN, Claim, Finding
from toolkit.claims.server import in_turns
from toolkit.experiment.encode_speed import measure_latency, workload_texts
from toolkit.measure.statistics import mean_interval

_CLAIMED_MS = 3.0
_CLAIMED_SPREAD = 0.15
_CLAIMED_GB = 14.2
_MEMORY_SHARE = 0.05  # of the figure, as close as a rounded one can be taken
_CLAIMED_FULL_MS, _CLAIMED_SHORT_MS = 112.0, 89.0
_BATCHES = (1, 8, 64)


def _subject_only(bench: Bench, *, gpu: bool = False) -> str:
    """Why a figure of what is at hand decides nothing; empty where it does."""
    is_subject = bench.is_subject if bench.server is None else bench.server_is_subject
    if not is_subject:
        return f"the claim is about {SUBJECT}; measured was {_measured_on(bench)}"
    if gpu and not _on_gpu(bench):
        return f"the claim is about a GPU; measured was {_measured_on(bench)}"
    return ""


def _measured_on(bench: Bench) -> str:
    place = f" on {_device(bench)}" if bench.server is None or bench.serves_embedder else ""
    return (bench.model if bench.server is None else bench.server_name) + place


def _by_dimension(bench: Bench, dims: list[int]) -> tuple[dict[int, np.ndarray], str]:
    """{dim: ms} of single queries, in turns, so that drift of the machine is in all; and what they are."""
    if bench.server is None:
        taken = measure_latency(bench.embedder, dims, count=bench.repeats)
        return {
            dim: np.array(one) for dim, one in taken.items()
        }, f"pairs of single queries, {_measured_on(bench)}"
    texts = [[text] for text in workload_texts("queries")]
    taken = in_turns(bench, {dim: (texts, dim) for dim in dims})
    return taken, f"rounds of requests of one client, {_measured_on(bench)}"


def dimension_latency(bench: Bench) -> Finding:
    """One query from string to vector, at the shortest and the full dimension."""
    short, full = bench.dims[0], bench.full_dim
    samples, what = _by_dimension(bench, [short, full])
    # One slow turn in a hundred moves no trimmed mean.
    differences = _without_extremes(samples[full] - samples[short])
    found = mean_interval(differences)
    other = _subject_only(bench)
    decided = HOLDS if max(abs(found.low), abs(found.high)) < _CLAIMED_MS else OPEN
    if min(abs(found.low), abs(found.high)) >= _CLAIMED_MS and found.low * found.high > 0:
        decided = FAILS
    return Finding(
        OPEN if other else decided,
        f"{found.mean:+.3f} ms from {short} to {full} dimensions",
        (found.low, found.high),
        sample=f"{len(differences)} {what}; medians {np.median(samples[short]):.2f} and "
        f"{np.median(samples[full]):.2f} ms",
        why=(other and f"{other}; ")
        + "the model's work does not depend on the dimension; 112 against 89 ms, claimed elsewhere in the same "
        "article, is a difference of 23 ms",
        measured={f"p50_ms_at_{dim}": float(np.median(taken)) for dim, taken in samples.items()},
        needs=f"--embedder {SUBJECT_SPEC}" if other else "" if decided != OPEN else "--repeats 1000",
    )


def _without_extremes(values: np.ndarray, share: float = 0.05) -> np.ndarray:
    if len(values) * share < 1:
        return values
    low, high = np.quantile(values, [share, 1 - share])
    return values[(values >= low) & (values <= high)]


def absolute_latency(bench: Bench) -> Finding:
    """What the article states in ms, for the model and a GPU."""
    samples, what = _by_dimension(bench, [32, bench.full_dim])
    short, full = samples[32], samples[bench.full_dim]
    found = mean_interval(_without_extremes(full - short))
    claimed = _CLAIMED_FULL_MS - _CLAIMED_SHORT_MS
    other = _subject_only(bench, gpu=True)
    return Finding(
        OPEN if other else HOLDS if found.low <= claimed <= found.high else FAILS,
        f"medians {np.median(short):.2f} ms at 32 and {np.median(full):.2f} ms at {bench.full_dim}",
        (found.low, found.high),
        sample=f"{len(full)} {what}; the interval is of the difference in ms",
        why=other,
        measured={"p50_ms_at_32": float(np.median(short)), "p50_ms_at_full": float(np.median(full))},
        needs=f"--embedder {SUBJECT_SPEC}" if other else "",
    )


def batch_spread(bench: Bench) -> Finding:
    """How much longer a request of many texts takes than one of a single text."""
    texts = workload_texts("queries")
    if bench.server is None:
        taken = _encoded_in_turns(bench, texts)
    else:
        kinds = {
            size: ([texts[i : i + size] for i in range(0, len(texts) - size + 1, size)], None)
            for size in _BATCHES
        }
        taken = in_turns(bench, kinds)
    medians = {size: float(np.median(one)) for size, one in taken.items()}
    found = mean_interval(taken[_BATCHES[-1]] / taken[_BATCHES[0]] - 1)
    other = _subject_only(bench)
    decided = HOLDS if found.high < _CLAIMED_SPREAD else FAILS if found.low > _CLAIMED_SPREAD else OPEN
    return Finding(
        OPEN if other else decided,
        f"a request of {_BATCHES[-1]} texts takes {100 * found.mean:+,.0f} % longer than a request of one",
        (100 * found.low, 100 * found.high),
        sample=f"{len(taken[1])} rounds of requests of {', '.join(map(str, _BATCHES))} texts, {_measured_on(bench)}; "
        "the interval is of that difference in %",
        why=other,
        measured={f"p50_ms_of_{size}_texts": value for size, value in medians.items()},
        needs=f"--embedder {SUBJECT_SPEC}" if other else "" if decided != OPEN else "--repeats 1000",
    )


def _encoded_in_turns(bench: Bench, texts: list[str]) -> dict[int, np.ndarray]:
    """{texts per call: ms of each round}, without a server."""
    taken: dict[int, list[float]] = {size: [] for size in _BATCHES}
    for turn in range(-1, max(5, bench.repeats // 10)):  # the first round warms up
        for size in _BATCHES:
            start = (turn + 1) * size % (len(texts) - size)
            begin = time.perf_counter()
            bench.embedder.encode(texts[start : start + size])
            if turn >= 0:
                taken[size].append((time.perf_counter() - begin) * 1e3)
    return {size: np.array(one) for size, one in taken.items()}


def gpu_memory(bench: Bench) -> Finding:
    """Most device memory that torch held while passages were encoded; without a GPU, what the process holds."""
    if not (bench.is_subject and _on_gpu(bench)):
        import psutil

        passages = workload_texts("passages")[: min(bench.most, 256)]
        bench.embedder.encode(passages)
        held = psutil.Process().memory_info().rss / 1e9
        return Finding(
            OPEN,
            f"{held:.1f} GB of main memory, the whole process",
            sample=f"{len(passages)} passages, {bench.model} on {_device(bench)}",
            why=f"the claim is about {SUBJECT} on a GPU",
            measured={"resident_gb": held},
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
        timed=True,
    ),
    Claim(
        "latency-figures",
        "A request takes 112 ms at 2560 dimensions and 89 ms at 32.",
        "holds if 23 ms lie in the interval of the paired difference",
        absolute_latency,
        timed=True,
    ),
    Claim(
        "batch-spread",
        "Latency varies by less than 15 % between small and large batches.",
        "holds if the interval of (64 texts / 1 text - 1) lies below 15 %",
        batch_spread,
        timed=True,
    ),
    Claim(
        "gpu-memory",
        "The model takes 14.2 GB of GPU memory.",
        "holds if the most memory held is within 5 % of 14.2 GB",
        gpu_memory,
    ),
)
