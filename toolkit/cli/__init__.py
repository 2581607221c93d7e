"""The command line: options in, one call, a few lines out. One file per group of commands; none holds logic.

What is shared: `options` says what arguments look like, `group` what happens when a command is stopped.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer

from toolkit import __version__
from toolkit.cli.bench import bench
from toolkit.cli.cache import cache
from toolkit.cli.check import check
from toolkit.cli.claims import claims
from toolkit.cli.doctor import doctor
from toolkit.cli.embed import embed
from toolkit.cli.examples import EXAMPLES, examples
from toolkit.cli.group import Stoppable
from toolkit.cli.judge import judge
from toolkit.cli.mteb import mteb
from toolkit.cli.plan import plan
from toolkit.cli.recommend import recommend
from toolkit.cli.report import report
from toolkit.cli.scale_test import scale_test
from toolkit.cli.serve import serve
from toolkit.cli.sweep import sweep
from toolkit.cli.words import as_options
from toolkit.errors import ToolkitError, ToolkitWarning

app = typer.Typer(
    cls=Stoppable,
    help="Measure which embedding dimension, precision, index and instruction your data needs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (sweep, recommend, scale_test, plan, report, judge, embed, mteb, claims, serve, check, doctor):
    app.command(epilog=examples(*EXAMPLES[command.__name__]))(command)
app.add_typer(bench, name="bench")
app.add_typer(cache, name="cache")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a toolkit error is one line on stderr and exit code 2.

    arguments : what follows the program's name; None takes them from the process.
    """
    with _warnings_of_one_line():
        try:
            app(args=arguments, prog_name="toolkit")
        except ToolkitError as error:
            print(f"error: {as_options(str(error))}", file=sys.stderr)
            sys.exit(2)


@contextmanager
def _warnings_of_one_line() -> Iterator[None]:
    plain = warnings.showwarning

    def show(message, category, *rest, **more) -> None:  # noqa: ANN001
        if issubclass(category, ToolkitWarning):
            print(f"warning: {as_options(str(message))}", file=sys.stderr)
        else:
            plain(message, category, *rest, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = plain


def _version(wanted: bool) -> None:
    if wanted:
        print(f"toolkit {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    pass
