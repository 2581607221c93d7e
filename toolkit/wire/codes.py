"""Unit vectors as fewer bits: the only place where vectors of an answer are quantized, and read again.

The 8- and 4-bit codes are those of FAISS's scalar quantizer with the same ranges, ``SQ8`` and ``SQ4``; the bits are
those of its binary indexes: so what a sweep measured for a precision holds for what a server sends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toolkit.errors import PlanError

RANGED = ("int8", "uint8", "uint4")  # types that need a calibration


@dataclass(frozen=True, eq=False)
class Ranges:
    """The smallest and the largest value of each number, as calibration texts have them.

    low, high : (dim,) float32.
    """

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> Ranges:
        """Those of (n, dim) rows, as FAISS trains a scalar quantizer by default."""
        return cls(rows.min(axis=0), rows.max(axis=0))


def encode(rows: np.ndarray, kind: str, ranges: Ranges | None = None) -> np.ndarray:
    """(n, dim) float32 unit rows as (n, width) numbers of a type.

    kind : ``float``, ``float16``; ``uint8`` and ``int8`` (uint8 less 128); ``uint4``, two numbers a byte, the
        first in the low half; ``ubinary``, eight signs a byte, the first in the highest bit, and ``binary``
        (ubinary less 128).
    ranges : for int8, uint8 and uint4; what lies outside becomes the nearest code.
    """
    if kind == "float":
        return rows
    if kind == "float16":
        return rows.astype(np.float16)
    if kind in ("binary", "ubinary"):
        bits = np.packbits(rows > 0, axis=1)
        return bits if kind == "ubinary" else _signed(bits)
    if kind not in RANGED or ranges is None:
        raise PlanError(f"vectors of type {kind!r} need ranges; give those of a calibration")
    if kind == "uint4":
        levels = _levels(rows, ranges, 15)
        if levels.shape[1] % 2:
            levels = np.pad(levels, ((0, 0), (0, 1)))
        return levels[:, ::2] | levels[:, 1::2] << 4
    codes = _levels(rows, ranges, 255)
    return codes if kind == "uint8" else _signed(codes)


def decode(codes: np.ndarray, kind: str, ranges: Ranges | None = None, *, dim: int) -> np.ndarray:
    """The (n, dim) float32 rows that the numbers stand for; not of norm 1. Bits give -1 and 1."""
    if kind in ("float", "float16"):
        return codes.astype(np.float32)
    if kind in ("binary", "ubinary"):
        bits = _unsigned(codes) if kind == "binary" else codes
        return np.unpackbits(bits, axis=1, count=dim) * np.float32(2) - np.float32(1)
    if kind not in RANGED or ranges is None:
        raise PlanError(f"vectors of type {kind!r} need ranges; give those of the calibration they name")
    most = 15 if kind == "uint4" else 255
    if kind == "uint4":
        levels = np.stack([codes & 15, codes >> 4], axis=2).reshape(len(codes), -1)[:, :dim]
    else:
        levels = _unsigned(codes) if kind == "int8" else codes
    shares = (levels.astype(np.float32) + np.float32(0.5)) / np.float32(most)
    return ranges.low + shares * (ranges.high - ranges.low)


def _levels(rows: np.ndarray, ranges: Ranges, most: int) -> np.ndarray:
    width = ranges.high - ranges.low
    shares = np.divide(rows - ranges.low, width, out=np.zeros_like(rows), where=width != 0)
    return (np.clip(shares, 0.0, 1.0) * np.float32(most)).astype(np.uint8)


def _signed(codes: np.ndarray) -> np.ndarray:
    return (codes ^ np.uint8(128)).view(np.int8)


def _unsigned(codes: np.ndarray) -> np.ndarray:
    return codes.view(np.uint8) ^ np.uint8(128)
