"""What each kind of raw file depends on, so that a sweep uses only what belongs to it.

Neighbours depend on the vectors, the queries and what searches; a duration depends on all that and on the
machine, its libraries and threads, and on how it was timed. Knows nothing of files or of how to measure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Stamp:
    """One raw file's identity: canonical JSON, stored inside the file, and the short name it goes by."""

    text: str

    @property
    def name(self) -> str:
        """12 hex digits that no other identity has."""
        return digest_of(self.text)


@dataclass(frozen=True)
class Identity:
    """What the raw files of one run depend on, as plain values.

    sweep : what every figure depends on: embedding space, data and query sample, k, seed.
    versions : of the packages that search.
    conditions : machine, libraries and thread limits; see `environment.conditions`.
    timing : how searches are timed: number of queries, thread counts. Not the rounds, which add up.
    documents : size of a drawn part of the corpus; None for all of it.
    """

    sweep: Mapping[str, object]
    versions: Mapping[str, str]
    conditions: Mapping[str, object]
    timing: Mapping[str, object]
    documents: int | None = None

    @property
    def machine(self) -> str:
        """Name of the conditions alone, as the folder lists them."""
        return digest_of(_canonical(self.conditions))

    def part(self, documents: int, *, drawn: str = "") -> Identity:
        """The same for a part of the corpus; `drawn` tells ways of drawing it apart."""
        sweep = {**self.sweep, "drawn": drawn} if drawn else self.sweep
        return replace(self, documents=documents, sweep=sweep)

    def neighbours(self, setting: str, asked: str = "") -> Stamp:
        """Of what a setting finds; `asked` is the hash of further queries, if it is for those."""
        return self._stamp(setting=setting, **({"asked": asked} if asked else {}))

    def build(self, index: str) -> Stamp:
        """Of an index and how long it took to build; k plays no part in it."""
        sweep = {name: value for name, value in self.sweep.items() if name != "k"}
        return self._stamp(sweep=sweep, index=index, conditions=self.conditions)

    def durations(self, search: str) -> Stamp:
        """Of a search's timing samples."""
        return self._stamp(setting=search, conditions=self.conditions, timing=self.timing)

    def _stamp(self, **more: object) -> Stamp:
        facts = {"sweep": self.sweep, "versions": self.versions, "documents": self.documents}
        return Stamp(_canonical(facts | more))


def digest_of(text: str) -> str:
    """12 hex digits of a text."""
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _canonical(facts: Mapping[str, object]) -> str:
    return json.dumps(facts, sort_keys=True, ensure_ascii=False)
