"""Whether the Triton that is installed is one that the attention of long texts is written for.

Knows no device; `wing.py` does.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

# Versions of Triton whose experimental part, Gluon, the kernel is written for.
_GLUON_VERSIONS = ("3.6.", "3.7.")


@cache
def attention_refusal() -> str | None:
    """Why the attention of long texts is not offered with the Triton that is installed; None if it is."""
    try:
        installed = version("triton")
    except PackageNotFoundError:
        return "triton is not installed"
    if not installed.startswith(_GLUON_VERSIONS):
        return f"triton {installed} is not one of {', '.join(f'{start}x' for start in _GLUON_VERSIONS)}"
    return None
