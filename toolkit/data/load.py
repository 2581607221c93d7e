"""Short specs of data sets, and the one function that opens them."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module

from toolkit.data.beir import load_beir
from toolkit.data.builtin import load_builtin
from toolkit.data.pairs import load_pairs
from toolkit.data.sets import PairSet, RetrievalSet
from toolkit.errors import PlanError

SPEC_FORMS = "builtin, beir:<folder>[@split], pairs:<file.tsv>[@split], mteb:<task name>[@split]"


def load_dataset(spec: str | RetrievalSet | PairSet) -> RetrievalSet | PairSet:
    """Open an evaluation set by its spec; a set passes through.

    Raises PlanError for an unknown spec and DataError for content that cannot be used.
    """
    if isinstance(spec, RetrievalSet | PairSet):
        return spec
    if spec == "builtin":
        return load_builtin()
    kind, mark, rest = spec.partition(":")
    place, at, split = rest.rpartition("@")
    if not at:
        place, split = rest, ""
    if mark and rest:
        if kind == "beir":
            return load_beir(place, split=split or "test")
        if kind == "pairs":
            return load_pairs(place, split=split or None)
        if kind == "mteb":
            # By name, not by import: mteb is a face, built on this station.
            load_mteb = import_module("toolkit.mteb_adapter.tasks").load_mteb
            return load_mteb(place, split=split or None)
    near = get_close_matches(kind, ["builtin", "beir", "pairs", "mteb"], n=1)
    hint = f"; did you mean {near[0]}{':' if near[0] != 'builtin' else ''}?" if near else ""
    raise PlanError(f"unknown data set {spec!r}; choose one of: {SPEC_FORMS}{hint}")
