"""FAISS's inverted lists in a file instead of memory: filled part by part, merged once, saved beside the index.

A search reads the lists it probes; the page cache keeps those that are read often. Knows nothing of corpora or files
of vectors.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from toolkit.errors import PlanError, ResultsError
from toolkit.search.faiss.factory import inner_index, load_faiss

# The build argument that asks for it.
ON_DISK = "on_disk"
# Lists of so many bytes are gathered in memory before they are written.
_PART_BYTES = 1 << 30
_ID_BYTES = 8
_NAME = "lists"


def check_on_disk(made, factory: str) -> None:  # noqa: ANN001 - an empty index of FAISS
    """Raise PlanError for an index whose lists FAISS cannot keep in a file."""
    faiss = load_faiss()
    inner = inner_index(made)
    plain = isinstance(inner, faiss.IndexIVF) and not isinstance(inner, faiss.IndexIVFPQR)
    if not plain or not isinstance(faiss.downcast_InvertedLists(inner.invlists), faiss.ArrayInvertedLists):
        raise PlanError(
            f"FAISS cannot keep lists of {factory!r} on disk; leave {ON_DISK} out, or choose IVF<lists> with "
            "precision float32, float16, int8, pq or rabitq"
        )


class ListsFile:
    """The file that an index's lists are in; a temporary one, removed with this object, until it is saved."""

    def __init__(self, path: Path, lists) -> None:  # noqa: ANN001 - FAISS's object
        self.path = path
        self._lists = lists
        self._temporary: Callable[[], object] | None = None

    @classmethod
    def temporary(cls, folder: Path, lists) -> ListsFile:  # noqa: ANN001
        """Of lists in a folder that is removed when nobody needs it any more."""
        made = cls(folder / _NAME, lists)
        made._temporary = weakref.finalize(made, shutil.rmtree, folder, ignore_errors=True)
        return made

    @property
    def size_bytes(self) -> int:
        """Of the file."""
        return self.path.stat().st_size

    def named(self, name: str = _NAME) -> None:
        """What the index says its file is called; the folder is always its own."""
        self._lists.filename = name

    def save(self, path: Path) -> None:
        """Move the temporary file to `path`, or copy one that was saved before; raises OSError."""
        if self.path == path:
            return
        unfinished = path.with_name(f"{path.name}.unfinished")
        try:
            if self._temporary is None or not _moved(self.path, unfinished):
                shutil.copyfile(self.path, unfinished)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
        if self._temporary is not None:
            # FAISS has the file open: it stays readable where it is only without a name.
            self._temporary()
            self.path, self._temporary = path, None


def lists_path(path: Path) -> Path:
    """Where the lists of an index saved at `path` are."""
    return path.with_name(f"{path.name}.lists")


class OnDisk:
    """Fills an empty, trained IVF index whose lists end up in a file.

    The file and its parts are made in a folder of their own beneath the system's folder for temporary files
    (``TMPDIR``), which must be on a disk.
    """

    def __init__(self, made) -> None:  # noqa: ANN001
        self._made, self._inner = made, inner_index(made)
        self._folder = Path(tempfile.mkdtemp(prefix="toolkit-lists-"))
        # What is not finished leaves nothing.
        self._remove = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._parts: list[Path] = []
        self._rows = 0

    def add(self, rows: np.ndarray, lists: np.ndarray | None) -> None:
        """Add rows, numbered on from those before. lists : the list of each, (n,) int64; None finds it."""
        ids = np.arange(self._rows, self._rows + len(rows), dtype=np.int64)
        self._rows += len(rows)
        if lists is None:
            self._made.add_with_ids(rows, ids)
        else:
            swig_ptr = load_faiss().swig_ptr
            places = np.ascontiguousarray(lists)
            self._inner.add_core(len(rows), swig_ptr(rows), swig_ptr(ids), swig_ptr(places), None)
        if self._inner.ntotal * self._row_bytes >= _PART_BYTES:
            self._check_room(self._inner.ntotal)
            part = self._folder / f"part-{len(self._parts)}"
            load_faiss().write_index(self._inner, str(part))
            self._parts.append(part)
            self._made.reset()

    def finish(self) -> ListsFile:
        """Merge the parts into the file and let the index read it there; raises ResultsError without room for it."""
        faiss = load_faiss()
        self._check_room(self._rows)
        opened = [faiss.read_index(str(part), faiss.IO_FLAG_MMAP) for part in self._parts]
        held = faiss.InvertedListsPtrVector()
        for part in opened:
            held.push_back(faiss.extract_index_ivf(part).invlists)
        held.push_back(self._inner.invlists)
        file = self._folder / _NAME
        lists = faiss.OnDiskInvertedLists(self._inner.nlist, self._inner.code_size, str(file))
        with _silent():
            total = lists.merge_from_multiple(held.data(), held.size(), False)
        self._inner.replace_invlists(lists, True)
        lists.this.disown()
        self._inner.ntotal = self._made.ntotal = total
        del opened
        for part in self._parts:
            part.unlink()
        self._remove.detach()
        return ListsFile.temporary(self._folder, lists)

    @property
    def _row_bytes(self) -> int:
        return int(self._inner.code_size) + _ID_BYTES

    def _check_room(self, rows: int) -> None:
        # FAISS writes through a mapping: on a full disk that would kill the process.
        needed, free = rows * self._row_bytes, shutil.disk_usage(self._folder).free
        if needed > free:
            raise ResultsError(
                f"lists on disk take {needed:,} bytes and {self._folder.parent} has {free:,} free; free some room, or "
                "set TMPDIR to a folder on another disk"
            )


def lists_of_loaded(index, path: Path) -> ListsFile:  # noqa: ANN001
    """The file of an index that was read from `path`."""
    faiss = load_faiss()
    lists = faiss.downcast_InvertedLists(inner_index(index).invlists)
    return ListsFile(lists_path(path), lists)


@contextmanager
def _silent() -> Iterator[None]:
    """FAISS prints how long the file becomes, whoever reads this program's output."""
    sys.stdout.flush()
    output, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
        ctypes.CDLL(None).fflush(None)
    finally:
        os.dup2(output, 1)
        os.close(output)
        os.close(nowhere)


def _moved(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except OSError:
        return False
    return True
