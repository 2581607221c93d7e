"""What a round needs of a finished sweep: the texts it was measured on, and what each setting found there.

Texts are not in a results folder, so they are read again from where the plan says they lie, and refused if they
are not those that were measured. Knows no round and no answer.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np

from toolkit.data.load import load_dataset
from toolkit.data.sets import PairSet, RetrievalSet
from toolkit.errors import PlanError, ResultsError, ToolkitError
from toolkit.experiment.folder import RAW, finish_call, read_manifest
from toolkit.experiment.plan import OBJECT_SPEC
from toolkit.experiment.queries import given_queries
from toolkit.experiment.results import Results
from toolkit.experiment.setting import Setting
from toolkit.experiment.sweep import as_measured
from toolkit.files import parse_json
from toolkit.search.neighbours import Neighbours


def measured_data(
    results: Results, data: str | RetrievalSet | None = None, unlabelled: object = None
) -> RetrievalSet:
    """The set a sweep measured, its queries sampled as then.

    data : a spec or a set to read instead of the plan's; for a sweep over an object, or a set that moved.
    unlabelled : the queries without judgements, if the sweep was handed them as an object.

    Raises ResultsError if it cannot be read or holds something else now.
    """
    spec = results.plan.data if data is None else data
    if isinstance(spec, str) and spec.startswith(OBJECT_SPEC):
        raise ResultsError(
            f"{results.folder} was measured on {spec[len(OBJECT_SPEC) :]!r}, an object of a Python program, and its "
            "texts are needed: give the set again with data= (on the command line, saved as files)"
        )
    try:
        found = load_dataset(spec)
    except ToolkitError as error:
        raise ResultsError(
            f"the texts that {results.folder} was measured on cannot be read: {error}; say where they lie now "
            "with data="
        ) from error
    if isinstance(found, PairSet):
        raise PlanError(f"{found.name} is a set of pairs; judging needs queries and documents")
    handed = None if unlabelled is None else given_queries(unlabelled)
    measured = as_measured(results.plan, found, unlabelled=handed)
    then = results.environment.get("data", {}).get("hash")
    if measured.content_hash != then:
        raise ResultsError(
            f"{found.name} is not what {results.folder} was measured on (content {measured.content_hash}, then "
            f"{then}): texts, ids or judgements changed, or the plan's sample; give that set with data=, "
            "or sweep this one into another folder"
        )
    return measured


def neighbours_of(results: Results, settings: Sequence[str], data: RetrievalSet) -> dict[str, Neighbours]:
    """What each setting found for the unlabelled queries, one row per query, from the raw files.

    Raises ResultsError for a folder without them.
    """
    manifest = read_manifest(results.folder)
    asked = data.unlabelled_hash if data.unlabelled else ""
    found = {}
    for key in settings:
        neighbours = _newest(results, Setting.parse(key), manifest.sweep if manifest else {}, asked)
        if neighbours is None:
            raise ResultsError(
                f"{results.folder / RAW} lacks what {key} found for the queries without judgements, and judging "
                f"shows those documents; measure it again with: {finish_call(results.folder)}"
            )
        found[key] = neighbours
    return found


def _newest(results: Results, setting: Setting, sweep: Mapping[str, object], asked: str) -> Neighbours | None:
    """Of this sweep, whatever the versions: any of them found what the tables may rest on, the latest does."""
    files = (results.folder / RAW).glob(f"{setting.slug}.*.neighbours.npz")
    for path in sorted(files, key=lambda one: one.stat().st_mtime_ns, reverse=True):
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
                identity = parse_json(str(stored["identity"]))
                same = identity["sweep"] == dict(sweep) and identity.get("documents") is None
                if same and identity.get("asked", "") == asked:
                    return Neighbours(stored["rows"].astype(np.int64), stored["scores"])
        except (OSError, ValueError, KeyError, EOFError):
            continue  # damaged: the sweep says so when it is continued
    return None
