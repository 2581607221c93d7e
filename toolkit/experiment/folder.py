"""A results folder as a contract: its version, what it holds, one writer, tables replaced as a whole.

docs/results-format.md describes the files. This module decides whether a sweep may continue in a folder,
and writes what is derived; the raw files are the store's. Knows nothing of what the numbers mean.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from toolkit.errors import ResultsError, ToolkitWarning
from toolkit.experiment.derive import Tables
from toolkit.experiment.identity import Identity
from toolkit.experiment.lock import sole_writer
from toolkit.experiment.plan import SweepPlan
from toolkit.experiment.store import KINDS, writing
from toolkit.files import parse_json, parse_toml, write_atomically
from toolkit.redact import redacted

if TYPE_CHECKING:
    import pandas as pd

# Raised when a reader of an earlier version would take something for what it is not.
SCHEMA = 1

MANIFEST = "folder.json"
# In a folder of several results folders.
SEVERAL = "comparison.json"
PLAN = "plan.toml"
ENVIRONMENT = "environment.json"
MEASUREMENTS = "measurements.parquet"
MEASUREMENTS_CSV = "measurements.csv"
PER_QUERY = "per_query.parquet"
SCALING = "scaling.parquet"
BOUNDS = "bounds.parquet"
BY_SIZE = "by_size.parquet"
REPORT = "report.html"
CHARTS = "charts"
RAW = "raw"
_LOCK = "lock"
_CONDITIONS = "*.conditions.json"
_TABLES = (PLAN, ENVIRONMENT, PER_QUERY, SCALING, BOUNDS, BY_SIZE, MEASUREMENTS_CSV, MEASUREMENTS)
# What versions before folder.json left in raw/.
_OLD_IDENTITY = "identity.json"


@dataclass(frozen=True)
class Manifest:
    """What a folder says of itself.

    kind : ``retrieval`` or ``pairs``.
    finished : whether its tables are whole and belong together.
    sweep : what all of its figures share; see `identity.Identity.sweep`.
    """

    kind: str
    finished: bool
    sweep: Mapping[str, object]
    schema: int = SCHEMA


class _DamagedManifestError(ResultsError):
    """A manifest that cannot be understood."""


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder, None for one written before there were any.

    Raises ResultsError for a damaged one, or one of a later version than this package reads.
    """
    path = folder / MANIFEST
    try:
        fields = parse_json(path.read_bytes())
        manifest = Manifest(
            fields["kind"], bool(fields["finished"]), dict(fields["sweep"]), int(fields["schema"])
        )
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise ResultsError(f"{folder} is a file; choose a folder (out=)") from None
    except OSError as error:
        raise ResultsError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    except (ValueError, KeyError, TypeError) as error:
        raise _DamagedManifestError(
            f"{path} is damaged ({error}); resume=True rebuilds the folder from its raw files"
        ) from error
    if manifest.schema > SCHEMA:
        raise ResultsError(
            f"{folder} was written in version {manifest.schema} of the results format, and this package "
            f"reads up to {SCHEMA}; update it: pip install --upgrade embedding-toolkit"
        )
    return manifest


def finish_call(folder: Path) -> str:
    """The call that finishes the sweep a folder holds, with the plan it was begun with."""
    plan = next((path for path in (folder / RAW / PLAN, folder / PLAN) if path.is_file()), "<its plan>")
    return f"toolkit.sweep({str(plan)!r}, resume=True, out={str(folder)!r})"


def begun(folder: Path) -> tuple[int, int] | None:
    """A mark that changes whenever a sweep is begun in a folder; None where none was."""
    try:
        plan = (folder / RAW / PLAN).stat()
    except OSError:
        return None
    return plan.st_ino, plan.st_mtime_ns


@dataclass(frozen=True)
class ResultsFolder:
    """A results folder while its only writer has it open.

    path : the folder.
    continued : whether it held results of this sweep already.
    """

    path: Path
    continued: bool = False

    @property
    def raw(self) -> Path:
        """Where the raw files lie."""
        return self.path / RAW

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator[ResultsFolder]:
        """Make and lock the folder; a folder that stays without results is removed again.

        Raises ResultsError if it cannot be written, or while another process writes it.
        """
        made = [folder for folder in (path / RAW, path, *path.parents) if not folder.exists()]
        with ExitStack() as held:
            held.callback(_remove_empty, made)
            try:
                (path / RAW).mkdir(parents=True, exist_ok=True)
                held.enter_context(sole_writer(path / RAW / _LOCK))
            except OSError as error:
                raise ResultsError(
                    f"results folder {path} cannot be written ({error.strerror}); choose another (out=)"
                ) from error
            yield cls(path)

    def check(
        self, kind: str, sweep: Mapping[str, object], plan: SweepPlan, *, resume: bool, overwrite: bool
    ) -> None:
        """Raise ResultsError if a sweep must not be written here.

        sweep : what is known of it by now; names that are missing are not compared. A sweep is
        continued without being told to if its plan is the one that was begun here.
        """
        if overwrite or not self._holds_results():
            return
        there = self._manifest(resume=resume)
        if there is not None:
            self._check_same(there, kind, sweep)
        if self._is_finished() and not self._has_samples():
            raise ResultsError(
                f"{self.path} holds a finished sweep without its raw files, so this one would measure all of "
                f"it again and replace it; choose another folder (out=), or {_OVERWRITE}"
            )
        plans = self._plans()
        if not resume and plan not in plans:
            raise ResultsError(
                f"{self.path} holds a sweep of another plan{_first_difference(plan, plans)}; choose another folder "
                f"(out=), add these settings to those there with resume=True, or {_OVERWRITE}"
            )

    def begin(
        self,
        kind: str,
        sweep: Mapping[str, object],
        plan: SweepPlan,
        settings: Sequence[str],
        *,
        resume: bool,
        overwrite: bool,
    ) -> ResultsFolder:
        """`check` with all that is known, then write down what is begun; the tables stay as they are.

        settings : keys of all rows the sweep will write; it must not drop one that is there.
        """
        self.check(kind, sweep, plan, resume=resume, overwrite=overwrite)
        with writing(self.path):
            if overwrite:
                self._clear()
            dropped = sorted(self._rows() - set(settings)) if self._is_finished() else []
            if dropped:
                raise ResultsError(
                    f"{self.path} holds {len(dropped)} settings that this plan does not measure "
                    f"({', '.join(dropped[:3])}{', ..' if len(dropped) > 3 else ''}); add them to the plan, "
                    f"choose another folder (out=), or {_OVERWRITE}"
                )
            continued = self._has_samples()
            finished = not overwrite and self._is_finished() and self._tables_belong_together()
            self._write_manifest(Manifest(kind, finished, sweep))
            write_atomically(self.raw / PLAN, plan.to_toml().encode())
        return ResultsFolder(self.path, continued)

    def save_conditions(self, identity: Identity) -> None:
        """Write down the conditions of this run, which its raw files go by."""
        path = self.raw / f"{identity.machine}.conditions.json"
        facts = {"since_utc": datetime.now(UTC).isoformat(timespec="seconds")} | dict(identity.conditions)
        with writing(path):
            if not path.exists():
                write_atomically(path, json.dumps(facts, indent=2, ensure_ascii=False).encode())

    def other_conditions(self, identity: Identity) -> dict[str, object]:
        """Conditions of earlier runs here, by name: neighbours may stem from them, durations not."""
        found = {}
        for path in sorted(self.raw.glob(_CONDITIONS)):
            name = path.name.partition(".")[0]
            if name != identity.machine:
                with suppress(OSError, ValueError):
                    found[name] = parse_json(path.read_bytes())
        return found

    def earlier_host_load(self) -> dict[str, object]:
        """How busy others kept the machine when the tables that are here were made; empty if unknown."""
        with suppress(OSError, ValueError, AttributeError):
            return dict(parse_json((self.path / ENVIRONMENT).read_bytes()).get("host_load", {}))
        return {}

    def write(self, plan: SweepPlan, environment: Mapping[str, object], tables: Tables) -> None:
        """Replace the tables all together, and remove what was drawn from earlier ones.

        Raises ResultsError; if the disk is full, the tables that were there are still whole.
        """
        payloads = {
            PLAN: plan.to_toml().encode(),
            ENVIRONMENT: json.dumps(environment, indent=2, ensure_ascii=False).encode(),
            PER_QUERY: _parquet(_by_query(tables.per_query)),
            MEASUREMENTS_CSV: tables.measurements.to_csv(index=False).encode(),
            MEASUREMENTS: _parquet(tables.measurements),
        }
        others = {SCALING: tables.scaling, BOUNDS: tables.bounds, BY_SIZE: tables.by_size}
        for name, table in others.items():
            if table is not None:
                payloads[name] = _parquet(_by_query(table) if name in (BOUNDS, BY_SIZE) else table)
        staged = {name: self.path / f"{name}.new" for name in payloads}
        manifest = read_manifest(self.path)
        redrawn = self._is_finished()
        with writing(self.path):
            try:
                for name, payload in payloads.items():
                    _write_through(staged[name], payload)
                self._write_manifest(Manifest(manifest.kind, False, manifest.sweep))
                for name in others.keys() - payloads.keys():
                    (self.path / name).unlink(missing_ok=True)
                for name, path in staged.items():
                    path.replace(self.path / name)
            finally:
                for path in staged.values():
                    path.unlink(missing_ok=True)
            if redrawn:
                self._remove_drawn()
            self._write_manifest(Manifest(manifest.kind, True, manifest.sweep))

    def _manifest(self, *, resume: bool) -> Manifest | None:
        try:
            there = read_manifest(self.path)
        except _DamagedManifestError as error:
            if not resume:
                raise
            warnings.warn(str(error), ToolkitWarning, stacklevel=4)
            return None
        if there is None:
            raise ResultsError(
                f"{self.path} was written by an earlier version, whose raw files do not say what they were "
                f"measured on: it can be read and reported, but not continued; choose another folder "
                f"(out=), or {_OVERWRITE}"
            )
        return there

    def _check_same(self, there: Manifest, kind: str, sweep: Mapping[str, object]) -> None:
        if there.kind != kind:
            raise ResultsError(
                f"{self.path} holds a {there.kind} sweep and this is a {kind} sweep; choose another folder "
                f"(out=), or {_OVERWRITE}"
            )
        for name, value in sweep.items():
            if there.sweep.get(name) != value:
                raise ResultsError(
                    f"{self.path} holds a sweep with another {name} ({there.sweep.get(name)!r}, now "
                    f"{value!r}); choose another folder (out=), or {_OVERWRITE}"
                )

    def _holds_results(self) -> bool:
        names = (MEASUREMENTS, MEASUREMENTS_CSV, f"{RAW}/{_OLD_IDENTITY}")
        return self._has_samples() or any((self.path / name).exists() for name in names)

    def _is_finished(self) -> bool:
        return (self.path / MEASUREMENTS).exists()

    def _tables_belong_together(self) -> bool:
        try:
            there = read_manifest(self.path)
        except ResultsError:
            return False
        return there is not None and there.finished

    def _has_samples(self) -> bool:
        return any(next(self.raw.glob(kind), None) for kind in KINDS)

    def _plans(self) -> list[SweepPlan]:
        """The plan that was begun last, and the one the tables were made with."""
        found = []
        for path in (self.raw / PLAN, self.path / PLAN):
            with suppress(OSError, ValueError):  # unreadable: not the same plan
                found.append(SweepPlan(**parse_toml(path.read_text(encoding="utf-8"))))
        return found

    def _rows(self) -> set[str]:
        import pandas as pd

        try:
            return set(pd.read_parquet(self.path / MEASUREMENTS, columns=["setting"])["setting"])
        except ValueError:
            return set()  # damaged: it is made again from the raw files

    def _write_manifest(self, manifest: Manifest) -> None:
        facts = asdict(manifest) | {"written_by": "embedding-toolkit"}
        payload = json.dumps(facts, indent=2, ensure_ascii=False).encode()
        write_atomically(self.path / MANIFEST, payload)

    def _clear(self) -> None:
        """Remove what a sweep wrote here, and nothing else that may lie in the folder."""
        (self.path / MANIFEST).unlink(missing_ok=True)
        for name in _TABLES:
            (self.path / name).unlink(missing_ok=True)
        self._remove_drawn()
        for folder in (self.raw, *self.raw.glob("*-documents")):
            for kind in (*KINDS, _CONDITIONS, _OLD_IDENTITY, "corpus.npy", PLAN):
                for path in folder.glob(kind):
                    path.unlink()
            for indexes in folder.glob("indexes*"):
                shutil.rmtree(indexes)
            if folder != self.raw:
                with suppress(OSError):  # not empty
                    folder.rmdir()

    def _remove_drawn(self) -> None:
        """Remove the report and charts: they show earlier tables. A chart is a .png and a .svg."""
        (self.path / REPORT).unlink(missing_ok=True)
        for svg in (self.path / CHARTS).glob("*.svg"):
            png = svg.with_suffix(".png")
            if png.exists():
                png.unlink()
                svg.unlink()


def _first_difference(plan: SweepPlan, others: Sequence[SweepPlan]) -> str:
    """The first field in which a plan differs from the one begun last, with both values."""
    for name in SweepPlan.model_fields if others else ():
        here, there = (getattr(one, name) for one in (plan, others[0]))
        if here != there:
            return f" ({name} {_brief(there)} there, {_brief(here)} here)"
    return ""


def _brief(value: object) -> str:
    text = " ".join(redacted(str(value)).split())
    return text if len(text) <= _BRIEF else f"{text[: _BRIEF - 2]}.."


_BRIEF = 60
_OVERWRITE = "replace it with overwrite=True"


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, innermost first, up to the first that holds something."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _by_query(per_query: pd.DataFrame) -> pd.DataFrame:
    """The rows of a query beside each other, queries in their order.

    Settings mostly agree on a query, and equal neighbours take half the space.
    """
    import pandas as pd

    order = np.argsort(pd.factorize(per_query["query_id"])[0], kind="stable")
    return per_query.iloc[order]


def _parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False, compression="zstd", compression_level=19)
    return buffer.getvalue()


def _write_through(path: Path, payload: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())
