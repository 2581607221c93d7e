"""What a measurement was made on: hardware, threads, versions, commit and command."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from toolkit.space import EmbeddingSpace

_PACKAGES = (
    "embedding-toolkit",
    "faiss-cpu",
    "faiss-gpu",
    "mteb",
    "numpy",
    "openai",
    "pandas",
    "pytrec-eval-terrier",
    "scipy",
    "sentence-transformers",
    "tokenizers",
    "torch",
    "transformers",
    "wordllama",
)


def environment(space: EmbeddingSpace) -> dict[str, object]:
    """Hardware, thread limits, package versions, commit, command, UTC time and `space`, as plain values."""
    return {
        "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": _command(),
        "commit": _commit(),
        "hardware": hardware(),
        "threads": {
            name: os.environ[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name in os.environ
        },
        "versions": versions(),
        "space": asdict(space) | {"fingerprint": space.fingerprint},
    }


def hardware() -> dict[str, object]:
    """Processor, usable cores, memory in GiB, and the GPUs if torch is loaded and sees any."""
    import psutil

    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": _gpus(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Python and the packages that can change a figure, as installed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _gpus() -> list[str]:
    torch = sys.modules.get("torch")  # loading torch only to ask would cost seconds
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def _commit() -> str | None:
    """Commit of the checkout this package runs from, with ``+`` if files differ; None outside one."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)  # noqa: S603
        status = subprocess.run(  # noqa: S603
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if status.stdout.strip() else "")


def _command() -> str:
    program, *arguments = sys.orig_argv if not sys.argv[0] else sys.argv
    name = Path(program).name
    if name == "__main__.py":  # as ``python -m toolkit`` sets it
        return shlex.join(["python", "-m", Path(program).parent.name, *arguments])
    return shlex.join([name, *arguments])
