"""Run an iterator in a thread, a few items ahead of whoever consumes it. Knows nothing of the items."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
_END = object()


def ahead(items: Iterable[Item], *, depth: int) -> Iterator[Item]:
    """Yield the same items, up to `depth` of them made in advance.

    An exception of the iterator is raised here, after the items before it. Leaving early stops the
    thread before it makes another item.
    """
    ready: queue.Queue = queue.Queue(maxsize=depth)
    left = threading.Event()

    def offer(item: object) -> bool:
        while not left.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        failure: BaseException | None = None
        try:
            for item in items:
                if not offer((item, None)):
                    return
        except BaseException as error:  # noqa: BLE001 - raised again where the items are consumed
            failure = error
        offer((_END, failure))

    thread = threading.Thread(target=work, name="packed-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, failure = ready.get()
            if failure is not None:
                raise failure
            if item is _END:
                return
            yield item
    finally:
        left.set()
        thread.join()
