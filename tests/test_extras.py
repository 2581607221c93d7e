"""The core without its extras: what is missing says which extra has it, and nothing else needs it."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

RAISERS = {"MissingPackageError", "require_package"}
# Modules that only an extra brings, as find_spec and import see them.
OPTIONAL = ["torch", "transformers", "sentence_transformers", "faiss", "mteb", "datasets", "openai"]
OPTIONAL += ["jupyterlab", "ipywidgets", "IPython"]

BLOCKED = f"""
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder

class WithoutExtras(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {OPTIONAL!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

import importlib.util
plain = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: (
    None if name.partition(".")[0] in {OPTIONAL!r} else plain(name, package)
)
sys.meta_path.insert(0, WithoutExtras())
"""


def without_extras(code: str, *, cwd: Path) -> subprocess.CompletedProcess:
    """Run code where no extra's package can be imported."""
    return subprocess.run(
        [sys.executable, "-c", BLOCKED + code], cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("call", "package", "extra"),
    [
        ("toolkit.open_embedder('local:some/model')", "torch", "local"),
        ("toolkit.open_embedder('http://127.0.0.1:9/v1#m')", "openai", "remote"),
        ("toolkit.load_dataset('mteb:SciFact')", "mteb", "mteb"),
        ("import toolkit.mteb_adapter", "mteb", "mteb"),
    ],
)
def test_a_missing_package_names_the_extra_that_has_it(tmp_path, call, package, extra):
    done = without_extras(
        f"import toolkit\ntry:\n    {call}\nexcept toolkit.errors.MissingPackageError as e:\n    print(e)",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert f"needs the package {package!r}" in done.stdout
    assert f"pip install 'embedding-toolkit[{extra}]'" in done.stdout


def test_every_extra_that_a_message_names_exists():
    named = set()
    for path in (ROOT / "toolkit").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and ast.unparse(call.func) in RAISERS:
                extras = [word.value for word in call.keywords if word.arg == "extra"]
                named |= {extra.value for extra in extras if isinstance(extra, ast.Constant)}
    assert named <= set(PYPROJECT["project"]["optional-dependencies"])
    assert named >= {"local", "cpu", "mteb", "remote"}


def test_the_core_asks_for_no_heavy_package():
    names = {line.split(">")[0].split("=")[0] for line in PYPROJECT["project"]["dependencies"]}
    assert names.isdisjoint(
        {"torch", "transformers", "sentence-transformers", "faiss-cpu", "mteb", "openai", "jupyterlab"}
    )
