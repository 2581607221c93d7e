"""Room for a few things that are expensive to build, given to the keys that come most often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class FrequencyCache(Generic[Key, Value]):
    """Keeps what was made for at most `room` keys.

    A key must come twice before anything is made for it, and where the room is taken, more than twice as
    often as the rarest key that is kept: keys that come about equally often would else push each other out
    at every turn.

    drop : called with a value before it is let go.
    """

    def __init__(self, room: int, *, drop: Callable[[Value], None]) -> None:
        self._room, self._drop = room, drop
        self._visits: Counter[Key] = Counter()
        self._kept: dict[Key, Value] = {}

    def get(self, key: Key, make: Callable[[], Value]) -> Value | None:
        """What is kept for `key`, made now if it has become frequent; None if it is not."""
        self._visits[key] += 1
        if key in self._kept:
            return self._kept[key]
        visits = self._visits[key]
        if visits == 1:
            return None
        if len(self._kept) == self._room:
            rarest = min(self._kept, key=self._visits.__getitem__)
            if visits <= 2 * self._visits[rarest]:
                return None
            self._drop(self._kept.pop(rarest))
        self._kept[key] = made = make()
        return made

    def any(self) -> Value | None:
        """Something that is kept, if there is anything."""
        return next(iter(self._kept.values()), None)

    def clear(self) -> None:
        """Let everything go; what came often stays known."""
        while self._kept:
            self._drop(self._kept.popitem()[1])
