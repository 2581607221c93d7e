"""Puts the list of modules into the architecture page when the documentation is built, so that it is never stale."""

from __future__ import annotations

import ast
from pathlib import Path

_MARK = "<!-- modules -->"
_PACKAGE = Path(__file__).parents[2] / "toolkit"


def on_page_markdown(markdown: str, **_: object) -> str:
    """mkdocs calls this for every page."""
    return markdown.replace(_MARK, modules()) if _MARK in markdown else markdown


def modules() -> str:
    """Every folder and module with the first sentence of its docstring, as nested Markdown lists."""
    lines = []
    for path in sorted(_PACKAGE.rglob("*.py"), key=_folders_last):
        inside = path.relative_to(_PACKAGE)
        is_folder = path.name == "__init__.py"
        name = f"{inside.parent.as_posix()}/" if is_folder else path.name
        if inside.as_posix() == "__init__.py":
            continue
        depth = len(inside.parts) - 1 - is_folder
        lines.append(f"{'    ' * depth}- `{name}` {_first_line(path)}")
    return "\n".join(lines)


def _folders_last(path: Path) -> tuple[tuple[int, str], ...]:
    parts = path.relative_to(_PACKAGE).parts
    marks = [(1, part) for part in parts[:-1]]
    return (*marks, (0, "" if parts[-1] == "__init__.py" else parts[-1]))


def _first_line(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.partition("\n\n")[0].split()).replace("<", "&lt;")
