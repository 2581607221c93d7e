"""What a stopped command says: one line with the command that goes on from there, and exit code 130.

It stands here and not around the program because typer turns an interrupt into an exit of its own before
anybody outside sees it. Knows nothing of what the commands do, only whether they keep what they computed.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

import typer
from typer.core import TyperGroup

from toolkit.redact import redacted_arguments

_TYPED = "toolkit.typed"
# Commands that keep vectors or results as they go; the others start again.
_KEEPING = ("sweep", "mteb", "embed", "judge")


class Stopped(KeyboardInterrupt):
    """An interrupt of a command that goes on without some of its options.

    without : options, without values, that must not be given again.
    """

    def __init__(self, *, without: Sequence[str]) -> None:
        super().__init__()
        self.without = tuple(without)


class Stoppable(TyperGroup):
    """The group of all commands: remembers what was typed, and says how to go on when it is interrupted."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        """As typer does, with the arguments kept."""
        ctx.meta[_TYPED] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: typer.Context) -> object:
        """Run the command; an interrupt is one line on stderr and exit code 130."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            without = stop.without if isinstance(stop, Stopped) else ()
            typed = [argument for argument in ctx.meta[_TYPED] if argument not in without]
            command = shlex.join(["toolkit", *redacted_arguments(typed)])
            kept = (
                "what was computed is kept; continue with"
                if ctx.invoked_subcommand in _KEEPING
                else "start again with"
            )
            print(f"interrupted; {kept}: {command}", file=sys.stderr)
            raise typer.Exit(130) from None
