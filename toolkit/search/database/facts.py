"""What is known of an index that lies in a database: the file that stands for it in a results folder.

Knows no engine, and keeps no secret: an address with one never gets this far.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

from toolkit.errors import ResultsError
from toolkit.files import parse_json, write_atomically

_NAME = re.compile(r"toolkit_[0-9a-f]{32}")


def new_name() -> str:
    """A name for a collection or table that nothing else has."""
    return f"toolkit_{uuid4().hex}"


@dataclass(frozen=True)
class Facts:
    """An index in a database.

    name : of the collection or table. rows, dim : of what it holds. index, precision : as the plan names them.
    description : what the engine built, in its words. steps_s : seconds of each step. index_bytes : what it stores.
    """

    name: str
    rows: int
    dim: int
    index: str
    precision: str
    description: str
    steps_s: dict[str, float]
    index_bytes: int

    def write(self, path: Path) -> None:
        """Write it whole or not at all; raises ResultsError."""
        try:
            write_atomically(path, json.dumps(asdict(self)).encode())
        except OSError as error:
            raise ResultsError(f"index {path} cannot be written: {error.strerror}") from error

    @classmethod
    def read(cls, path: Path) -> Facts:
        """What `write` wrote; raises ResultsError for a missing or damaged file."""
        try:
            facts = cls(**parse_json(path.read_bytes()))
            # It becomes part of statements, and the file may be a stranger's.
            if not _NAME.fullmatch(facts.name):
                raise ValueError(f"{facts.name!r} is not a name that this package gives")
            return facts
        except (OSError, ValueError, TypeError) as error:
            raise ResultsError(f"index {path} cannot be read: {error}; build it again") from error
