"""Which model stands behind an address, told by its vectors: a server says its name, and never its weights.

    <cache folder>/servers/<address and name, hashed>/<id>.npy    vectors of the probe texts

A server restarted with other weights answers under the same address and name. So a few texts are asked for
whenever one is opened; vectors that agree with those of an earlier time give the identity of that time, others a
new one. Knows nothing of HTTP: rows in, a name out.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np

from toolkit.errors import ServerChangedError
from toolkit.files import cache_folder, write_atomically

# Of several lengths and scripts, so that another tokenizer, prompt or limit shows as other weights do.
PROBES = (
    "length probe",
    "The quick brown fox jumps over the lazy dog, and 13 wizards mix 0.5 l of oil with 7 % of vinegar.",
    "向量检索需要多少维度?把同一段文字再问一遍。",
    "def mean(values: list[float]) -> float:\n    return sum(values) / len(values)\n" * 4,
)
# Two passes of one 16-bit model, in batches of other shapes, agree to 0.9996 or better (docs/log.md); weights that
# were trained further, another quantization or another pooling do not reach this.
SAME_COSINE = 0.999


def agree(rows: np.ndarray, others: np.ndarray) -> bool:
    """Whether two sets of unit rows of the probes, (probes, full_dim) each, are of one model."""
    return rows.shape == others.shape and float(np.einsum("ij,ij->i", rows, others).min()) >= SAME_COSINE


def identify(address: str, model: str, rows: np.ndarray) -> str:
    """The id of the model that gave these unit rows for `PROBES`; a new one is remembered.

    Where the cache folder cannot be written the id is still that of the vectors, to the last bit.
    """
    name = hashlib.blake2b(f"{address}\n{model}".encode(), digest_size=12).hexdigest()
    folder = cache_folder() / "servers" / name
    for known in sorted(folder.glob("*.npy")):
        stored = _load(known)
        if stored is not None and agree(rows, stored):
            return known.stem
    fresh = hashlib.blake2b(np.ascontiguousarray(rows, dtype="<f4").tobytes(), digest_size=6).hexdigest()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / f"{fresh}.npy", _npy(rows))
    except OSError:
        pass  # only costs encoding again next time, if the server is not the same to the last bit
    return fresh


def require_same(address: str, rows: np.ndarray, now: np.ndarray) -> None:
    """Raise ServerChangedError if the server's probe vectors are no longer those it was opened with."""
    if not agree(rows, now):
        raise ServerChangedError(
            f"{address} answers with other vectors than when it was opened: its model was changed meanwhile; "
            "what came since it was asked last is not kept, so open it and run again"
        )


def _npy(rows: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, rows, allow_pickle=False)
    return buffer.getvalue()


def _load(path: Path) -> np.ndarray | None:
    try:
        stored = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None  # damaged: as if never seen
    return stored if stored.ndim == 2 and stored.dtype == np.float32 else None
