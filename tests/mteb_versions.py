"""Run the tests of the mteb adapter against the oldest and the newest mteb that `pyproject.toml` allows.

    python tests/mteb_versions.py [oldest|newest]

Each version is unpacked beside the environment (no dependencies: those of the environment serve) and put
first on the import path. Ends with pytest's own closing line for each, and fails with the first that fails.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ["tests/test_mteb.py", "tests/test_mteb_qwen3.py"]


def main() -> int:
    """Install and test the versions asked for."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (requirement,) = extras["mteb"]
    oldest = re.fullmatch(r"mteb>=([\d.]+),<[\d.]+", requirement)
    if oldest is None:
        raise SystemExit(f"{requirement!r} in pyproject.toml is not a range mteb>=X,<Y")
    chosen = {"oldest": f"mteb=={oldest[1]}", "newest": requirement}
    for name in sys.argv[1:] or chosen:
        folder = Path(sys.prefix) / f"mteb-{name}"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--upgrade", "--target", folder, chosen[name]], check=True)
        where = os.pathsep.join([str(folder), str(ROOT)])
        found = subprocess.run(
            [sys.executable, "-c", "import mteb; print(mteb.__version__, mteb.__file__)"],
            env=os.environ | {"PYTHONPATH": where},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        if not found[1].startswith(str(folder)):
            raise SystemExit(f"mteb is imported from {found[1]}, not from {folder}")
        print(f"mteb {found[0]}, the {name} allowed", flush=True)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *TESTS], cwd=ROOT, env=os.environ | {"PYTHONPATH": where}
        )
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
