"""One setting of a sweep: structured for programs, as text for people, tables and file names.

Knows no index: what a backend's name, index and arguments mean is the backend's own affair.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from toolkit.errors import PlanError
from toolkit.search.backend import AUTO

Arguments = tuple[tuple[str, int], ...]

# The columns that tell settings apart in every table, as text (`dim` as a number).
SETTING_COLUMNS = (
    "instruction",
    "dim",
    "precision",
    "index",
    "build_args",
    "search_args",
    "rescore",
)


class RescoreStage(NamedTuple):
    """A later stage: the dimension it scores at, and how many candidates it is handed, whatever k is."""

    dim: int
    candidates: int


@dataclass(frozen=True, order=True)
class Setting:
    """One cell of the grid.

    dim : embedding dimension of the (first) search.
    precision : how stored vectors are encoded, ``float32`` .. ``binary``.
    index : the index as its backend names it.
    build_args, search_args : (name, value) pairs by name; a mapping is taken too. Empty for the defaults.
    rescore : the later stages, in order; pairs are taken too.
    instruction : ``default``, ``none`` or the text.
    backend : which backend holds the index; ``auto`` is the one that its name stands for.
    """

    dim: int
    precision: str = "float32"
    index: str = "Flat"
    build_args: Arguments = ()
    search_args: Arguments = ()
    rescore: tuple[RescoreStage, ...] = ()
    instruction: str = "default"
    backend: str = AUTO

    def __post_init__(self) -> None:
        for name in ("build_args", "search_args"):
            object.__setattr__(self, name, _pairs(getattr(self, name)))
        object.__setattr__(self, "rescore", tuple(RescoreStage(*stage) for stage in self.rescore))

    @property
    def key(self) -> str:
        """Readable and unique: ``128 float32 HNSW32 efSearch=64``, empty and default parts left out."""
        text = self.columns
        parts = [str(self.dim), self.precision, str(text["index"])]
        if self.build_args:
            parts.append(f"build:{text['build_args']}")
        if self.search_args:
            parts.append(str(text["search_args"]))
        if self.rescore:
            parts.append(f"rescore={text['rescore']}")
        if self.instruction != "default":
            parts.append(f"instruction={self.instruction!r}")
        return " ".join(parts)

    @classmethod
    def parse(cls, key: str) -> Setting:
        """The setting that a `key` names; raises PlanError for a text that is none."""
        match = _KEY.fullmatch(key)
        if match is None:
            raise PlanError(
                f"setting {key!r} is not '<dim> <precision> <index> [build:<name>=<number>,..] "
                "[<name>=<number>,..] [rescore=<dim>@<candidates>>..] [instruction=<quoted text>]'"
            )
        parts = match.groupdict(default="")
        parts["instruction"] = ast.literal_eval(parts["instruction"]) if parts["instruction"] else "default"
        return cls.from_columns(parts)

    @property
    def columns(self) -> dict[str, object]:
        """Its SETTING_COLUMNS as tables hold them."""
        return {
            "instruction": self.instruction,
            "dim": self.dim,
            "precision": self.precision,
            "index": self.index if self.backend == AUTO else f"{self.backend}:{self.index}",
            "build_args": _arguments_text(self.build_args),
            "search_args": _arguments_text(self.search_args),
            "rescore": ">".join(f"{dim}@{candidates}" for dim, candidates in self.rescore),
        }

    @classmethod
    def from_columns(cls, row: Mapping[str, Any]) -> Setting:
        """The setting of a table's row; raises PlanError for text that is no setting's."""
        backend, mark, index = str(row["index"]).rpartition(":")
        return cls(
            dim=int(row["dim"]),
            precision=str(row["precision"]),
            index=index,
            build_args=_pairs(parse_arguments(str(row["build_args"]))),
            search_args=_pairs(parse_arguments(str(row["search_args"]))),
            rescore=tuple(RescoreStage(*stage) for stage in _parse_rescore(str(row["rescore"]))),
            instruction=str(row["instruction"]),
            backend=backend if mark else AUTO,
        )

    @property
    def slug(self) -> str:
        """A short file name that no other setting has."""
        return hashlib.blake2b(repr(sorted(self.columns.items())).encode(), digest_size=8).hexdigest()

    @property
    def search(self) -> Setting:
        """The same search whatever the instruction: what is timed."""
        return replace(self, instruction="default")

    @property
    def build(self) -> Setting:
        """The index behind it: what is built."""
        return Setting(self.dim, self.precision, self.index, self.build_args, backend=self.backend)


_ARGUMENT = r"[A-Za-z_]\w*=\d+"
_ARGUMENTS = rf"{_ARGUMENT}(?:,{_ARGUMENT})*"
_KEY = re.compile(
    rf"(?P<dim>\d+) (?P<precision>\S+) (?P<index>\S+)(?: build:(?P<build_args>{_ARGUMENTS}))?"
    rf"(?: (?!rescore=)(?P<search_args>{_ARGUMENTS}))?(?: rescore=(?P<rescore>\S+))?"
    r"(?: instruction=(?P<instruction>'.*'|\".*\"))?"
)


def parse_arguments(text: str) -> dict[str, int]:
    """``"efSearch=64,nprobe=8"`` as a dict; raises PlanError for anything else."""
    arguments = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        if not re.fullmatch(r"\w+\s*=\s*\d+", part):
            raise PlanError(f"argument {part!r} is not name=<whole number>, for example efSearch=64")
        name, _, value = part.partition("=")
        arguments[name.strip()] = int(value)
    return arguments


def _pairs(arguments: Mapping[str, int] | Iterable[tuple[str, int]]) -> Arguments:
    return tuple(sorted(dict(arguments).items()))


def _arguments_text(arguments: Arguments) -> str:
    return ",".join(f"{name}={value}" for name, value in arguments)


def _parse_rescore(text: str) -> list[tuple[int, int]]:
    stages = []
    for part in filter(None, text.split(">")):
        if not re.fullmatch(r"\d+@\d+", part):
            older = " (an older version counted candidates per k and wrote <dim>x<candidates per k>)"
            raise PlanError(
                f"rescoring stage {part!r} is not <dim>@<candidates>, for example 384@400"
                + (older if "x" in part else "")
            )
        dim, _, candidates = part.partition("@")
        stages.append((int(dim), int(candidates)))
    return stages
