"""BEIR folders whose queries have an instruction each: what it is, what another facet's would be, what was judged.

``instructions.tsv`` names facet and instruction of every query, ``pools.tsv`` the documents that were judged for it.
Knows no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.data.beir import load_beir
from toolkit.data.sets import RetrievalSet
from toolkit.errors import DataError

NONE, OWN, OTHER = "none", "its own facet", "another facet"


@dataclass(frozen=True)
class FacetedSet:
    """A retrieval set of which only the instruction says in which way documents should be alike.

    instructions : ``none``, ``its own facet`` and ``another facet``, as `toolkit.compare_instructions` takes them.
    pools : query id -> ids of the documents that were judged for it; None where all were.
    """

    data: RetrievalSet
    instructions: Mapping[str, str | Mapping[str, str]]
    pools: Mapping[str, Sequence[str]] | None


def load_faceted(folder: str | Path, *, split: str | None = None) -> FacetedSet:
    """Read a BEIR folder with ``instructions.tsv`` (query-id, facet, instruction) and, if there is one, ``pools.tsv``.

    Another facet's instruction is that of the next facet by name. Raises DataError for columns or queries that lack.
    """
    folder = Path(folder)
    data = load_beir(folder, split=split)
    rows = _columns(folder / "instructions.tsv", ("query-id", "facet", "instruction"))
    of_facet = {facet: text for _, facet, text in rows}
    facets = sorted(of_facet)
    if len(facets) < 2:
        raise DataError(
            f"{folder / 'instructions.tsv'} names {len(facets)} facet; two or more can be told apart"
        )
    other = dict(zip(facets, [*facets[1:], facets[0]], strict=True))
    own = {query: text for query, _, text in rows}
    lacking = next((query for query in data.query_ids if query not in own), None)
    if lacking is not None:
        raise DataError(f"{folder / 'instructions.tsv'} has no instruction for query {lacking!r}")
    swapped = {query: of_facet[other[facet]] for query, facet, _ in rows}
    pools: dict[str, list[str]] | None = None
    if (folder / "pools.tsv").is_file():
        pools = {}
        for query, doc in _columns(folder / "pools.tsv", ("query-id", "corpus-id")):
            pools.setdefault(query, []).append(doc)
    return FacetedSet(data, {NONE: "none", OWN: own, OTHER: swapped}, pools)


def _columns(path: Path, names: Sequence[str]) -> list[tuple[str, ...]]:
    """Some columns of a table between tabs, by their heads."""
    try:
        head, *lines = path.read_text(encoding="utf-8").splitlines()
        heads = head.split("\t")
        places = [heads.index(name) for name in names]
        return [tuple(line.split("\t")[place] for place in places) for line in lines if line]
    except (OSError, ValueError, IndexError) as error:
        raise DataError(
            f"{path} cannot be read as a table with {', '.join(names)} between tabs: {error}"
        ) from error
