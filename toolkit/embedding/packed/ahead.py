"""Run an iterator in a thread, a few items ahead of whoever consumes it. Knows nothing of the items."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
_END = object()


def ahead(items: Iterable[Item], *, depth: int) -> Iterator[Item]:
    """Yield the same items, up to `depth` of them made in advance.

    An exception of the iterator is raised here, after the items before it. Leaving early waits for
    the item that is being made, and makes no other.
    """
    source = iter(items)
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="packed-ahead")
    try:
        waiting = deque(pool.submit(next, source, _END) for _ in range(depth))
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(pool.submit(next, source, _END))
            yield item
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
