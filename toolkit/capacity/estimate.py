"""Encoding, indexing and serving a corpus of a size: each figure with its formula and the numbers in it.

Linear where the work is: documents are encoded, coded and stored one by one. What an index does is counted by the
rules that `scale-test` builds by. Knows no quality.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from toolkit.capacity.rates import EncodeRates, IndexRates
from toolkit.decide.cost import Prices, monthly_cost
from toolkit.decide.wording import number, usd_text
from toolkit.errors import PlanError
from toolkit.measure.storage import GB
from toolkit.search.faiss.curve import bytes_compared, compared, lists_of
from toolkit.search.faiss.scaled import scaled

# The searches that were measured; lists, probes, links and width grow from them by the rules of `scaled`.
MEASURED = {"Flat": ("Flat", {}), "IVF": ("IVF64", {"nprobe": 16}), "HNSW": ("HNSW32", {"efSearch": 64})}
PRECISIONS = ("float32", "float16", "int8")
_KMEANS_ROUNDS = 10  # of FAISS's coarse quantizer, over at most so many rows per list:
_KMEANS_ROWS_PER_LIST = 256
_ID_BYTES = 8
_KEY_BYTES = 16  # of a text, beside its row in a shard
_MONTH_HOURS = 730
_K = 10


@dataclass(frozen=True)
class Figure:
    """One result: its name, value and unit, how it reads, and the formula with its numbers."""

    name: str
    value: float
    unit: str
    reads: str
    formula: str


@dataclass(frozen=True)
class CapacityPlan:
    """What a corpus comes to.

    figures : by part (``encoding``, ``storage``, ``indexing``, ``serving``).
    """

    title: str
    index: str
    figures: Mapping[str, tuple[Figure, ...]]
    notes: tuple[str, ...]

    def value(self, part: str, name: str) -> float:
        """One figure, in its unit."""
        return next(figure.value for figure in self.figures[part] if figure.name == name)

    def __str__(self) -> str:
        lines = [self.title]
        for part, figures in self.figures.items():
            lines.append(part)
            for figure in figures:
                lines += [f"  {figure.name}: {figure.reads}", f"    = {figure.formula}"]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def estimate(
    documents: int,
    tokens: float,
    encode: EncodeRates,
    index: IndexRates,
    *,
    dim: int | None = None,
    precision: str = "float32",
    kind: str = "IVF",
    gpus: int = 1,
    cores: int = 32,
    query_tokens: float = 18,
    prices: Prices | None = None,
) -> CapacityPlan:
    """Time, money and storage for `documents` of `tokens` each.

    dim, precision, kind : of the index: a dimension up to the full one, a stored precision, Flat, IVF or HNSW.
    gpus : devices that encode, each its share. cores : that build the index. query_tokens : of one query.

    Raises PlanError naming what is out of range.
    """
    prices = prices or Prices()
    dim = encode.full_dim if dim is None else dim
    on_gpu = encode.device != "cpu"
    _check(documents, tokens, query_tokens, dim, precision, kind, gpus, cores, encode)
    name, arguments = scaled(*MEASURED[kind], measured=index.measured_documents, documents=documents)
    shown = " ".join([name, *(f"{key}={value}" for key, value in arguments.items())])
    devices = f"{gpus} x {encode.device}" if on_gpu else f"a CPU of {encode.cores} cores"
    hour_usd = prices.gpu_usd_per_hour if on_gpu else encode.cores * prices.vcpu_usd / _MONTH_HOURS
    per_hour = f"{hour_usd:.4g} USD/h"

    text_s = encode.seconds_per_text(tokens)
    encode_s = documents * text_s / gpus
    each = f"{number(tokens / text_s, 4)} tokens/s"
    encoding = (
        Figure(
            "time",
            encode_s,
            "s",
            duration_text(encode_s),
            f"{documents:,} documents x {tokens:g} tokens / ({each} x {gpus})",
        ),
        _usd("money", encode_s / 3600 * gpus * hour_usd, f"{encode_s / 3600:,.2f} h x {gpus} x {per_hour}"),
    )

    vector_bytes = documents * (4 * encode.full_dim + _KEY_BYTES)
    index_bytes, bytes_formula = _index_bytes(name, precision, dim, documents)
    storage = (
        Figure(
            "vectors",
            vector_bytes,
            "bytes",
            size_text(vector_bytes),
            f"{documents:,} x ({encode.full_dim} x 4 bytes + a key of {_KEY_BYTES})",
        ),
        Figure("index", index_bytes, "bytes", size_text(index_bytes), bytes_formula),
    )

    build_s, build_formula = _build(name, dim, documents, index, cores)
    core_usd = prices.vcpu_usd / _MONTH_HOURS
    indexing = (
        Figure("time", build_s, "s", duration_text(build_s), build_formula),
        _usd(
            "money",
            build_s / 3600 * cores * core_usd,
            f"{build_s / 3600:,.2f} h x {cores} cores x {core_usd:.4g} USD/h",
        ),
        Figure(
            "memory",
            index_bytes + _sample_rows(name, documents) * dim * 4,
            "bytes",
            size_text(index_bytes + _sample_rows(name, documents) * dim * 4),
            f"the index + {_sample_rows(name, documents):,} rows to train on x {dim} x 4 bytes",
        ),
    )

    looked_at = compared(name, arguments, documents=documents, k=_K)
    pace = index.search_numbers_s[kind][precision]
    query_s = looked_at * dim / pace
    cost = monthly_cost(index_bytes, index_bytes + vector_bytes, 1 / query_s, prices)
    queries_s = 1.0 / encode.seconds_per_text(query_tokens)
    engines = max(1, math.ceil(prices.peak_qps / queries_s))
    serving = (
        Figure(
            "search",
            query_s * 1e3,
            "ms",
            f"{number(query_s * 1e3)} ms on one core",
            f"{looked_at:,.0f} vectors compared x {dim} / ({pace:.3g} numbers/s)",
        ),
        _usd("index per month", cost.usd, cost.formula),
        _usd(
            "query encoding per month",
            engines * hour_usd * _MONTH_HOURS,
            f"{engines} x {per_hour} x {_MONTH_HOURS} h; {prices.peak_qps:g} queries/s of {queries_s:,.0f} that one "
            "does",
        ),
    )
    return CapacityPlan(
        f"{documents:,} documents of {tokens:g} tokens: {encode.model} ({encode.dtype}) on {devices}, {dim} "
        f"dimensions, {precision}, {shown}",
        shown,
        {"encoding": encoding, "storage": storage, "indexing": indexing, "serving": serving},
        tuple(_notes(encode, index, prices, tokens, query_tokens, gpus, documents, kind)),
    )


def _check(
    documents: int,
    tokens: float,
    query_tokens: float,
    dim: int,
    precision: str,
    kind: str,
    gpus: int,
    cores: int,
    encode: EncodeRates,
) -> None:
    if documents < 1:
        raise PlanError(f"documents {documents} must be at least 1")
    for name, value in (("tokens", tokens), ("query_tokens", query_tokens)):
        if not 1 <= value < math.inf:
            raise PlanError(f"{name}={value:g} must be a number of at least 1")
    for name, count in (("gpus", gpus), ("cores", cores)):
        if count < 1:
            raise PlanError(f"{name}={count} must be at least 1")
    if encode.device == "cpu" and gpus > 1:
        raise PlanError(f"gpus={gpus}, but the rates are those of a CPU; measure on a GPU, or leave gpus out")
    if not 1 <= dim <= encode.full_dim:
        raise PlanError(f"dim={dim} is outside the range of {encode.model}; choose 1..{encode.full_dim}")
    if precision not in PRECISIONS:
        raise PlanError(f"precision {precision!r} has no measured rates; choose {', '.join(PRECISIONS)}")
    if kind not in MEASURED:
        raise PlanError(f"index {kind!r} has no measured rates; choose {', '.join(MEASURED)}")


def _index_bytes(name: str, precision: str, dim: int, documents: int) -> tuple[float, str]:
    """Of FAISS's own format, header left out: codes; ids and centroids of lists; links of a graph."""
    code = bytes_compared(name, precision, dim)
    lists, links = lists_of(name), _links(name)
    if lists:
        centroids = lists * dim * 4
        return (
            documents * (code + _ID_BYTES) + centroids,
            f"{documents:,} x ({code:g} bytes of code + an id of {_ID_BYTES}) + {lists:,} centroids x {dim} x 4 bytes",
        )
    if links:
        # 2M links below and M on each level above, where one node in M is again; four bytes each, and the
        # node's own level and offset.
        graph = 8 * links + 4 * links / (links - 1) + 12
        return (
            documents * (code + graph),
            f"{documents:,} x ({code:g} bytes of code + {graph:.4g} of {links} links)",
        )
    return documents * code, f"{documents:,} x {code:g} bytes of code"


def _build(name: str, dim: int, documents: int, rates: IndexRates, cores: int) -> tuple[float, str]:
    code_s = documents * dim / rates.code_numbers_s / cores
    parts = f"{documents:,} x {dim} / ({rates.code_numbers_s:.3g} numbers/s x {cores} cores)"
    lists, links = lists_of(name), _links(name)
    if lists:
        seen = _KMEANS_ROUNDS * _sample_rows(name, documents) + documents
        list_s = 2.0 * dim * lists * seen / rates.kmeans_flop_s / cores
        more = (
            f"2 x {dim} x {lists:,} lists x ({_KMEANS_ROUNDS} rounds x {_sample_rows(name, documents):,} rows + "
            f"{documents:,}) / ({rates.kmeans_flop_s:.3g} operations/s x {cores})"
        )
        return code_s + list_s, f"{parts} + {more}"
    if links:
        graph_s = documents * math.log(documents) * dim / rates.graph_numbers_s / cores
        more = (
            f"{documents:,} x ln({documents:,}) x {dim} / ({rates.graph_numbers_s:.3g} numbers/s x {cores})"
        )
        return code_s + graph_s, f"{parts} + {more}"
    return code_s, parts


def _sample_rows(name: str, documents: int) -> int:
    return min(documents, _KMEANS_ROWS_PER_LIST * lists_of(name))


def _links(name: str) -> int:
    found = re.match(r"HNSW(\d+)", name)
    return int(found[1]) if found else 0


def _usd(name: str, value: float, formula: str) -> Figure:
    return Figure(name, value, "USD", usd_text(value), formula)


def _notes(
    encode: EncodeRates,
    index: IndexRates,
    prices: Prices,
    tokens: float,
    query_tokens: float,
    gpus: int,
    documents: int,
    kind: str,
) -> list[str]:
    lengths = ", ".join(f"{pace.tok_s:,.0f} tokens/s at {pace.tokens:,.0f} tokens" for pace in encode.paces)
    notes = [f"encoding measured: {lengths} ({encode.source})", f"index measured: {index.source}"]
    for what, length in (("documents", tokens), ("queries", query_tokens)):
        if not encode.covers(length):
            nearest = min(encode.paces, key=lambda pace: abs(pace.tokens - length)).tokens
            notes.append(
                f"{what} of {length:g} tokens are outside the measured lengths: the rate at {nearest:,.0f} is taken"
            )
    if gpus > 1:
        notes.append("each GPU encodes documents of its own; nothing is taken off for feeding several")
    if documents > index.measured_documents:
        notes.append(
            f"searches were timed at {index.measured_documents:,} documents, whose vectors a processor's cache holds "
            f"in part: expect slower ones; toolkit scale-test measures them at a size"
        )
    if kind != "Flat":
        notes.append("the build is on processors; FAISS finds lists by a graph or on a GPU sooner than that")
    notes.append(
        f"prices: {prices.gpu_usd_per_hour:g} USD per GPU and hour; USD per month: {prices.ram_usd_per_gb:g} per GB of "
        f"memory, {prices.disk_usd_per_gb:g} per GB of disk, {prices.vcpu_usd:g} per vCPU; {prices.source}"
    )
    return notes


def duration_text(seconds: float) -> str:
    """A duration from seconds to days."""
    for scale, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * scale:
            return f"{seconds / scale:,.1f} {unit}"
    return f"{number(seconds)} s"


def size_text(size: float) -> str:
    """Bytes in decimal units, as vendors count."""
    return f"{number(size / 1000 / GB)} TB" if size >= 1000 * GB else f"{number(size / GB)} GB"
