"""How many threads a search may use, for the parts that have no library to ask.

Knows nothing of what runs in them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from toolkit.errors import PlanError
from toolkit.search.exact.compute import available_cores

_COUNT: ContextVar[int | None] = ContextVar("search threads", default=None)


def thread_count() -> int:
    """Threads that a search may use here; every usable core unless `limited` says otherwise."""
    return _COUNT.get() or available_cores()


@contextmanager
def limited(count: int) -> Iterator[None]:
    """Let searches use `count` threads within the block."""
    if count < 1:
        raise PlanError(f"threads {count} must be at least 1")
    token = _COUNT.set(count)
    try:
        yield
    finally:
        _COUNT.reset(token)
