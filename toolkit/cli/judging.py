"""A session of judging in the terminal: texts shown, single keys read; from a pipe, keys line by line.

Says nothing of settings, and keeps nothing itself: every answer is the session's before the next is asked.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.panel import Panel
from rich.text import Text

from toolkit.judge.session import Question, Session
from toolkit.judge.texts import GAINS, shown

_END_OF_INPUT, _ESCAPE = "\x04", "\x1b"
UNSURE, UNDO, MORE, STOP = "?", "u", "m", "q"
# About a screen; the rest on demand.
_FIRST_CHARACTERS = 1_500
_FEWEST_HIDDEN = 300


def judge_in_terminal(session: Session, *, console: Console | None = None) -> None:
    """Ask until all is judged, the person stops or the input ends; an interrupt passes through, nothing is lost."""
    console = console or Console(highlight=False)
    most_gain = session.design.most_gain
    console.print(_rules(most_gain))
    with _keys() as keys:
        while (question := session.question) is not None:
            console.print(_card(question, whole=False))
            if not _answered(session, question, keys, console):
                return


def _answered(session: Session, question: Question, keys: Iterator[str], console: Console) -> bool:
    """Read keys until one moves the session; False to stop."""
    gains = [str(gain) for gain in range(session.design.most_gain + 1)]
    for key in keys:
        if key in gains or key == UNSURE:
            if not session.answer(question, 0 if key == UNSURE else int(key), unsure=key == UNSURE):
                console.print("another session judged here meanwhile; going on from where it is")
            return True
        if key == UNDO:
            if session.undo():
                return True
            console.print("nothing to take back")
        elif key == MORE:
            console.print(_card(question, whole=True))
        elif key == STOP:
            return False
        else:
            console.print(
                Text(f"{shown(key)!r} is not one of {' '.join([*gains, UNSURE, UNDO, MORE, STOP])}")
            )
    return False


@contextmanager
def _keys() -> Iterator[Iterator[str]]:
    """Keys as they are pressed; without a terminal, the letters of each line that comes in."""
    if not sys.stdin.isatty():
        yield (key for line in sys.stdin for key in "".join(line.split()))
        return
    import termios
    import tty

    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    # For the whole session and without dropping what is typed ahead: whoever reads fast types fast.
    tty.setcbreak(terminal, termios.TCSADRAIN)
    try:
        yield _pressed(terminal)
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _pressed(terminal: int) -> Iterator[str]:
    while (read := os.read(terminal, 64).decode(errors="replace")) not in ("", _END_OF_INPUT):
        if read.startswith(_ESCAPE):  # an arrow or function key comes as several letters
            yield read
        else:
            yield from read


def _rules(most_gain: int) -> Group:
    lines = [f"  {gain}  {meaning}" for gain, meaning in GAINS[most_gain].items()]
    return Group(
        Text("How well does the document answer the query?"),
        *map(Text, lines),
        Text(
            f"  {UNSURE}  cannot say (counts as 0)    {UNDO}  undo    {MORE}  whole text    {STOP}  stop; all is kept"
        ),
    )


def _card(question: Question, *, whole: bool) -> Group:
    text = shown(question.document)
    cut = not whole and len(text) >= _FIRST_CHARACTERS + _FEWEST_HIDDEN
    body = text[:_FIRST_CHARACTERS] if cut else text
    more = f"{len(text) - _FIRST_CHARACTERS:,} characters more: {MORE}" if cut else None
    left = f"{question.left} document{'s' if question.left > 1 else ''} left"
    return Group(
        Panel(Text(shown(question.query)), title=f"query {question.number} of {question.of} · {left}"),
        Panel(Text(body or "(empty text)"), title="document", subtitle=more),
    )
