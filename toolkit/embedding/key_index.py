"""Where the vector of each text lies: sorted text keys, looked up many at a time, mapped from one file.

    <space>/keys.index      a header, the shards' names, and three sorted columns: 24 bytes per vector

A dictionary of a million keys takes a second and 200 MB to build; sorted columns that stay on disk take
neither. Shards that appeared after the file was written are indexed in memory and written with the next one.
Knows nothing of texts or vectors: 16-byte keys in, (shard, row) out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toolkit.files import parse_json, write_atomically

KEY_BYTES = 16
FILE_NAME = "keys.index"
_MAGIC = b"toolkit keys 1\n\n"
_ROW_BITS = 40  # a shard's rows; what is left of 64 bits numbers the shards
_MOST_PARTS = 8  # sorted runs that a lookup goes through, before they are made one
# Vectors that are not in the file yet, and their share of those that are; fewer are read from their shards quickly.
_WORTH_WRITING, _WORTH_SHARE = 4_096, 8


@dataclass(frozen=True)
class _Run:
    """Keys in ascending order of their first half, and where each vector lies."""

    first: np.ndarray
    second: np.ndarray
    place: np.ndarray

    @classmethod
    def of(cls, keys: np.ndarray, shard: int, rows: np.ndarray) -> _Run:
        """A shard's keys, (n, 16) uint8."""
        halves = np.ascontiguousarray(keys).view("<u8")
        return cls(halves[:, 0], halves[:, 1], rows.astype("<u8") | np.uint64(shard << _ROW_BITS)).ordered()

    def ordered(self) -> _Run:
        order = np.argsort(self.first, kind="stable")
        return _Run(self.first[order], self.second[order], self.place[order])

    @classmethod
    def joined(cls, runs: Sequence[_Run]) -> _Run:
        """All keys of the runs; of a key that several have, the place in the last of them."""
        columns = zip(*((run.first, run.second, run.place) for run in runs), strict=True)
        whole = cls(*(np.concatenate(column) for column in columns)).ordered()
        same = (whole.first[1:] == whole.first[:-1]) & (whole.second[1:] == whole.second[:-1])
        kept = np.append(~same, True)
        return cls(whole.first[kept], whole.second[kept], whole.place[kept])

    def find(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Place of each key as int64; -1 for one that is not here."""
        found = np.full(len(first), -1, dtype=np.int64)
        at = np.searchsorted(self.first, first)
        open_ = np.arange(len(first))
        while open_.size:  # more than once only where two keys share their first half
            within = at[open_] < len(self.first)
            open_ = open_[within]
            same = self.first[at[open_]] == first[open_]
            open_ = open_[same]
            hit = self.second[at[open_]] == second[open_]
            found[open_[hit]] = self.place[at[open_[hit]]].astype(np.int64)
            open_ = open_[~hit]
            at[open_] += 1
        return found


class KeyIndex:
    """All keys of a folder of shards, as far as they are known to this process."""

    def __init__(self, folder: Path, read_keys: Callable[[Path], np.ndarray | None]) -> None:
        """Map the file that is there, and read the keys of shards that it does not name.

        read_keys : (n, 16) uint8 keys of a shard; None if it cannot be used.
        """
        self._folder = folder
        self._shards: list[str] = []
        self._numbers: dict[str, int] = {}
        self._runs: list[_Run] = []
        self._gone: set[int] = set()
        there = sorted(path.name for path in folder.glob("*.safetensors") if path.is_file())
        self._map_file()
        unwritten = 0
        for name in there:
            if name not in self._numbers and (keys := read_keys(folder / name)) is not None:
                self.add(folder / name, keys)
                unwritten += len(keys)
        self._gone |= {number for name, number in self._numbers.items() if name not in set(there)}
        written = sum(len(run.first) for run in self._runs) - unwritten
        if unwritten >= max(_WORTH_WRITING, written // _WORTH_SHARE):
            self._write_file()

    def __len__(self) -> int:
        if not self._runs:
            return 0
        return int((~self._is_gone(_Run.joined(self._runs).place)).sum())

    def find(self, keys: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """(shard number or -1, row) of each key, two int64 arrays."""
        halves = np.frombuffer(b"".join(keys), dtype="<u8").reshape(-1, 2)
        places = np.full(len(keys), -1, dtype=np.int64)
        for run in reversed(
            self._runs
        ):  # the youngest first: a text that was encoded again has its new place
            missing = np.flatnonzero(places < 0)
            if not missing.size:
                break
            found = run.find(halves[missing, 0], halves[missing, 1])
            found[(found >= 0) & self._is_gone(found)] = -1
            places[missing] = found
        shards = np.where(places < 0, -1, places >> _ROW_BITS)
        shards[shards >= len(self._shards)] = -1  # a file that was tampered with
        return shards, places & ((1 << _ROW_BITS) - 1)

    def path(self, shard: int) -> Path:
        """A shard's file."""
        return self._folder / self._shards[shard]

    def paths(self) -> list[Path]:
        """The files of all shards that are there."""
        return [self._folder / name for number, name in enumerate(self._shards) if number not in self._gone]

    def add(self, shard: Path, keys: np.ndarray) -> None:
        """Take up a new shard's (n, 16) uint8 keys."""
        number = len(self._shards)
        self._shards.append(shard.name)
        self._numbers[shard.name] = number
        self._runs.append(_Run.of(keys, number, np.arange(len(keys))))
        if len(self._runs) > _MOST_PARTS:
            # The mapped run stays as it is: joined with it, all of the file would be in memory.
            kept = 1 if isinstance(self._runs[0].first, np.memmap) else 0
            self._runs[kept:] = [_Run.joined(self._runs[kept:])]

    def drop(self, shard: Path) -> None:
        """Forget a shard that is gone or cannot be read."""
        self._gone.add(self._numbers[shard.name])

    def _is_gone(self, places: np.ndarray) -> np.ndarray:
        if not self._gone:
            return np.zeros(len(places), dtype=bool)
        return np.isin(places.astype(np.int64) >> _ROW_BITS, list(self._gone))

    def _map_file(self) -> None:
        path = self._folder / FILE_NAME
        try:
            with path.open("rb") as file:
                if file.read(len(_MAGIC)) != _MAGIC:
                    return
                about = parse_json(file.readline())
                start = file.tell()
            count, names = int(about["vectors"]), [str(name) for name in about["shards"]]
            if path.stat().st_size != start + 24 * count or not count:
                return
            columns = np.memmap(path, dtype="<u8", mode="r", offset=start, shape=(3, count))
        except (OSError, ValueError, KeyError, TypeError):
            return  # none, or not whole: it is made again from the shards
        self._shards = names
        self._numbers = {name: number for number, name in enumerate(names)}
        self._runs = [_Run(*columns)]

    def _write_file(self) -> None:
        whole = _Run.joined(self._runs)
        keep = ~self._is_gone(whole.place)
        columns = [column[keep] for column in (whole.first, whole.second, whole.place)]
        about = json.dumps({"vectors": int(keep.sum()), "shards": self._shards})
        # Padded so that the columns begin at a multiple of 8 bytes.
        line = about + " " * (-(len(_MAGIC) + len(about) + 1) % 8) + "\n"
        try:
            write_atomically(
                self._folder / FILE_NAME, _MAGIC + line.encode() + b"".join(c.tobytes() for c in columns)
            )
        except OSError:
            return  # a folder that cannot be written only costs reading the keys again
        self._runs = [_Run(*columns)]
