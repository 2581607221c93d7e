"""One setting of a sweep, and how files and tables name it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace


@dataclass(frozen=True, order=True)
class Setting:
    """One cell of the grid; all fields are what tables show.

    dim : embedding dimension of the (first) search.
    precision : how stored vectors are encoded, ``float32`` .. ``binary``.
    index : the FAISS index as the plan names it.
    build_args, search_args : ``name=value`` pairs joined by commas; empty for the defaults.
    rescore : empty, or ``<dim>x<candidates per k>`` of each later stage, joined by ``>``.
    instruction : ``default``, ``none`` or the text.
    """

    dim: int
    precision: str = "float32"
    index: str = "Flat"
    build_args: str = ""
    search_args: str = ""
    rescore: str = ""
    instruction: str = "default"

    @property
    def key(self) -> str:
        """Readable and unique: ``128 float32 HNSW32 efSearch=64``, empty and default parts left out."""
        parts = [str(self.dim), self.precision, self.index, self.build_args, self.search_args]
        if self.rescore:
            parts.append(f"rescore={self.rescore}")
        if self.instruction != "default":
            parts.append(f"instruction={self.instruction!r}")
        return " ".join(part for part in parts if part)

    @property
    def slug(self) -> str:
        """A short file name that no other setting has."""
        return hashlib.blake2b(repr(sorted(asdict(self).items())).encode(), digest_size=8).hexdigest()

    @property
    def search(self) -> Setting:
        """The same search whatever the instruction: what is timed."""
        return replace(self, instruction="default")

    @property
    def build(self) -> Setting:
        """The index behind it: what is built."""
        return Setting(self.dim, self.precision, self.index, self.build_args)


def arguments_text(arguments: Mapping[str, int]) -> str:
    """``{"efSearch": 64}`` as ``efSearch=64``, in a stable order."""
    return ",".join(f"{name}={value}" for name, value in sorted(arguments.items()))


def rescore_text(stages: Sequence[tuple[int, int]]) -> str:
    """(dimension, candidates per k) of each later stage as ``128x10>384x4``."""
    return ">".join(f"{dim}x{candidates}" for dim, candidates in stages)


def rescore_stages(text: str) -> list[tuple[int, int]]:
    """`rescore_text` read back."""
    stages = (stage.split("x") for stage in text.split(">") if stage)
    return [(int(dim), int(candidates)) for dim, candidates in stages]
