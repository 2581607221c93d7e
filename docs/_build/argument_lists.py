"""Shows the package's argument lines (``dim : 1..full dimension``) as a list in the documentation.

A griffe extension: `mkdocs.yml` names it. Changes the documentation's copy of the docstrings only.
"""

from __future__ import annotations

import re

import griffe

_ARGUMENT = re.compile(r"^(\*{0,2}\w+(?:, ?\w+)*) : ")


class ArgumentLists(griffe.Extension):
    """Turns each paragraph of ``name : meaning`` lines into a Markdown list."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Called by griffe for every module, class, function and attribute it has loaded."""
        if obj.docstring is not None:
            obj.docstring.value = as_lists(obj.docstring.value)


def as_lists(docstring: str) -> str:
    """The docstring with its argument lines as list items; everything else as it is."""
    lines: list[str] = []
    inside = False
    for line in docstring.splitlines():
        found = _ARGUMENT.match(line)
        if found:
            if not inside and lines and lines[-1]:
                lines.append("")
            inside = True
            line = f"- `{found[1]}`: {line[found.end() :]}"
        elif inside and line.strip():
            line = f"    {line.strip()}"
        else:
            inside = False
        lines.append(line)
    return "\n".join(lines)
