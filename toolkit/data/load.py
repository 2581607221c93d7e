"""Short specs of data sets, and the one function that opens them."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

from toolkit.data.beir import load_beir
from toolkit.data.builtin import load_builtin
from toolkit.data.columns import as_columns
from toolkit.data.pairs import load_pairs
from toolkit.data.sets import PairSet, RetrievalSet
from toolkit.data.tables import KINDS, load_tables, load_texts
from toolkit.errors import PlanError

ENTRY_POINTS = "toolkit.data"
SPEC_FORMS = (
    "builtin, beir:<folder>[@split], csv:<file or folder>, parquet:.., jsonl:.., texts:<file of documents>, "
    "pairs:<file.tsv>[@split], mteb:<task name>[@split]"
)
# What follows the name in a spec, and the split if one is named.
Reader = Callable[[str, str | None], RetrievalSet | PairSet]


def load_dataset(spec: str | RetrievalSet | PairSet) -> RetrievalSet | PairSet:
    """Open an evaluation set by its spec; a set passes through.

    A reader of one's own is an entry point of the group ``toolkit.data``: a function of (place, split) under the
    name before the colon. Raises PlanError for an unknown spec and DataError for content that cannot be used.
    """
    if isinstance(spec, RetrievalSet | PairSet):
        return spec
    if not isinstance(spec, str):
        kind = "a frame" if as_columns(spec) is not None else type(spec).__name__
        raise PlanError(
            f"data is {kind}; make a set of it with toolkit.retrieval_set(docs=.., queries=.., qrels=..), "
            "toolkit.texts(docs=..) without judgements, or toolkit.pair_set(..)"
        )
    if spec == "builtin":
        return load_builtin()
    name, colon, rest = spec.partition(":")
    installed = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if colon and rest and (name in _READERS or name in installed):
        read: Reader = _READERS[name] if name in _READERS else installed[name].load()
        return read(*_place_and_split(rest))
    known = ["builtin", *_READERS, *installed]
    near = get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]}{':' if near[0] != 'builtin' else ''}?" if near else ""
    more = "".join(f", {other}:.." for other in sorted(installed))
    raise PlanError(f"unknown data set {spec!r}; choose one of: {SPEC_FORMS}{more}{hint}")


def _place_and_split(rest: str) -> tuple[str, str | None]:
    """A path may hold an @ of its own: if what stands there exists as a whole, it is all path."""
    place, at, split = rest.rpartition("@")
    if not at or Path(rest).exists() or "/" in split:
        return rest, None
    return place, split


def _beir(place: str, split: str | None) -> RetrievalSet:
    return load_beir(place, split=split)


def _pairs(place: str, split: str | None) -> PairSet:
    return load_pairs(place, split=split)


def _mteb(place: str, split: str | None) -> RetrievalSet | PairSet:
    # By name, not by import: mteb is a face, built on this station.
    read: Callable[..., RetrievalSet | PairSet] = import_module("toolkit.mteb_adapter.tasks").load_mteb
    return read(place, split=split)


def _tables(place: str, split: str | None, *, kind: str) -> RetrievalSet | PairSet:
    if split is not None:
        raise PlanError(f"{kind}:{place}@{split}: tables have no splits; give the file of one")
    return load_tables(place, kind=kind)


def _texts(place: str, split: str | None) -> RetrievalSet:
    if split is not None:
        raise PlanError(f"texts:{place}@{split}: a file of documents has no splits")
    return load_texts(place)


_READERS: dict[str, Reader] = {
    "beir": _beir,
    "texts": _texts,
    "pairs": _pairs,
    "mteb": _mteb,
    **{kind: partial(_tables, kind=kind) for kind in KINDS},
}
