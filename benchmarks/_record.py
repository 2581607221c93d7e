"""What every benchmark ends with: one JSON line, and with ``--save`` the same with its circumstances.

Knows nothing of what was measured.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = (
    "embedding-toolkit",
    "numpy",
    "scipy",
    "torch",
    "faiss-cpu",
    "faiss-gpu",
    "transformers",
    "sentence-transformers",
    "vllm",
    "ray",
)


def record(name: str, figures: Mapping[str, object], save: bool) -> None:
    """Print `figures` as one JSON line; with `save` write results/benchmarks/<name>.json too."""
    if save:
        path = ROOT / "results" / "benchmarks" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = dict(figures) | {
            "hardware": hardware(),
            "versions": versions(),
            "command": command(),
            "commit": _commit(),
            "date": datetime.now(UTC).date().isoformat(),
        }
        path.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps({"benchmark": name} | dict(figures), ensure_ascii=False), flush=True)


def hardware() -> dict[str, object]:
    """Processor, cores this process may use, memory, and the GPU where torch was loaded and sees one."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found: dict[str, object] = {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(memory, 1),
        "os": platform.platform(terse=True),
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
        found["gpus"] = torch.cuda.device_count()
    return found


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide speed, those that are installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def command() -> str:
    """The command line as one types it from the repository's root."""
    script = Path(sys.argv[0]).resolve()
    shown = script.relative_to(ROOT) if script.is_relative_to(ROOT) else Path(script.name)
    return shlex.join(["python", shown.as_posix(), *sys.argv[1:]])


def _cpu_name() -> str:
    listed = Path("/proc/cpuinfo")
    if listed.exists():
        for line in listed.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
