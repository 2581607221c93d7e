"""What a measurement was made on and with: machine, threads, versions, commit and command.

`environment` is what a results folder tells its reader; `conditions` is the part of it that a duration
depends on, and by which samples of different conditions are kept apart.
"""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path

from toolkit.experiment.machine import hardware, libraries
from toolkit.files import parse_toml
from toolkit.redact import redacted_arguments
from toolkit.space import EmbeddingSpace

DISTRIBUTION = "embedding-toolkit"
# What searches: neighbours may differ between versions of these.
_SEARCH_PACKAGES = (DISTRIBUTION, "faiss-cpu", "faiss-gpu")
# What else a search's duration may depend on.
_TIMED_PACKAGES = (*_SEARCH_PACKAGES, "numpy", "torch")
_PACKAGES = (
    *_TIMED_PACKAGES,
    "milvus-lite",
    "mteb",
    "openai",
    "pandas",
    "pgvector",
    "psycopg",
    "pymilvus",
    "pytrec-eval-terrier",
    "scipy",
    "sentence-transformers",
    "tokenizers",
    "transformers",
    "wordllama",
)
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OMP_PROC_BIND",
    "OMP_PLACES",
    "OMP_WAIT_POLICY",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "OPENBLAS_CORETYPE",
    "CUDA_VISIBLE_DEVICES",
)


def environment(space: EmbeddingSpace) -> dict[str, object]:
    """Machine, thread limits, package versions, commit, command, UTC time and `space`, as plain values."""
    return {
        "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(),
        "commit": commit(),
        "hardware": hardware(),
        "libraries": libraries(),
        "threads": _threads(),
        "versions": versions(),
        "space": asdict(space) | {"fingerprint": space.fingerprint},
    }


def conditions() -> dict[str, object]:
    """All that a search's duration depends on beside the search itself; equal values may share samples.

    What varies from one start of the same machine to the next is left out (kernel release, memory to
    the last page).
    """
    machine = hardware()
    machine.pop("system", None)
    if "memory_gib" in machine:
        machine["memory_gib"] = round(machine["memory_gib"])
    return {
        "hardware": machine,
        "libraries": libraries(),
        "threads": _threads(),
        "versions": {"python": platform.python_version()} | _installed(_TIMED_PACKAGES),
    }


def search_versions(backends: Iterable[object] = ()) -> dict[str, str]:
    """Versions of what searches, those that neighbours may depend on.

    backends : index backends; a version of the package that each comes from is among them.
    """
    given = list(backends)
    more = {name for backend in given for name in getattr(backend, "packages", ())}
    modules = {type(backend).__module__.partition(".")[0] for backend in given} - {"toolkit"}
    if modules:
        owners = packages_distributions()
        more |= {name for module in modules for name in owners.get(module, ())}
    return _installed((*_SEARCH_PACKAGES, *sorted(more)))


def versions() -> dict[str, str]:
    """Python and the packages that can change a figure, as installed."""
    return {"python": platform.python_version()} | _installed(_PACKAGES)


def commit() -> str | None:
    """Commit of the checkout this package runs from, with ``+`` if files differ from it.

    None where the package is installed, also inside another project's repository: the commit must be
    this package's own.
    """
    here = Path(__file__).resolve()
    top = here.parents[2]
    git = ["git", "-C", str(top)]
    if not _is_own_checkout(top) or _git([*git, "ls-files", "--error-unmatch", str(here)]) is None:
        return None
    if Path(_git([*git, "rev-parse", "--show-toplevel"]) or "/").resolve() != top:
        return None
    head = _git([*git, "rev-parse", "HEAD"])
    changed = _git([*git, "status", "--porcelain", "--untracked-files=no"])
    return None if head is None else head + ("+" if changed else "")


def command_line() -> str:
    """The command as one types it again, without keys and passwords."""
    program, *arguments = sys.orig_argv if not sys.argv[0] else sys.argv
    name = Path(program).name
    start = ["python", "-m", Path(program).parent.name] if name == "__main__.py" else [name]
    return shlex.join([*start, *redacted_arguments(arguments)])


def _threads() -> dict[str, str]:
    return {name: os.environ[name] for name in _THREAD_VARIABLES if name in os.environ}


def _installed(packages: Sequence[str]) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _is_own_checkout(top: Path) -> bool:
    try:
        project = parse_toml((top / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return project.get("project", {}).get("name") == DISTRIBUTION


def _git(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
