"""The core alone in a fresh environment: seconds to install, megabytes on disk, and the demo sweep in it.

    python benchmarks/core_install.py --save

Makes a virtual environment in a temporary folder, installs this checkout without any extra (pip's cache as it
stands), and runs ``toolkit sweep`` of the embedded model on the built-in set there: no torch, no FAISS, no
mteb. Fails if one of them got in, or if the sweep does not finish.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _record import ROOT, record

_NOT_IN_THE_CORE = ("torch", "faiss", "mteb", "openai", "jupyterlab")
_PROBE = (
    f"from importlib.util import find_spec; print(*[name for name in {_NOT_IN_THE_CORE} if find_spec(name)])"
)


def main() -> None:
    """Install, sweep, state seconds and megabytes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=sys.executable, help="interpreter of the environment")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        venv, results = Path(folder) / "venv", Path(folder) / "results"
        bin_folder = venv / "bin"
        _run(options.python, "-m", "venv", str(venv))
        empty = _megabytes(venv)
        install_s = _run(
            str(bin_folder / "pip"), "install", "--quiet", "-c", str(ROOT / "constraints.txt"), str(ROOT)
        )
        found = subprocess.run(
            [bin_folder / "python", "-c", _PROBE], check=True, capture_output=True, text=True
        ).stdout.split()
        if found:
            raise SystemExit(f"the core brought {', '.join(found)} with it")
        sweep = ["sweep", "--embedder", "static", "--data", "builtin", "--out", str(results)]
        sweep_s = _run(str(bin_folder / "toolkit"), *sweep, cache=Path(folder) / "cache")
        packages = subprocess.run(
            [bin_folder / "pip", "list", "--format=freeze"], check=True, capture_output=True, text=True
        ).stdout.splitlines()
        figures = {
            "install_s": round(install_s, 1),
            "installed_mb": round(_megabytes(venv) - empty, 1),
            "packages": len(packages),
            "sweep_s": round(sweep_s, 1),
            "report_bytes": (results / "report.html").stat().st_size,
        }
    record("core_install", figures, options.save)


def _run(*command: str, cache: Path | None = None) -> float:
    """Run a command outside the checkout, so that only what is installed is imported; returns seconds."""
    kept = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    begin = time.perf_counter()
    subprocess.run(
        command,
        check=True,
        cwd=tempfile.gettempdir(),
        env=kept | ({"TOOLKIT_CACHE": str(cache)} if cache else {}),
    )
    return time.perf_counter() - begin


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


if __name__ == "__main__":
    main()
