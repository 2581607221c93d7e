"""A question before what takes long or cannot be undone: asked only where a person is there to answer."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

YES = Annotated[bool, typer.Option("--yes", "-y", help="do not ask")]


# Longer runs are asked about first.
LONG_S = 600.0


def go_on(what: str, seconds: float, *, yes: bool) -> None:
    """Say what is about to be done; where it may take over ten minutes and a person is there, ask, and leave on no."""
    print(what, flush=True)
    if seconds > LONG_S and not confirmed("this takes over ten minutes", yes=yes, unasked=True):
        raise typer.Exit(1)


def confirmed(what: str, *, yes: bool, unasked: bool) -> bool:
    """Whether to go on.

    what : completes "about to ..".
    unasked : the answer where nobody can be asked, because input or messages are not a terminal's.
    """
    if yes:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        if not unasked:
            print(f"not done, as nobody can be asked: {what}; give --yes", file=sys.stderr)
        return unasked
    return typer.confirm(f"{what}: go on?", default=unasked, err=True)
