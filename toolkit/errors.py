"""Every error and warning the package raises on purpose.

    ToolkitError                 anything below; the command line prints it and exits with 2
    ├── PlanError                a plan, spec or argument that cannot work
    │   └── DimensionError       a dimension outside the model's range
    ├── DataError                an evaluation set that cannot be read or contradicts itself
    ├── ModelError               a model that cannot be loaded or would give wrong vectors
    ├── ServerError              a remote server that is unreachable or misbehaves
    │   └── ServerChangedError   a server whose model was exchanged while it was in use
    ├── DeviceError              a process that computes on a device has ended, or its device is not there
    ├── QueueFullError           an engine has all the requests it takes, and the caller would not wait
    ├── EngineClosedError        an engine that was closed, or that belongs to the process this is a fork of
    ├── VectorError              numbers that are no embedding: NaN, infinite, wrong shape
    ├── ResultsError             a results folder that cannot be written, read or resumed
    └── MissingPackageError      an optional package is not installed; the message says which extra has it

    ToolkitWarning               something works, but not as one may think
    ├── DimensionWarning         a dimension the model was not trained for
    ├── ModelWarning             a model used otherwise than its makers do, or in a slow way
    ├── InstructionWarning       an instruction for a model without an instruction template
    ├── ServerWarning            a server that is used otherwise than it was meant to be
    └── CacheWarning             a damaged cache shard was dropped and will be recomputed

    Interrupted                  a KeyboardInterrupt that says what was kept and how to go on

A message is one line that gives the value, what is allowed and the fix, in Python's words (``out=``,
``resume=True``); the command line says them as its options. A notebook shows the message and the caller's line:
what lies between them is this package's, and is shown where TOOLKIT_TRACEBACK=full is set in the environment.
"""

from __future__ import annotations

import linecache
import os
import traceback
from importlib.util import find_spec
from pathlib import Path

_PACKAGE = str(Path(__file__).parent)


class _ShortInNotebooks(BaseException):
    """An exception that IPython shows in a few lines."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of its own traceback."""
        if os.environ.get("TOOLKIT_TRACEBACK") == "full":
            return traceback.format_exception(self)
        return [f"{type(self).__name__}: {self}", *_callers_line(self)]


def _callers_line(error: BaseException) -> list[str]:
    """Where this package was called, if that was in a cell or a file: the last frame before its own."""
    before = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename.startswith(_PACKAGE):
            break
        before = frame, line
    if before is None:
        return []
    frame, line = before
    name = frame.f_code.co_filename
    text = linecache.getline(name, line, frame.f_globals).strip()
    is_cell = "ipykernel" in name or name.startswith("<")
    place = f"line {line}" if is_cell else f"{name}, line {line}"
    return [f"  {place}: {text}" if text else f"  {place}"]


class ToolkitError(_ShortInNotebooks, Exception):
    """Base of all errors raised on purpose by this package."""


class Interrupted(_ShortInNotebooks, KeyboardInterrupt):
    """A KeyboardInterrupt of work that can be continued; the message says how."""


class PlanError(ToolkitError, ValueError):
    """A plan, spec or argument that cannot work."""


class DimensionError(PlanError):
    """A dimension outside the model's range."""


class DataError(ToolkitError, ValueError):
    """An evaluation set that cannot be read or contradicts itself."""


class ModelError(ToolkitError):
    """A model that cannot be loaded, or that would give wrong vectors."""


class ServerError(ToolkitError):
    """A remote embedding server that is unreachable or misbehaves."""


class ServerChangedError(ServerError):
    """A server whose model was exchanged while it was in use."""


class DeviceError(ToolkitError):
    """A process that computes on one of several devices has ended, or its device is not there."""


class QueueFullError(ToolkitError):
    """An engine has all the requests it takes, and the caller would not wait."""


class EngineClosedError(ToolkitError):
    """An engine that was closed, or that belongs to the process this one is a fork of."""


class VectorError(ToolkitError, ValueError):
    """Numbers that are no embedding: NaN, infinite or of the wrong shape."""


class ResultsError(ToolkitError):
    """A results folder that cannot be written, read or resumed."""


class MissingPackageError(ToolkitError, ImportError):
    """An optional package is not installed."""

    def __init__(self, package: str, *, needed_for: str, extra: str) -> None:
        super().__init__(
            f"{needed_for} needs the package {package!r}, which is not installed; "
            f"install it with: pip install 'embedding-toolkit[{extra}]'"
        )


def require_package(package: str, *, needed_for: str, extra: str) -> None:
    """Raise MissingPackageError, naming the extra that has it, unless `package` can be imported."""
    if find_spec(package) is None:
        raise MissingPackageError(package, needed_for=needed_for, extra=extra)


class ToolkitWarning(UserWarning):
    """Something works, but not as one may think."""


class DimensionWarning(ToolkitWarning):
    """A dimension that the model was not trained for."""


class ModelWarning(ToolkitWarning):
    """A model that is used otherwise than its makers do, or in a way that is slow on this machine."""


class InstructionWarning(ToolkitWarning):
    """An instruction for a model that has no instruction template."""


class ServerWarning(ToolkitWarning):
    """A server that is used otherwise than it was meant to be."""


class CacheWarning(ToolkitWarning):
    """A damaged cache shard was dropped and will be recomputed."""
