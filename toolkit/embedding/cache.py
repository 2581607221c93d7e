"""Full-dimension vectors on disk, by embedding space and rendered text.

    <folder>/<space fingerprint>/space.json              what the fingerprint stands for
    <folder>/<space fingerprint>/<random>.safetensors    a shard: 16-byte text keys and their rows
    <folder>/<space fingerprint>/keys.index              where each key lies; made again from the shards

Shards are written once, under a temporary name that is then renamed, and never changed: a killed run
keeps every shard it finished, and processes that share a folder only ever add to it. Vectors of a
server are written only after it was asked whether it is still the model that it was. Each shard
carries checksums; a damaged one is reported (CacheWarning), removed and its texts are encoded again.
Knows nothing of models, roles or dimensions.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from toolkit.embedding.key_index import KEY_BYTES, KeyIndex
from toolkit.errors import CacheWarning, PlanError, ResultsError
from toolkit.files import cache_folder, write_atomically
from toolkit.space import EmbeddingSpace

_SHARD_BYTES = 64 * 2**20  # large enough that a million texts are few files, small enough to load whole
_FLUSH_SECONDS = 10.0  # what a kill -9 can cost at most
_STALE_TEMPORARY_SECONDS = 24 * 3600


def text_keys(texts: Sequence[str]) -> list[bytes]:
    """16 bytes of BLAKE2b per text; lone surrogates, which UTF-8 cannot hold, are kept distinct."""
    return [
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()
        for text in texts
    ]


class VectorCache:
    """A folder of vectors that outlive the process."""

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = Path(folder) if folder is not None else cache_folder()

    def for_space(
        self, space: EmbeddingSpace, *, confirm: Callable[[], None] | None = None, required: bool = False
    ) -> SpaceCache:
        """The part of the cache that belongs to one embedding space, as it is on disk now.

        confirm : asked before anything is written; raises an error of the toolkit where what was taken since it
            was asked last may not be of this space.
        required : whether the shards are what is wanted, and a disk that refuses one is a ResultsError.
        """
        return SpaceCache(self.folder / space.fingerprint, space, confirm, required=required)


class SpaceCache:
    """The cached vectors of one embedding space."""

    def __init__(
        self,
        folder: Path,
        space: EmbeddingSpace,
        confirm: Callable[[], None] | None = None,
        *,
        required: bool = False,
    ) -> None:
        self._folder = folder
        self._required = required
        self._dim = space.full_dim
        self._confirm = confirm
        self._pending: list[tuple[list[bytes], np.ndarray]] = []
        self._pending_bytes = 0
        self._last_flush = time.monotonic()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            manifest = folder / "space.json"
            if not manifest.exists():
                write_atomically(manifest, json.dumps(asdict(space), indent=2, ensure_ascii=False).encode())
        except OSError as error:
            raise PlanError(
                f"cache folder {folder.parent} cannot be written ({error.strerror}); "
                "choose another with the environment variable TOOLKIT_CACHE"
            ) from error
        for leftover in folder.glob("*.tmp"):
            if time.time() - leftover.stat().st_mtime > _STALE_TEMPORARY_SECONDS:
                leftover.unlink(missing_ok=True)
        self._index = KeyIndex(folder, lambda shard: self._open(shard, "keys"))

    def __contains__(self, key: bytes) -> bool:
        return bool(self._index.find([key])[0][0] >= 0)

    def __len__(self) -> int:
        return len(self._index)

    def missing(self, keys: Sequence[bytes]) -> list[int]:
        """Positions in `keys` that no shard names; reads no vector."""
        return np.flatnonzero(self._index.find(keys)[0] < 0).tolist() if keys else []

    def verify(self) -> None:
        """Read every shard whole, and remove those that are damaged (CacheWarning), so that `missing` tells all.

        The index of keys does not look into the shards it names; who finishes a folder for others must.
        """
        for shard in self._index.paths():
            if self._open(shard, "keys") is None or self._open(shard, "rows") is None:
                self._index.drop(shard)

    def read(self, keys: Sequence[bytes], out: np.ndarray, rows: Sequence[int] | np.ndarray) -> list[int]:
        """Copy the vectors of known `keys` into ``out[rows]``.

        Returns the positions in `keys` that could not be had: unknown, or in a shard found damaged now.
        """
        if not keys:
            return []
        rows = np.asarray(rows)
        shards, shard_rows = self._index.find(keys)
        lost = [np.flatnonzero(shards < 0)]
        for shard in np.unique(shards[shards >= 0]):
            positions = np.flatnonzero(shards == shard)
            vectors = self._verified_rows(
                self._index.path(int(shard)), shard_rows[positions], keys, positions
            )
            if vectors is None:
                lost.append(positions)
            else:
                out[rows[positions]] = vectors
        return np.sort(np.concatenate(lost)).tolist()

    def add(self, keys: list[bytes], vectors: np.ndarray) -> None:
        """Take finished vectors; they reach the disk by the shard, or after ten seconds."""
        self._pending.append((keys, vectors))
        self._pending_bytes += vectors.nbytes
        if self._pending_bytes >= _SHARD_BYTES or time.monotonic() - self._last_flush > _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what is pending as one shard; warns (CacheWarning) and goes on without if the disk refuses it.

        Raises what `confirm` raises, and then forgets what is pending.
        """
        self._last_flush = time.monotonic()
        if not self._pending:
            return
        import safetensors.numpy

        pending = self._pending
        self._pending, self._pending_bytes = [], 0
        if self._confirm is not None:
            self._confirm()
        keys = [key for block, _ in pending for key in block]
        vectors = np.concatenate([block for _, block in pending])
        packed_keys = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, KEY_BYTES)
        metadata = {"keys_blake2b": _checksum(packed_keys), "rows_blake2b": _checksum(vectors)}
        payload = safetensors.numpy.save({"keys": packed_keys, "rows": vectors}, metadata=metadata)
        shard = self._folder / f"{uuid.uuid4().hex}.safetensors"
        try:
            write_atomically(shard, payload)
        except OSError as error:
            if self._required:
                raise ResultsError(
                    f"{shard} cannot be written ({error.strerror}); free space or choose another folder, and run the "
                    "same command again: finished shards are kept"
                ) from None
            warnings.warn(
                f"{len(keys)} vectors could not be kept in the cache {self._folder.parent} ({error.strerror}); "
                "they are used now and computed again next time: free space, or set TOOLKIT_CACHE",
                CacheWarning,
                stacklevel=2,
            )
            return
        self._index.add(shard, packed_keys)

    def _verified_rows(
        self, shard: Path, wanted: np.ndarray, keys: Sequence[bytes], positions: np.ndarray
    ) -> np.ndarray | None:
        """Rows `wanted` of a shard whose keys there are those at `positions` of `keys`; None if it is damaged."""
        stored, rows = self._open(shard, "keys"), self._open(shard, "rows")
        if stored is None or rows is None:
            self._index.drop(shard)
            return None
        asked = np.frombuffer(b"".join(keys[i] for i in positions), dtype=np.uint8).reshape(-1, KEY_BYTES)
        # The index is a file of its own; a shard and it can disagree only if one of them was tampered with.
        if len(stored) != len(rows) or wanted.max() >= len(rows) or not (stored[wanted] == asked).all():
            self._index.drop(shard)
            return None
        return rows[wanted]

    def _open(self, shard: Path, name: str) -> np.ndarray | None:
        """One checked array of a shard; None, with a warning, if it cannot be had.

        Only a shard whose content is wrong is removed. One that the system cannot read now (a stale network
        handle, a permission) stays: others may read it, and so may this process later.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with shard.open("rb"):  # the system's own error; safetensors reports both kinds as its own
                pass
            with safe_open(shard, framework="np") as file:
                stored = file.get_tensor(name)
                expected = (file.metadata() or {}).get(f"{name}_blake2b")
        except FileNotFoundError:
            return None  # another process found it damaged first
        except OSError as error:
            warnings.warn(
                f"cache shard {shard} cannot be read ({error.strerror}); its texts are encoded again",
                CacheWarning,
                stacklevel=2,
            )
            return None
        except SafetensorError as error:
            self._discard(shard, str(error))
            return None
        width = KEY_BYTES if name == "keys" else self._dim
        if expected != _checksum(stored) or stored.ndim != 2 or stored.shape[1] != width:
            self._discard(shard, f"the checksum or shape of its {name} is wrong")
            return None
        return stored

    def _discard(self, shard: Path, reason: str) -> None:
        warnings.warn(
            f"cache shard {shard} is damaged ({reason}); removed, its texts are encoded again",
            CacheWarning,
            stacklevel=2,
        )
        shard.unlink(missing_ok=True)


def _checksum(array: np.ndarray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=16).hexdigest()
