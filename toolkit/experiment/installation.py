"""What this installation has, what it lacks, and the next step for each lack.

Everything is asked of the system and of the installed packages; nothing is loaded that takes seconds, and nothing
is changed. The extras and their bounds are those of the installed package itself.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from packaging.requirements import Requirement

from toolkit.embedding.cache_folder import cached_spaces
from toolkit.experiment.environment import DISTRIBUTION
from toolkit.experiment.machine import hardware, load_average, usable_cores
from toolkit.files import cache_folder

State = Literal["ok", "lacking", "problem"]

_HUB = "https://huggingface.co"
_HUB_WAIT_S = 4.0
_LITTLE_DISK_BYTES = 5 * 10**9  # a small model and the vectors of a million short texts
_BUSY_SHARE = 0.25
_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")
# Extras that only name other extras, or that users of the toolkit do not need.
_NOT_ASKED = {"all", "cpu", "gpu", "dev", "faiss-cpu", "faiss-gpu"}
# What an extra is for; one that is not named here is listed with its packages alone.
_PURPOSES = {
    "local": "models on this machine",
    "mteb": "mteb's tasks",
    "notebook": "JupyterLab and widgets",
    "remote": "embedding servers",
    "serve": "the embedding server",
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    state : ``ok``; ``lacking`` for what the core does without; ``problem`` for what will fail or mislead.
    next_step : what to do about it; empty where it is ``ok``.
    """

    subject: str
    state: State
    found: str
    next_step: str = ""

    def as_dict(self) -> dict[str, str]:
        """As plain values."""
        return asdict(self)


def examine(*, hub: bool = True) -> Iterator[Finding]:
    """Look at everything, one finding after another as it is known.

    hub : whether to ask the model hub, which waits up to four seconds where it cannot be reached.
    """
    yield Finding(
        "toolkit", "ok", f"{_installed(DISTRIBUTION) or 'a checkout'}, Python {platform.python_version()}"
    )
    yield _gpu()
    yield _faiss()
    yield from _extras()
    if hub:
        yield _model_hub()
    yield _vector_cache()
    yield _disk()
    yield _threads()


def _gpu() -> Finding:
    gpus: Sequence[str] = hardware()["gpus"]
    if not gpus:
        return Finding(
            "GPU",
            "lacking",
            "none that nvidia-smi names",
            "static needs none; for local: models of more than 100M parameters use a machine with one, or a server "
            "(http://host:port/v1#<model>)",
        )
    named = ", ".join(gpus)
    if find_spec("torch") is None:
        return Finding("GPU", "lacking", f"{named}; torch is not installed", "pip install '.[local]'")
    import torch

    if not torch.cuda.is_available():
        built = torch.version.cuda or "no CUDA at all"
        return Finding(
            "GPU",
            "problem",
            f"{named}; torch {torch.__version__} (built for {built}) does not see it",
            "install the torch build that fits the driver (nvidia-smi names its CUDA version), or check "
            "CUDA_VISIBLE_DEVICES",
        )
    return Finding("GPU", "ok", f"{named}; torch {torch.__version__}")


def _faiss() -> Finding:
    cpu, gpu = _installed("faiss-cpu"), _installed("faiss-gpu")
    if cpu and gpu:
        return Finding(
            "FAISS",
            "problem",
            f"faiss-cpu {cpu} and faiss-gpu {gpu} are both installed and overwrite each other",
            "pip uninstall faiss-cpu faiss-gpu, then install one of them",
        )
    if not (cpu or gpu):
        return Finding(
            "FAISS",
            "lacking",
            "not installed: exact search only, no HNSW, IVF or int8",
            "pip install '.[cpu]', or '.[gpu]' where there is an NVIDIA GPU",
        )
    from toolkit.search.faiss.factory import load_faiss

    built = " ".join(load_faiss().get_compile_options().split())
    name = f"faiss-cpu {cpu}" if cpu else f"faiss-gpu {gpu}"
    if cpu and hardware()["gpus"]:
        return Finding(
            "FAISS",
            "lacking",
            f"{name} ({built}): indexes are built and searched on the CPU though there is a GPU",
            "pip uninstall faiss-cpu, then pip install '.[gpu]'",
        )
    return Finding("FAISS", "ok", f"{name} ({built})")


def _extras() -> Iterator[Finding]:
    try:
        stated = distribution(DISTRIBUTION)
    except PackageNotFoundError:
        yield Finding(
            "extras", "lacking", "the package runs from a folder and was never installed", "pip install -e ."
        )
        return
    required = [Requirement(line) for line in stated.requires or ()]
    for extra in sorted(set(stated.metadata.get_all("Provides-Extra") or ()) - _NOT_ASKED):
        wanted = [one for one in required if one.marker and one.marker.evaluate({"extra": extra})]
        always = {one.name for one in required if not one.marker or one.marker.evaluate({"extra": ""})}
        yield _extra(extra, [one for one in wanted if one.name not in always])


def _extra(extra: str, wanted: Sequence[Requirement]) -> Finding:
    subject = f"extra {extra}"
    purpose = f" ({_PURPOSES[extra]})" if extra in _PURPOSES else ""
    found = {one.name: _installed(one.name) for one in wanted}
    missing = [name for name, number in found.items() if number is None]
    if missing:
        return Finding(
            subject, "lacking", f"lacks {', '.join(missing)}{purpose}", f"pip install '.[{extra}]'"
        )
    outside = [one for one in wanted if not one.specifier.contains(found[one.name], prereleases=True)]
    if outside:
        named = ", ".join(f"{one.name} {found[one.name]} (needs {one.specifier})" for one in outside)
        return Finding(subject, "problem", f"{named}{purpose}", f"pip install '.[{extra}]'")
    return Finding(subject, "ok", ", ".join(f"{name} {number}" for name, number in found.items()) + purpose)


def _model_hub() -> Finding:
    local = "a model's folder needs no hub: local:/path/to/model"
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return Finding(
            "model hub",
            "lacking",
            "HF_HUB_OFFLINE is set: only models that are in the hub's cache can be opened",
            f"unset HF_HUB_OFFLINE to download; {local}",
        )
    place = os.environ.get("HF_ENDPOINT", _HUB).rstrip("/")
    if not place.startswith(("http://", "https://")):
        return Finding("model hub", "problem", f"HF_ENDPOINT {place!r} is not a URL", "unset HF_ENDPOINT")
    try:
        with urlopen(Request(place, method="HEAD"), timeout=_HUB_WAIT_S):  # noqa: S310 - the scheme is checked
            pass
    except HTTPError as error:  # it answers, if only to say no
        return Finding("model hub", "ok", f"{place} answers (HTTP {error.code})")
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        return Finding(
            "model hub",
            "lacking",
            f"{place} cannot be reached ({reason})",
            f"check the network, or HF_ENDPOINT for a mirror; {local}",
        )
    return Finding("model hub", "ok", f"{place} answers")


def _vector_cache() -> Finding:
    folder = cache_folder()
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        return Finding(
            "vector cache",
            "problem",
            f"{folder} cannot be written",
            "name a folder that can with the environment variable TOOLKIT_CACHE",
        )
    spaces = cached_spaces(folder)
    total = sum(space.size_bytes for space in spaces)
    return Finding(
        "vector cache",
        "ok",
        f"{folder}: {sum(space.vectors for space in spaces):,} vectors of {len(spaces)} models, {total / 1e9:.2f} GB",
    )


def _disk() -> Finding:
    folder = cache_folder()
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    found = f"{free / 1e9:,.1f} GB free where the vector cache is"
    if free < _LITTLE_DISK_BYTES:
        return Finding(
            "disk",
            "problem",
            found,
            "toolkit cache ls, toolkit cache clear, or TOOLKIT_CACHE on another disk",
        )
    return Finding("disk", "ok", found)


def _threads() -> Finding:
    cores, quota = usable_cores(), _quota()
    asked = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(asked) if asked.isdecimal() and int(asked) else cores
    memory = hardware()["memory_gib"]
    found = f"{cores} cores, {memory} GiB of memory, OMP_NUM_THREADS {asked or 'not set'}"
    allowed = min(cores, max(1, round(quota))) if quota else cores
    if quota and quota < cores:
        found += f"; this container may use {quota:g} cores"
    if threads > allowed:
        return Finding(
            "threads",
            "problem",
            f"{found}: {threads} threads would share {allowed} cores, and timings would be of their waiting",
            f"export OMP_NUM_THREADS={allowed}",
        )
    busy = load_average() or 0.0
    if busy > max(1.0, _BUSY_SHARE * cores):
        return Finding(
            "threads",
            "lacking",
            f"{found}; {busy:.1f} processes ran or waited over the last minute",
            "stop other work before anything is timed",
        )
    return Finding("threads", "ok", found)


def _quota() -> float | None:
    """Cores that the container's processor quota is worth; None without one."""
    try:
        most, _, period = _CGROUP_QUOTA.read_text(encoding="ascii").partition(" ")
    except OSError:
        return None
    return int(most) / int(period) if most.isdecimal() and period.strip().isdecimal() else None


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
