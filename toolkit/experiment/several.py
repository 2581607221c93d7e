"""A plan over several embedders and data sets: one sweep, and one results folder, for each pair of them.

Splits and names; runs nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import PlanError, ResultsError
from toolkit.experiment.folder import MANIFEST, MEASUREMENTS, SEVERAL
from toolkit.experiment.plan import OBJECT_SPEC, SweepPlan, check_key, make_plan, read_fields
from toolkit.files import parse_json, parse_toml, safe_name, write_json

# What belongs to the queries of one data set.
_OF_ONE_SET = ("unlabelled", "clusters")


@dataclass(frozen=True)
class Several:
    """Embedders and data sets, each a spec, a config or an object; `fields` are those of a plan that all share."""

    embedders: Sequence[Any]
    data: Sequence[Any]
    fields: Mapping[str, Any]

    def pairs(self) -> list[Pair]:
        """Every embedder on every data set, an embedder's sets together; folders have names of their own."""
        pairs = [
            Pair(f"{_short(one, 'model')}-{_short(data, 'name')}", one, data)
            for one in self.embedders
            for data in self.data
        ]
        counts = Counter(pair.folder for pair in pairs)
        return [
            Pair(f"{pair.folder}-{place}", pair.embedder, pair.data) if counts[pair.folder] > 1 else pair
            for place, pair in enumerate(pairs, start=1)
        ]


@dataclass(frozen=True)
class Pair:
    """One sweep of several: the name of its folder, its embedder and its data."""

    folder: str
    embedder: Any
    data: Any

    def plan(self, fields: Mapping[str, Any]) -> SweepPlan:
        """The plan of its sweep, with what is an object named as one; raises PlanError."""
        own = {"embedder": _spec(self.embedder), "data": _spec(self.data)}
        return make_plan(**fields, **own)


def names_several(plan: str | Path) -> bool:
    """Whether a TOML file plans several sweeps; False for what cannot be read, which its reader complains of."""
    try:
        fields = parse_toml(Path(plan).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return "embedders" in fields or isinstance(fields.get("data"), list)


def resolve_several(
    plan: str | Path | SweepPlan | None,
    *,
    embedders: Sequence[Any] | None,
    data: Sequence[Any] | None,
    fields: Mapping[str, Any],
) -> Several:
    """What a plan's file names, with what is given in its place; raises PlanError for what makes no sweeps."""
    if isinstance(plan, SweepPlan):
        written = plan.model_dump(exclude_unset=True)
    else:
        written = {} if plan is None else _read(plan)
    if "embedder" in written and "embedders" in written:
        raise PlanError(f"plan {plan} has embedder and embedders; keep one of the two")
    named = written.pop("embedders", None) or [written.pop("embedder", "static")]
    sets = written.pop("data", "builtin")
    chosen = list(named if embedders is None else embedders)
    over = list((sets if isinstance(sets, list) else [sets]) if data is None else data)
    for what, values in (("embedders", chosen), ("data", over)):
        if not values:
            raise PlanError(f"{what} is an empty list; name at least one")
        if any(isinstance(one, str) and values.count(one) > 1 for one in values):
            raise PlanError(f"{what} names one more than once; each is measured once")
    shared = written | dict(fields)
    for field in _OF_ONE_SET:
        if shared.get(field) is not None and len(over) > 1:
            raise PlanError(
                f"{field} belongs to one data set, and there are {len(over)}; sweep that one alone"
            )
    several = Several(chosen, over, shared)
    for pair in several.pairs():
        pair.plan(shared)
    return several


def write_several(out: Path, pairs: Sequence[Pair]) -> None:
    """Note in `out` which folders beneath it belong together, beside those that were noted before.

    Raises ResultsError if it holds something else.
    """
    if (out / MANIFEST).is_file():
        raise ResultsError(f"{out} holds a single sweep; choose another folder (out=)")
    before = [path.name for path in folders_beneath(out)] if (out / SEVERAL).is_file() else []
    folders = list(dict.fromkeys([*before, *(pair.folder for pair in pairs)]))
    try:
        write_json(out / SEVERAL, {"schema": 1, "folders": folders})
    except OSError as error:
        raise ResultsError(f"{out} cannot be written ({error.strerror}); check its permissions") from error


def folders_beneath(out: Path) -> list[Path]:
    """The results folders of sweeps that belong together: those that were noted, else all that lie in `out`.

    Raises ResultsError if there are none.
    """
    note = out / SEVERAL
    if note.is_file():
        try:
            names = parse_json(note.read_bytes())["folders"]
            return [out / safe_name(str(name)) for name in names]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ResultsError(
                f"{note} is damaged ({error}); remove it, and all folders beside it count"
            ) from error
    found = sorted(path.parent for path in out.glob(f"*/{MEASUREMENTS}"))
    if not found:
        raise ResultsError(
            f"{out} holds no results folders; give the folder of several sweeps, or each sweep's"
        )
    return found


def _read(path: str | Path) -> dict[str, Any]:
    fields = read_fields(path)
    if not isinstance(fields.get("embedders", []), list):
        raise PlanError(f"plan {path}: embedders must be a list; a single one is called embedder")
    for one in fields.get("embedders", [fields.get("embedder")]):
        check_key({"embedder": one})
    return fields


def _spec(value: Any) -> Any:  # noqa: ANN401
    """What stands in a plan for an embedder or a set; an object is named as one."""
    return (
        value
        if isinstance(value, str | Mapping) or hasattr(value, "kind")
        else f"{OBJECT_SPEC}{_name(value)}"
    )


def _name(value: Any) -> str:  # noqa: ANN401
    return str(getattr(getattr(value, "space", value), "model", getattr(value, "name", type(value).__name__)))


def _short(value: Any, attribute: str) -> str:  # noqa: ANN401
    """The last part of a spec, or an object's name, as part of a folder's name."""
    if isinstance(value, Mapping):
        value = value.get("model", value.get("kind", attribute))
    name = value if isinstance(value, str) else _name(value)
    last = re.split(r"[/\\:#]", name.rstrip("/"))[-1]
    return safe_name(re.sub(r"[^\w.]+", "-", last).strip("-.")[:40] or attribute)
