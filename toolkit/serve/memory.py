"""The C library's heap in a server's process: few arenas, and free pages given back. Knows no request and no engine.

glibc gives every thread that allocates an arena of its own, up to eight per core, and keeps what is freed there. One
large request on each thread then leaves its peak behind in each arena, so that a server grows for as long as its
threads have not all met their largest.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_M_ARENA_MAX = -8  # malloc.h
_ARENAS = 2
_TRIM_EVERY_S = 10.0


@contextmanager
def lean_heap(trim_every_s: float = _TRIM_EVERY_S) -> Iterator[None]:
    """While inside, hold this process's heap small. For a process that only serves; does nothing without glibc."""
    heap = ctypes.CDLL(None)
    if not hasattr(heap, "malloc_trim"):
        yield
        return
    if not _chosen_outside():
        heap.mallopt(_M_ARENA_MAX, _ARENAS)
    over = threading.Event()

    def trim() -> None:
        # ctypes lets go of the interpreter, and each arena is locked for as long as its own free pages take.
        while not over.wait(trim_every_s):
            heap.malloc_trim(0)

    trimming = threading.Thread(target=trim, name="trim-heap", daemon=True)
    trimming.start()
    try:
        yield
    finally:
        over.set()
        trimming.join()


def _chosen_outside() -> bool:
    """Whether whoever started the process has set the number of arenas."""
    return "MALLOC_ARENA_MAX" in os.environ or "glibc.malloc.arena_max" in os.environ.get(
        "GLIBC_TUNABLES", ""
    )
