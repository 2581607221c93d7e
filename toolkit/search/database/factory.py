"""The names of indexes that databases take: ``Flat``, ``HNSW<links>`` and ``IVF<lists>``, as FAISS writes them.

Knows what they mean and which arguments they take; how an engine calls them is each backend's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from toolkit.errors import PlanError
from toolkit.search.backend import IndexSpec
from toolkit.search.faiss.curve import DEFAULT_PROBES, DEFAULT_WIDTH

_NAME = re.compile(r"(Flat)|(HNSW)(\d*)|(IVF)(\d+)")
_DEFAULT_LINKS = 32
# FAISS's default, so that a graph of the same name is made with the same care.
_DEFAULT_CONSTRUCTION = 40
_BUILD = {"HNSW": {"efConstruction"}}
_SEARCH = {"HNSW": {"efSearch"}, "IVF": {"nprobe"}}


@dataclass(frozen=True)
class Family:
    """A parsed index name.

    name : ``Flat``, ``HNSW`` or ``IVF``; number : links of a node, or lists; 0 for a scan.
    """

    name: str
    number: int

    def construction(self, build_args: Mapping[str, int]) -> int:
        """Width of the search that links a new node: at least twice its links, which pgvector insists on."""
        return build_args.get("efConstruction", max(_DEFAULT_CONSTRUCTION, 2 * self.number))

    def width(self, search_args: Mapping[str, int], k: int) -> int:
        """Width of a graph search: as in FAISS, never below k."""
        return max(search_args.get("efSearch", DEFAULT_WIDTH), k)

    def probes(self, search_args: Mapping[str, int]) -> int:
        """Lists that a search reads, at most all of them."""
        return min(search_args.get("nprobe", DEFAULT_PROBES), self.number)


def family_of(spec: IndexSpec, *, engine: str) -> Family:
    """The family that a spec's index names; raises PlanError for one that databases do not have."""
    match = _NAME.fullmatch(spec.index)
    if match is None:
        raise PlanError(
            f"{engine} has no index {spec.index!r}; choose Flat, HNSW<links> (HNSW32) or IVF<lists> (IVF256)"
        )
    if match[1]:
        return Family("Flat", 0)
    number = int(match[3] or _DEFAULT_LINKS) if match[2] else int(match[5])
    if number < 1:
        raise PlanError(f"index {spec.index!r}: 0 links or lists hold nothing; choose at least 1")
    return Family(match[2] or match[4], number)


def check_arguments(spec: IndexSpec, family: Family, arguments: Mapping[str, int], *, search: bool) -> None:
    """Raise PlanError for an argument that this family does not have, or that is below 1."""
    known = (_SEARCH if search else _BUILD).get(family.name, set())
    for name, value in arguments.items():
        if name not in known:
            kind = "search" if search else "build"
            has = f"it has {', '.join(sorted(known))}" if known else "it has none"
            raise PlanError(f"{spec.index} in a database has no {kind} argument {name!r}; {has}")
        if value < 1:
            raise PlanError(f"{name}={value} must be at least 1")


def one_of(spec: IndexSpec, kinds: Mapping[str, str], *, engine: str) -> str:
    """What an engine calls this index at the spec's precision; raises PlanError for one it does not have."""
    if spec.precision not in kinds:
        raise PlanError(
            f"{engine} has no {spec.index} of precision {spec.precision}; choose {', '.join(kinds)}, "
            "or backend 'faiss'"
        )
    return kinds[spec.precision]
