"""How fast an embedder is on this machine: throughput, share of the chip, memory, single-query latency.

Measures any embedder from finished strings to rows on the host, tokenizing included. One that counts its
tokens and its work (the packed engine) also gets tokens a second and MFU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from toolkit.embedding.protocol import Embedder
from toolkit.errors import DataError, PlanError
from toolkit.space import Role
from toolkit.vectors import truncate

if TYPE_CHECKING:
    import pandas as pd

# Each is one token in byte-pair vocabularies of English, at a text's start and after a space.
_WORDS = """
the of and to in is that for it as was with be by on not he his but at are this have from or had an they
which one you were all her she there would their we him been has when who will no more if out so up said
what its about than into them can only other time new some could these two may first then do any like my
now over such our man me even most made after also did many off before must well back through years much
where your way down should because long each just state those people too
""".split()  # noqa: SIM905 - a list would take a line for each word
_MATMUL_SIZE = {"cuda": 8192, "cpu": 2048}
_CEILING_TRIES, _CEILING_BURST, _CEILING_PAUSE_S = 6, 10, 0.2
_LATENCY_WARMUP = 5
_LATENCY_LEAST = 10
_PROBE_S, _PROBE_TEXTS = 1.0, 64


@dataclass(frozen=True)
class Lengths:
    """Log-normal token counts of a built-in workload, the end token included."""

    texts: int
    median: int
    sigma: float
    longest: int

    def draw(self, *, seed: int = 0) -> np.ndarray:
        """(texts,) token counts."""
        normal = np.random.default_rng(seed).standard_normal(self.texts)
        return np.clip(np.rint(self.median * np.exp(self.sigma * normal)), 2, self.longest).astype(np.int64)


WORKLOADS = {
    "passages": Lengths(3072, 110, 0.6, 512),
    "queries": Lengths(4096, 16, 0.5, 512),
    "long": Lengths(256, 900, 0.8, 8192),
}


@runtime_checkable
class CountsWork(Protocol):
    """An embedder that knows the tokens of texts, and the operations that a model's whole pass takes."""

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, as the model sees it."""
        ...

    def flops(self, lengths: Iterable[int]) -> float:
        """Floating-point operations for texts of these token counts."""
        ...


@dataclass(frozen=True)
class SpeedPlan:
    """What to measure.

    dims : dimensions at which single queries are timed.
    repeats : timed passes over the workload, after one that warms up.
    latency_queries : single queries timed at each dimension.
    ceiling_tflops : what the device's matrix products reach; None measures it.
    budget_s : about how long the timed passes may take together off CUDA, and the single queries once more:
        a workload that would take longer is cut to its first texts. None measures all of it.
    """

    dims: tuple[int, ...] = ()
    repeats: int = 3
    latency_queries: int = 100
    ceiling_tflops: float | None = None
    budget_s: float | None = None

    def __post_init__(self) -> None:
        if self.repeats < 1 or self.latency_queries < 1:
            raise PlanError(
                f"repeats {self.repeats} and latency queries {self.latency_queries} must be at least 1"
            )
        if self.budget_s is not None and self.budget_s <= 0:
            raise PlanError(f"budget {self.budget_s} s must be above 0; None measures the whole workload")


@dataclass(frozen=True)
class Estimate:
    """What a measurement will take, told before it begins.

    whole_s : the whole workload, all timed passes; measured_s : the part that will be measured.
    texts, of_texts : how many of the workload's texts that part has.
    """

    whole_s: float
    measured_s: float
    texts: int
    of_texts: int

    def __str__(self) -> str:
        """One line for the command line."""
        if self.texts == self.of_texts:
            return f"about {self.whole_s:,.0f} s for {self.of_texts:,} texts"
        return (
            f"about {self.measured_s:,.0f} s for {self.texts:,} of the workload's {self.of_texts:,} texts; "
            f"all of them would take about {self.whole_s:,.0f} s"
        )


@dataclass(frozen=True, eq=False)
class EncodeSpeed:
    """Every sample of one embedder on one workload.

    texts, of_texts : how many texts were measured, of how many in the workload.
    seconds : one entry for each timed pass over the texts.
    tokens, flops, ceiling_tflops : None where the embedder does not count its work.
    peak_memory_bytes : most device memory that torch held, weights included; None off CUDA.
    latency_ms : {dimension: samples} of one query, from string to cut and normalized vector.
    """

    embedder: str
    engine: str
    dtype: str
    device: str
    workload: str
    texts: int
    of_texts: int
    seconds: tuple[float, ...]
    first_result_s: float
    tokens: int | None = None
    flops: float | None = None
    ceiling_tflops: float | None = None
    peak_memory_bytes: int | None = None
    latency_ms: dict[int, tuple[float, ...]] = field(default_factory=dict)

    def __str__(self) -> str:
        """A few lines for the command line."""
        lines = [
            f"{self.embedder} ({self.engine}, {self.dtype}) on {self.device}",
            f"{self.workload}: {self._measured()}, {self.texts_s:,.0f} texts/s",
            f"first result after {self.first_result_s:.2f} s",
        ]
        if self.tokens is not None:
            ceiling = f"{self.ceiling_tflops:,.1f} TFLOP/s"
            lines.append(f"{self.tok_s:,.0f} tokens/s, MFU {self.mfu:.3f} of {ceiling}")
        if self.peak_memory_bytes is not None:
            lines.append(f"peak device memory {self.peak_memory_bytes / 2**30:.2f} GiB")
        for dim, samples in self.latency_ms.items():
            p50, p95, p99 = np.percentile(samples, [50, 95, 99])
            lines.append(f"dimension {dim}: p50 {p50:.3f} ms, p95 {p95:.3f} ms, p99 {p99:.3f} ms, one query")
        if len(self.latency_ms) > 1:
            lines.append(f"the dimension moves the median by {self.dimension_effect_ms:.3f} ms")
        return "\n".join(lines)

    def _measured(self) -> str:
        part = "" if self.texts == self.of_texts else f" of {self.of_texts:,}"
        return f"{self.texts:,}{part} texts"

    @property
    def median_s(self) -> float:
        """Median time of a pass."""
        return float(np.median(self.seconds))

    @property
    def texts_s(self) -> float:
        """Texts a second."""
        return self.texts / self.median_s

    @property
    def tok_s(self) -> float:
        """Tokens a second; NaN where tokens are not counted."""
        return math.nan if self.tokens is None else self.tokens / self.median_s

    @property
    def mfu(self) -> float:
        """Share of the measured matmul ceiling (model FLOP utilisation); NaN where work is not counted."""
        if self.flops is None or self.ceiling_tflops is None:
            return math.nan
        return self.flops / self.median_s / (self.ceiling_tflops * 1e12)

    @property
    def dimension_effect_ms(self) -> float:
        """Largest difference between two dimensions' median latencies: what the dimension costs."""
        medians = [float(np.median(samples)) for samples in self.latency_ms.values()]
        return max(medians) - min(medians) if medians else math.nan

    @property
    def tokens_per_text(self) -> float:
        """Mean tokens of a text, counted or as the built-in workload was drawn; NaN for others."""
        if self.tokens is not None:
            return self.tokens / self.texts
        drawn = WORKLOADS.get(self.workload)
        return math.nan if drawn is None else float(drawn.draw()[: self.texts].mean())

    def as_dict(self) -> dict[str, object]:
        """What rates are taken from, for JSON: what is not known is None."""
        from toolkit.search.exact.compute import available_cores

        rates = {"tokens_per_text": self.tokens_per_text, "tok_s": self.tok_s, "mfu": self.mfu}
        return {
            "embedder": self.embedder,
            "engine": self.engine,
            "dtype": self.dtype,
            "device": self.device,
            "cores": available_cores(),
            "workload": self.workload,
            "texts": self.texts,
            "texts_s": self.texts_s,
            **{name: None if math.isnan(value) else value for name, value in rates.items()},
            "seconds": list(self.seconds),
        }

    def frame(self) -> pd.DataFrame:
        """One row per dimension (one row in all if no latency was measured)."""
        import pandas as pd

        whole = {
            "embedder": self.embedder,
            "engine": self.engine,
            "dtype": self.dtype,
            "device": self.device,
            "workload": self.workload,
            "texts": self.texts,
            "of_texts": self.of_texts,
            "tok_s": self.tok_s,
            "texts_s": self.texts_s,
            "mfu": self.mfu,
            "ceiling_tflops": math.nan if self.ceiling_tflops is None else self.ceiling_tflops,
            "peak_memory_gb": math.nan if self.peak_memory_bytes is None else self.peak_memory_bytes / 1e9,
            "first_result_s": self.first_result_s,
        }
        percentiles = {"p50_ms": 50, "p95_ms": 95, "p99_ms": 99}
        rows = [
            whole
            | {"dim": dim}
            | {name: float(np.percentile(samples, percent)) for name, percent in percentiles.items()}
            for dim, samples in self.latency_ms.items()
        ]
        return pd.DataFrame(rows or [whole])


def workload_texts(workload: str | Path) -> list[str]:
    """The texts of a built-in workload (``passages``, ``queries``, ``long``), or the lines of a file.

    Raises DataError for a file without text, PlanError for what is neither.
    """
    if str(workload) in WORKLOADS:
        rng = np.random.default_rng(0)
        words = np.array(_WORDS)
        return [" ".join(rng.choice(words, count - 1)) for count in WORKLOADS[str(workload)].draw()]
    path = Path(workload)
    if not path.is_file():
        raise PlanError(
            f"workload {str(workload)!r} is no file; choose {', '.join(WORKLOADS)} or a text file"
        )
    texts = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not texts:
        raise DataError(f"{path} holds no text; a workload file has one text a line")
    return texts


def measure_encode(
    embedder: Embedder,
    workload: str | Path,
    *,
    plan: SpeedPlan | None = None,
    announce: Callable[[Estimate], None] | None = None,
) -> EncodeSpeed:
    """Time an embedder over a workload and on single queries.

    announce : called with what it will take, before the timed passes, where the plan has a budget.

    Raises DimensionError for a dimension that the embedder does not have.
    """
    plan = plan or SpeedPlan()
    space = embedder.space
    dims = [space.check_dim(dim) for dim in plan.dims] or [space.full_dim]
    texts = workload_texts(workload)
    device = str(getattr(embedder, "device", "cpu"))
    begin = time.perf_counter()
    embedder.encode(texts[:1])
    first_result_s = time.perf_counter() - begin
    of_texts, latency_queries = len(texts), plan.latency_queries
    if plan.budget_s is not None and not device.startswith("cuda"):
        estimate = estimate_encode(embedder, texts, passes=plan.repeats + 1, budget_s=plan.budget_s)
        texts = texts[: estimate.texts]
        latency_queries = _affordable_queries(embedder, plan, dims=len(dims))
        if announce is not None:
            announce(estimate)
    tokens = flops = ceiling = None
    if isinstance(embedder, CountsWork):
        lengths = embedder.token_counts(texts)
        tokens, flops = sum(lengths), embedder.flops(lengths)
        ceiling = plan.ceiling_tflops or matmul_ceiling(device)
    _forget_peak(device)
    seconds = []
    for _ in range(plan.repeats + 1):
        begin = time.perf_counter()
        _drain(embedder, texts)
        seconds.append(time.perf_counter() - begin)
    return EncodeSpeed(
        embedder=space.model,
        engine=space.engine,
        dtype=space.dtype,
        device=_device_name(device),
        workload=str(workload),
        texts=len(texts),
        of_texts=of_texts,
        seconds=tuple(seconds[1:]),
        first_result_s=first_result_s,
        tokens=tokens,
        flops=flops,
        ceiling_tflops=ceiling,
        peak_memory_bytes=_peak(device),
        latency_ms=measure_latency(embedder, dims, count=latency_queries),
    )


def estimate_encode(embedder: Embedder, texts: Sequence[str], *, passes: int, budget_s: float) -> Estimate:
    """How long `passes` over the texts take, and how many of them fit the budget.

    Encodes more and more of the texts until that takes a second; the rest is taken to cost the same by
    character. Small batches are slower, so the estimate is rather too long than too short.
    """
    count, seconds = 1, 0.0
    while True:
        begin = time.perf_counter()
        embedder.encode(texts[:count])
        seconds = time.perf_counter() - begin
        if seconds >= _PROBE_S or count >= min(_PROBE_TEXTS, len(texts)):
            break
        count = min(2 * count, len(texts))
    characters = np.cumsum([len(text) for text in texts])
    pace = passes * seconds / characters[min(count, len(texts)) - 1]
    fitting = int(np.searchsorted(characters * pace, budget_s, side="right"))
    measured = min(max(fitting, min(count, len(texts))), len(texts))
    return Estimate(
        whole_s=float(characters[-1] * pace),
        measured_s=float(characters[measured - 1] * pace),
        texts=measured,
        of_texts=len(texts),
    )


def _affordable_queries(embedder: Embedder, plan: SpeedPlan, *, dims: int) -> int:
    """Single queries to time at each of `dims` dimensions, within the plan's budget."""
    query = embedder.space.render(" ".join(_WORDS[: WORKLOADS["queries"].median - 1]), Role.QUERY)
    embedder.encode([query])
    begin = time.perf_counter()
    embedder.encode([query])
    fitting = int(plan.budget_s / max(time.perf_counter() - begin, 1e-6) / dims) - _LATENCY_WARMUP
    return min(plan.latency_queries, max(fitting, _LATENCY_LEAST))


def measure_latency(embedder: Embedder, dims: Sequence[int], *, count: int) -> dict[int, tuple[float, ...]]:
    """Milliseconds from one query's string to its vector, `count` samples for each of `dims`, interleaved.

    Every sample is another text of the queries workload's median length under the model's default
    instruction, so that no cache of texts can help.
    """
    rng = np.random.default_rng(1)
    render = embedder.space.renderer(Role.QUERY)
    words = WORKLOADS["queries"].median - 1
    samples: dict[int, list[float]] = {dim: [] for dim in dims}
    for turn in range(-_LATENCY_WARMUP, count):
        for dim in rng.permutation(list(dims)).tolist():
            query = render(" ".join(rng.choice(_WORDS, words)))
            begin = time.perf_counter()
            truncate(embedder.encode([query]), dim)
            if turn >= 0:
                samples[dim].append((time.perf_counter() - begin) * 1e3)
    return {dim: tuple(taken) for dim, taken in samples.items()}


def matmul_ceiling(device: str) -> float:
    """TFLOP/s of a large square product, bfloat16 on CUDA and float32 on CPU: the best of many tries.

    Short bursts on random numbers: long ones are slowed by the power limit, zeros flatter.
    """
    import torch

    on_cuda = device.startswith("cuda")
    size = _MATMUL_SIZE["cuda" if on_cuda else "cpu"]
    dtype = torch.bfloat16 if on_cuda else torch.float32
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best = 0.0
    for _ in range(_CEILING_TRIES):
        if on_cuda:
            torch.cuda.synchronize(device)
        begin = time.perf_counter()
        for _ in range(_CEILING_BURST):
            left @ right
        if on_cuda:
            torch.cuda.synchronize(device)
        seconds = (time.perf_counter() - begin) / _CEILING_BURST
        best = max(best, 2 * size**3 / seconds / 1e12)
        time.sleep(_CEILING_PAUSE_S)
    return best


def _drain(embedder: Embedder, texts: Sequence[str]) -> None:
    for _ in embedder.stream(texts):
        pass


def _forget_peak(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: str) -> int | None:
    if not device.startswith("cuda"):
        return None
    import torch

    return torch.cuda.max_memory_allocated(device)


def _device_name(device: str) -> str:
    if not device.startswith("cuda"):
        return device
    import torch

    return torch.cuda.get_device_name(device)
