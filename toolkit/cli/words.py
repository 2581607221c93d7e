"""Messages say arguments as Python does; here they become the options of the command line."""

from __future__ import annotations

import ast
import re
import shlex

# Parameters whose option is repeated, and so named in the singular.
_SINGULAR = {
    "precisions": "precision",
    "indexes": "index",
    "instructions": "instruction",
    "metrics": "metric",
    "settings": "setting",
}
_CALL = re.compile(r"\btoolkit\.\w+\([^()]*\)")
_ARGUMENT = re.compile(r"(?<![\w.-])([a-z][a-z_]*)=(?:True\b|(?=[\s,;:)]|\.(?!\.)|$))")


def as_options(message: str) -> str:
    """The same message for a terminal.

    >>> as_options("choose another folder (out=), or replace it with overwrite=True")
    'choose another folder (--out), or replace it with --overwrite'
    >>> as_options("finish it with toolkit.sweep('a plan.toml', out='x', resume=True)")
    "finish it with toolkit sweep 'a plan.toml' --out x --resume"
    """
    called = _CALL.sub(lambda found: _command(found[0]), message)
    return _ARGUMENT.sub(lambda found: _option(found[1]), called)


def _command(call: str) -> str:
    """A call of a public function as the command it is; unchanged if it holds more than plain values."""
    try:
        node = ast.parse(call, mode="eval").body
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            return call
        words = ["toolkit", node.func.attr, *(str(ast.literal_eval(one)) for one in node.args)]
        for keyword in node.keywords:
            value = ast.literal_eval(keyword.value)
            words += [_option(keyword.arg or "")] + ([] if value is True else [str(value)])
    except (SyntaxError, ValueError):
        return call
    return shlex.join(words)


def _option(name: str) -> str:
    return f"--{_SINGULAR.get(name, name).replace('_', '-')}"
