"""Texts to a folder of shards: what `pipeline` keeps in the cache beside a run, made for its own sake.

A stream of any length needs the memory of one window of texts and one shard. Texts that the folder already has are
not encoded again, whoever wrote them. Knows nothing of files of texts, and cuts nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from toolkit.embedding.cache import SpaceCache, VectorCache, text_keys
from toolkit.embedding.pipeline import check_block, windows
from toolkit.embedding.protocol import Embedder
from toolkit.errors import ToolkitError, VectorError
from toolkit.space import Instruction, Role


@dataclass(frozen=True)
class Filled:
    """What became of texts.

    texts : that came; encoded : of them, now; the others were there, or are equal to others.
    """

    texts: int = 0
    encoded: int = 0

    def __add__(self, other: Filled) -> Filled:
        return Filled(self.texts + other.texts, self.encoded + other.encoded)


class Filler:
    """Encodes into a folder of shards whatever it lacks.

    cache : whose folder it is; a shard that cannot be written raises ResultsError.
    """

    def __init__(
        self,
        embedder: Embedder,
        cache: VectorCache,
        *,
        role: Role = Role.DOCUMENT,
        instruction: str | Instruction | None = None,
    ) -> None:
        self._embedder = embedder
        # Objects of users that only have the protocol's methods cannot tell.
        self._check = getattr(embedder, "check_unchanged", None)
        self._render = embedder.space.renderer(role, instruction)
        self._unchecked = self._leaving = False
        self.shards: SpaceCache = cache.for_space(
            embedder.space, confirm=self._check_unchanged, required=True
        )

    def fill(self, texts: Iterable[str], *, progress: Callable[[int], object] | None = None) -> Filled:
        """Take all texts; when it returns, the vector of each is on disk.

        progress : called with the number of texts just dealt with.

        If the engine fails or the run is interrupted, what was encoded by then is on disk; a kill can cost the last
        ten seconds. Raises VectorError, ResultsError, and what the engine raises.
        """
        done = Filled()
        for window in windows(self._render(text) for text in texts):
            done += self._take(window, progress or _nothing)
        return done

    def _take(self, texts: list[str], progress: Callable[[int], object]) -> Filled:
        first: dict[bytes, int] = {}
        for position, key in enumerate(text_keys(texts)):
            first.setdefault(key, position)
        keys = list(first)
        missing = [keys[i] for i in self.shards.missing(keys)]
        progress(len(texts) - len(missing))
        made, whole = 0, False
        try:
            for places, block in self._embedder.stream([texts[first[key]] for key in missing]):
                check_block(self._embedder, places, block)
                self._unchecked = True
                self.shards.add([missing[i] for i in places], block)
                made += len(places)
                progress(len(places))
            whole = True
        finally:
            if not whole:
                # On the way out of a failure: what the engine still vouches for at once is kept.
                self._leaving = True
                with suppress(ToolkitError):
                    self.shards.flush()
        self.shards.flush()
        self._check_unchanged()
        if made != len(missing):
            raise VectorError(
                f"{self._embedder.space.engine} returned {made} vectors for {len(missing)} texts; it must return one "
                "for every text"
            )
        return Filled(len(texts), made)

    def _check_unchanged(self) -> None:
        if self._unchecked and self._check is not None:
            self._check(retry=not self._leaving)
            self._unchecked = False


def _nothing(_count: int) -> None:
    pass
