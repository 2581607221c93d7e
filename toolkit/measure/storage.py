"""Bytes of stored vectors, and what they come to at another corpus size. Knows no index library."""

from __future__ import annotations

from toolkit.errors import DataError

GB = 1e9  # bytes, decimal as vendors count; a GiB is 2**30


def bytes_per_vector(index_bytes: int, vectors: int) -> float:
    """Serialized index bytes for each stored vector, fixed parts included."""
    if vectors < 1:
        raise DataError(f"{index_bytes} bytes for {vectors} vectors: an index holds at least one")
    return index_bytes / vectors


def gb_per_million(index_bytes: int, vectors: int) -> float:
    """GB (1e9 bytes) of a million vectors, at the bytes each vector takes in this index."""
    return bytes_per_vector(index_bytes, vectors) * 1e6 / GB
