"""What FAISS's search arguments mean for work: an index's curve, and how much one search compares.

Knows factory strings only; FAISS need not be installed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from toolkit.search.backend import IndexSpec
from toolkit.search.faiss.factory import PQ_NUMBERS_PER_BYTE

_WIDTHS = (16, 32, 64, 128)
_PROBES = (1, 4, 16, 64)
# FAISS's defaults where an argument is not given.
DEFAULT_WIDTH, DEFAULT_PROBES = 16, 1
_BITS = {"float32": 32, "float16": 16, "bfloat16": 16, "int8": 8, "uint4": 4, "binary": 1, "rabitq": 1}


def curve_of(index: str) -> list[dict[str, int]]:
    """Search arguments from fast to accurate.

    Lists come first: in ``IVF256_HNSW32`` the graph only finds the lists, and `nprobe` decides what is read.
    """
    lists = lists_of(index)
    if lists:
        return [{"nprobe": probed} for probed in _PROBES if probed <= lists]
    if "HNSW" in index:
        return [{"efSearch": width} for width in _WIDTHS]
    return [{}]


def compared(index: str, search_args: Mapping[str, int], *, documents: int, k: int) -> float:
    """About how many vectors one search compares with the query.

    Lists: the centroids, then the share of the corpus in the lists probed. Graphs: a number of nodes that
    grows with the width and the logarithm of the corpus (Malkov & Yashunin 2018). Else: all.
    """
    lists = lists_of(index)
    if lists:
        probed = min(search_args.get("nprobe", DEFAULT_PROBES), lists)
        width = search_args.get("efSearch", DEFAULT_WIDTH)
        to_find_lists = _visited(lists, max(width, probed)) if "HNSW" in index else lists
        return to_find_lists + documents * probed / lists
    if "HNSW" in index:
        return _visited(documents, max(search_args.get("efSearch", DEFAULT_WIDTH), k))
    return float(documents)


def bytes_compared(index: str, precision: str, dim: int) -> float:
    """Bytes of one stored vector that a comparison reads; the least possible where the string hides it."""
    match = re.search(r"(?<!O)PQ(\d+)(?:x(\d+))?", index)
    if match:
        return int(match[1]) * int(match[2] or 8) / 8
    if precision in ("pq", "opq"):
        return dim / PQ_NUMBERS_PER_BYTE
    codes = {"SQfp16": 16, "SQbf16": 16, "SQ8": 8, "SQ6": 6, "SQ4": 4}
    bits = next((bits for code, bits in codes.items() if code in index), None)
    if bits is None:
        bits = 1 if index.startswith("B") or "RaBitQ" in index else _BITS[precision]
    return dim * bits / 8


def lists_of(index: str) -> int:
    """Lists of an IVF index; 0 for others."""
    match = re.search(r"IVF(\d+)", index)
    return int(match[1]) if match else 0


def _visited(documents: int, width: int) -> float:
    return float(min(documents, width * np.log(max(documents, 2))))


class Curve:
    """What backends that build FAISS's kinds of index have in common: how far to search, and what a search compares."""

    def searches(self, spec: IndexSpec) -> Sequence[Mapping[str, int]]:
        """From fast to accurate."""
        return curve_of(spec.index)

    def compared(
        self, spec: IndexSpec, search_args: Mapping[str, int], *, documents: int, k: int
    ) -> tuple[float, float]:
        """(vectors a search compares, bytes of each)."""
        count = compared(spec.index, search_args, documents=documents, k=k)
        return count, bytes_compared(spec.index, spec.precision, spec.dim)
