"""What `toolkit.sweep` does around the sweep itself, for whoever calls it from Python.

Objects become a set and an embedder, a folder is found, an interrupt says how to go on, and the report is written.
Measures nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data.frames import numbered
from toolkit.data.given import as_set
from toolkit.data.load import load_dataset
from toolkit.data.sets import PairSet, RetrievalSet
from toolkit.embedding.cache import VectorCache
from toolkit.embedding.config import AnyConfig
from toolkit.embedding.given import sides_of, vectors_of
from toolkit.embedding.open import open_embedder
from toolkit.embedding.protocol import Embedder
from toolkit.errors import Interrupted, PlanError
from toolkit.experiment.outlook import Outlook
from toolkit.experiment.plan import SweepPlan, resolve_plan
from toolkit.experiment.queries import given_queries
from toolkit.experiment.results import Results
from toolkit.experiment.sweep import NOTHING_LACKED, run_sweep
from toolkit.notebook.views import ResultsView
from toolkit.progress import in_notebook, say
from toolkit.report.write import write_report
from toolkit.scale.ray_search import search_on_ray
from toolkit.scale.ray_workers import RayWorkers, on_ray

_RESULTS = Path("results")


def swept(
    plan: SweepPlan | str | Path | None,
    *,
    out: str | Path | None,
    embedder: Any,  # noqa: ANN401 - see toolkit.sweep
    data: Any,  # noqa: ANN401
    unlabelled: Any,  # noqa: ANN401
    devices: Sequence[str | int] | None = None,
    ray: RayWorkers | None = None,
    fields: Mapping[str, Any],
    resume: bool,
    overwrite: bool,
    cache: VectorCache | None,
    progress: bool,
    before: Callable[[Outlook], None] | None = None,
) -> ResultsView:
    """Run a sweep over specs or objects and write its report; see `toolkit.sweep`.

    fields : the plan's other fields; None is not given.
    """
    given = {name: _plain(value) for name, value in fields.items() if value is not None}
    if isinstance(embedder, str | AnyConfig):
        given["embedder"] = embedder
    if isinstance(data, str):
        given["data"] = data
    if isinstance(unlabelled, str | Path):
        given["unlabelled"] = str(unlabelled)
    chosen = resolve_plan(plan, **given)
    found = None if data is None or isinstance(data, str) else as_set(data)
    if embedder is None or "embedder" in given:
        opened = None
    elif _are_rows(embedder):
        if found is None and "data" not in chosen.model_fields_set:
            found = numbered(*(len(side) for side in sides_of(embedder)))
        found = load_dataset(chosen.data) if found is None else found
        opened = _given_vectors(embedder, found)
        if not found.unlabelled and "max_unlabelled" not in chosen.model_fields_set:
            chosen = chosen.model_copy(update={"max_unlabelled": 0})  # stand-ins for queries have no vectors
    else:
        opened = open_embedder(embedder)
    if ray is not None:
        with on_ray(ray, needed_for="searching on Ray"):
            pass  # whether it answers and has room is known before anything long begins
    folder = Path(out) if out is not None else _folder_of(chosen, opened, found)
    try:
        results = run_sweep(
            chosen,
            out=folder,
            embedder=opened,
            data=found,
            unlabelled=None if unlabelled is None or "unlabelled" in given else given_queries(unlabelled),
            devices=devices,
            exactly=None if ray is None else partial(search_on_ray, on=ray),
            resume=resume,
            overwrite=overwrite,
            cache=cache,
            progress=progress,
            before=before or (_say_outlook if progress and in_notebook() else None),
        )
        write_report(results)
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped; what was computed so far is kept. Run the same again to go on (out={str(folder)!r})"
        ) from None
    _say_what_was_there(results, show=progress)
    return ResultsView(results)


def _say_outlook(outlook: Outlook) -> None:
    say(str(outlook))


def _say_what_was_there(results: Results, *, show: bool) -> None:
    note = next((note for note in results.notes if note.startswith("continued: ")), "")
    if NOTHING_LACKED in results.notes:
        say(
            f"{results.folder}: this sweep was there already, finished; nothing was measured again", show=show
        )
    elif note:
        say(f"{results.folder}: {note}", show=show)


def _folder_of(plan: SweepPlan, embedder: Embedder | None, data: RetrievalSet | PairSet | None) -> Path:
    """A folder for this plan alone, so that the same cell finds it again and another plan does not meet it."""
    names = (
        plan.data if data is None else data.name,
        str(plan.embedder) if embedder is None else embedder.space.model,
    )
    facts = [plan.to_toml(), *names, "" if data is None else data.content_hash]
    facts.append("" if embedder is None else embedder.space.fingerprint)
    digest = hashlib.blake2b("\n".join(facts).encode("utf-8", "surrogatepass"), digest_size=3).hexdigest()
    return _RESULTS / "-".join([*map(_short, names), digest])


def _short(name: str) -> str:
    """The last part of a spec or path, as a file name."""
    last = re.split(r"[/\\:#]", name.rstrip("/"))[-1]
    return re.sub(r"[^\w.]+", "-", last).strip("-.")[:40] or "data"


def _are_rows(embedder: object) -> bool:
    """Whether it is vectors rather than what makes them: two arrays, or a mapping of two."""
    parts = list(embedder.values()) if isinstance(embedder, Mapping) else embedder
    return isinstance(parts, tuple | list) and all(isinstance(part, np.ndarray | list) for part in parts)


def _given_vectors(rows: Mapping[str, np.ndarray] | Sequence[np.ndarray], data: object) -> Embedder:
    if not isinstance(data, RetrievalSet):
        raise PlanError("given vectors are of documents and queries; give a retrieval set as data=")
    return vectors_of(rows, data.docs, [*data.queries, *data.unlabelled])


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever a plan's field takes
    """Tuples, ranges and arrays of numbers as the lists a plan holds."""
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        return value
    return value.tolist() if hasattr(value, "tolist") else list(value)
