"""What a setting costs at a corpus size: bytes, latency and money, from what was measured and stated prices.

Bytes are linear in the number of vectors and so exact. Latency is an extrapolation and says so. Knows
nothing of quality.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol

import numpy as np

from toolkit.decide.wording import number
from toolkit.errors import PlanError
from toolkit.files import parse_toml
from toolkit.measure.storage import GB

MIN_SIZES = 3  # corpus sizes below which no latency is extrapolated
# Two 512-bit registers per cycle at 3.2 GHz: no core of today reads vectors faster, whatever the cache.
MOST_BYTES_PER_S = 4e11
_NOISE = 0.05  # relative standard deviation that times have at least
_SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}


@dataclass(frozen=True)
class Prices:
    """Prices in USD, monthly unless they say otherwise, and the load to serve.

    ram_usd_per_gb, disk_usd_per_gb : a GB (1e9 bytes) held for a month.
    vcpu_usd : one virtual CPU for a month.
    peak_qps : queries per second at the busiest time.
    gpu_usd_per_hour : one GPU for an hour, of the kind that encodes.
    source : where the figures are from; printed with every cost.
    """

    ram_usd_per_gb: float = 2.2
    disk_usd_per_gb: float = 0.08
    vcpu_usd: float = 22.0
    peak_qps: float = 10.0
    gpu_usd_per_hour: float = 4.0
    source: str = "assumed round figures of cloud machines on demand; give your own prices"

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "source":
                if not isinstance(value, str):
                    raise PlanError(f"price source {value!r} must be a text")
            elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < np.inf:
                raise PlanError(f"price {field.name} = {value!r} must be a number of at least 0")


def read_prices(path: str | Path) -> Prices:
    """Read prices from a TOML file with the fields of `Prices`; raises PlanError naming file and key."""
    try:
        given = parse_toml(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanError(f"price file {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise PlanError(f"price file {path} is not valid TOML: {error}") from None
    allowed = [field.name for field in fields(Prices)]
    unknown = [key for key in given if key not in allowed]
    if unknown:
        raise PlanError(f"price file {path}: unknown key {unknown[0]!r}; allowed: {', '.join(allowed)}")
    if not given.keys() - {"source"}:
        wanted = ", ".join(name for name in allowed if name != "source")
        raise PlanError(f"price file {path} sets no price; it needs at least one of {wanted}")
    try:
        return Prices(**({"source": str(path)} | given))
    except PlanError as error:
        raise PlanError(f"price file {path}: {error}") from None


def parse_count(text: str) -> int:
    """``10M``, ``250k``, ``1.5B``, ``1e6`` or ``10_000_000`` as a whole number; raises PlanError."""
    match = re.fullmatch(r"([\d_,]+(?:\.\d+)?(?:e\d\d?)?)\s*([kmb]?)", text.strip().lower())
    digits = re.sub("[_,]", "", match[1]) if match else ""
    count = float(digits) * _SUFFIXES[match[2]] if digits[:1].isdigit() else float("nan")
    if not count >= 1:
        raise PlanError(f"corpus size {text!r} is not a number of documents; write 250000, 250k, 10M or 1.5B")
    return round(count)


@dataclass(frozen=True)
class Footprint:
    """Bytes of an index as a line over the number of vectors: ``fixed + per_vector * n``.

    fixed : what is there whatever the corpus: codebooks, centroids, rotation, header.
    """

    fixed: float
    per_vector: float

    @classmethod
    def through(cls, vectors: Sequence[int], index_bytes: Sequence[int]) -> Footprint:
        """The line through the smallest and the largest measured index; all bytes per vector if there is one.

        Exact for scans and lists; for graphs up to the random number of upper-level links.
        """
        measured = sorted(zip(vectors, index_bytes, strict=True))
        (few, fewer_bytes), (many, bytes_of_many) = measured[0], measured[-1]
        if few == many:
            return cls(0.0, bytes_of_many / many)
        per_vector = (bytes_of_many - fewer_bytes) / (many - few)
        return cls(bytes_of_many - per_vector * many, per_vector)

    def bytes_at(self, vectors: int) -> float:
        """Bytes with that many vectors, all arguments of the index unchanged."""
        return self.fixed + self.per_vector * vectors


class Work(Protocol):
    """What a search does at a corpus size, as whoever knows the index counts it.

    bytes_each : bytes that one comparison reads.
    """

    bytes_each: float

    def compared(self, documents: int) -> float:
        """Vectors that one search compares with its query."""


@dataclass(frozen=True)
class Extrapolation:
    """Time as a function of corpus size: ``base + slope * (vectors compared)``.

    sizes : the corpus sizes it is from.
    fitted : whether the times grew enough to tell the two parts apart. If not, all of the largest size's
        time is taken to grow with the vectors compared, which is the most it can come to.
    worst_error : largest relative miss among the sizes.
    """

    work: Work
    base: float
    slope: float
    sizes: tuple[int, ...]
    fitted: bool
    worst_error: float

    def at(self, documents: int, *, work: Work | None = None) -> float:
        """The time at a corpus size, in the unit of what was fitted.

        work : of the setting one would run there, if that is another: a comparison takes what it took.
        """
        return self.base + self.slope * (work or self.work).compared(documents)


def extrapolate(
    sizes: Sequence[int], times: Sequence[float], *, work: Work, per_s: float
) -> Extrapolation | None:
    """How a search's time grows with the corpus, from times at some sizes; None for times that are not > 0.

    A search takes a fixed part and a part for each vector it compares (`work`): all of a scan's, the probed
    lists' share of an inverted file's, a graph's logarithm. Least relative squares with neither part below
    zero, and with no vector cheaper than a core can read it, so that noise among small sizes cannot promise
    that a larger corpus costs nothing. Where the sizes do not tell the parts apart (fewer than three, or
    growth within the noise of the times), see `Extrapolation.fitted`.

    per_s : units of `times` in a second: 1,000 for ms.
    """
    from scipy.optimize import nnls

    documents, measured = np.asarray(sizes, dtype=np.float64), np.asarray(times, dtype=np.float64)
    if not (measured > 0).all():
        return None
    known = tuple(sorted({int(n) for n in sizes}))
    compared = np.array([work.compared(int(n)) for n in documents])
    least = per_s * work.bytes_each / MOST_BYTES_PER_S
    design = np.column_stack([np.ones_like(compared), compared / compared.max()]) / measured[:, None]
    beyond_least = np.maximum(measured - least * compared, 0.0) / measured
    (base, share), _ = nnls(design, beyond_least)
    slope = share / compared.max() + least
    if not _grows(design, known):
        largest = compared == compared.max()
        base, slope = 0.0, max(float(measured[largest].max() / compared.max()), least)
        fitted = False
    else:
        fitted = True
    worst = float(np.abs((base + slope * compared) / measured - 1.0).max())
    return Extrapolation(work, float(base), float(slope), known, fitted, worst)


def _grows(design: np.ndarray, sizes: Sequence[int]) -> bool:
    """Whether an unbounded fit has a slope that is known to a fifth, of times that are off by 5 % at least.

    Three points scatter about their line as little as they like: their own spread alone says too little.
    """
    if len(sizes) < MIN_SIZES:
        return False
    parts, *_ = np.linalg.lstsq(design, np.ones(len(design)))
    spread = np.sum((design @ parts - 1.0) ** 2) / (len(design) - design.shape[1])
    error = np.sqrt(max(spread, _NOISE**2) * np.linalg.pinv(design.T @ design)[1, 1])
    return bool(parts[1] > 5.0 * error)


@dataclass(frozen=True)
class MonthlyCost:
    """What is paid for a month, by part. vcpus is None where the time at that corpus size is not known."""

    memory_gb: float
    disk_gb: float
    vcpus: float | None
    prices: Prices

    @property
    def usd(self) -> float:
        """Sum of the parts."""
        return (
            self.memory_gb * self.prices.ram_usd_per_gb
            + self.disk_gb * self.prices.disk_usd_per_gb
            + (self.vcpus or 0.0) * self.prices.vcpu_usd
        )

    @property
    def formula(self) -> str:
        """The sum with its figures."""
        parts = [f"{number(self.memory_gb, 4)} GB memory x {self.prices.ram_usd_per_gb:g}"]
        if self.disk_gb:
            parts.append(f"{number(self.disk_gb, 4)} GB disk x {self.prices.disk_usd_per_gb:g}")
        if self.vcpus is not None:
            parts.append(f"{number(self.vcpus)} vCPU x {self.prices.vcpu_usd:g}")
        return " + ".join(parts)


def monthly_cost(memory_bytes: float, disk_bytes: float, qps: float | None, prices: Prices) -> MonthlyCost:
    """Cost of keeping bytes and serving the load; `qps` of one thread, None leaves computing out."""
    vcpus = None if qps is None else prices.peak_qps / qps
    return MonthlyCost(memory_bytes / GB, disk_bytes / GB, vcpus, prices)
