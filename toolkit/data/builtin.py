"""The built-in retrieval set: find the API that a summary line describes. Needs no download.

Its texts are the docstrings of the scientific packages that are installed anyway: the first paragraph
is the query, the rest is the one document that answers it. Source files are parsed, never imported.
Other package versions have other docstrings, so the set carries the versions and a content hash.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from toolkit.data.sets import RetrievalSet
from toolkit.errors import DataError
from toolkit.files import cache_folder, parse_json, write_atomically

# Import name and distribution; those that come with an extra only add to the set where they are installed.
PACKAGES = {
    "matplotlib": "matplotlib",
    "networkx": "networkx",
    "numpy": "numpy",
    "pandas": "pandas",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "torch": "torch",
}
_QUERY_WORDS = range(5, 41)
_MIN_BODY_CHARACTERS = 200
# Tests and vendored copies document other people's code, or nothing.
_SKIPPED_FOLDERS = frozenset({"_vendor", "externals", "test", "testing", "tests", "vendor"})


def load_builtin() -> RetrievalSet:
    """Read, or build and keep, the set for the installed package versions."""
    versions = _versions()
    recipe = json.dumps([versions, _QUERY_WORDS.start, _QUERY_WORDS.stop, _MIN_BODY_CHARACTERS, 1])
    kept = cache_folder() / f"builtin-{hashlib.blake2b(recipe.encode(), digest_size=8).hexdigest()}.json"
    try:
        entries = parse_json(kept.read_bytes())
    except (OSError, ValueError):
        entries = _collect()
        _keep(kept, entries)
    if not entries:
        raise DataError(
            "the built-in set is empty: the installed packages carry no docstrings; reinstall them"
        )
    ids, queries, docs = (list(column) for column in zip(*entries, strict=True))
    return RetrievalSet("builtin", ids, docs, ids, queries, {i: {i: 1} for i in ids})


def _versions() -> dict[str, str]:
    found = {}
    for name, distribution in PACKAGES.items():
        try:
            found[name] = version(distribution).partition("+")[0]
        except PackageNotFoundError:
            continue  # its extra is not installed
    return found


def _keep(path: Path, entries: list[tuple[str, str, str]]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(entries).encode())
    except OSError:
        return  # a read-only home only costs parsing again


def _collect() -> list[tuple[str, str, str]]:
    """(id, query, document) of every docstring that passes the filters, in a stable order."""
    entries, queries, bodies, ids = [], set(), set(), set()
    for package in _versions():
        for name, docstring in _docstrings(package):
            head, _, body = docstring.partition("\n\n")
            query, body = " ".join(head.split()), body.strip()
            if len(query.split()) not in _QUERY_WORDS or len(body) < _MIN_BODY_CHARACTERS:
                continue
            if query in queries or body in bodies or name in ids:
                continue
            queries.add(query)
            bodies.add(body)
            ids.add(name)
            entries.append((name, query, body))
    return entries


def _docstrings(package: str) -> Iterator[tuple[str, str]]:
    """Yield (dotted name, docstring) of the public functions and classes in a package's source files."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"the built-in set needs the package {package!r}; install it with: pip install {package}"
        )
    root = Path(next(iter(spec.submodule_search_locations)))
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root.parent).with_suffix("")
        if _SKIPPED_FOLDERS.isdisjoint(relative.parts):
            yield from _documented(ast.parse(path.read_bytes()), ".".join(relative.parts))


def _documented(node: ast.AST, prefix: str) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if child.name.startswith("_"):
                continue
            name = f"{prefix}.{child.name}"
            docstring = ast.get_docstring(child)
            if docstring:
                yield name, docstring
            if isinstance(child, ast.ClassDef):
                yield from _documented(child, name)
        elif isinstance(child, ast.If | ast.Try):
            yield from _documented(child, prefix)
