"""Judging in the terminal and in a notebook: keys in, answers kept, nothing shown that tells a setting."""

import fcntl
import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import textwrap
import time
from pathlib import Path

import pytest
from rich.console import Console
from test_judge import FOUND, TEXTS, a_session, some_qrels

from toolkit.cli.judging import judge_in_terminal
from toolkit.judge.journal import JOURNAL, Journal
from toolkit.judge.session import Session
from toolkit.judge.texts import shown


def judged_with(session, keys, monkeypatch):
    """The session after these lines came in, and what was printed."""
    monkeypatch.setattr("sys.stdin", io.StringIO(keys))
    out = io.StringIO()
    judge_in_terminal(session, console=Console(file=out, width=100, highlight=False))
    return out.getvalue()


def test_lines_from_a_pipe_are_keys(tmp_path, monkeypatch):
    session = a_session(tmp_path)
    first = session.question
    printed = judged_with(session, "3\n0 1\n\n?\nq\n2\n", monkeypatch)
    assert [one.gain for one in session.journal.answers] == [3, 0, 1, 0]
    assert [one.note for one in session.journal.answers] == ["", "", "", "unsure"]
    assert first.query in printed
    assert first.document in printed
    assert f"query 1 of {session.queries_to_judge}" in printed
    assert session.question.left == first.left - 4


def test_what_is_printed_tells_no_setting(tmp_path, monkeypatch):
    session = a_session(tmp_path)
    printed = judged_with(session, "1\n" * 10_000, monkeypatch)
    assert session.question is None
    for word in (*FOUND, "ndcg", "score", "rank", "setting"):
        assert not re.search(rf"\b{word}\b", printed), word


def test_undo_and_a_wrong_key(tmp_path, monkeypatch):
    session = a_session(tmp_path)
    first = session.question
    printed = judged_with(session, "u2u7\n", monkeypatch)
    assert "nothing to take back" in printed
    assert "'7' is not one of 0 1 2 3 ? u m q" in printed
    assert session.question == first
    assert [one.gain for one in session.journal.answers] == [2, None]


def test_long_texts_are_shown_whole_on_demand(tmp_path, monkeypatch):
    design = a_session(tmp_path).design
    texts = TEXTS | {"documents": dict.fromkeys(TEXTS["documents"], "word " * 500 + "the end")}
    session = Session(design, Journal(tmp_path / JOURNAL), most=6, **texts)
    assert "the end" not in judged_with(session, "q\n", monkeypatch)
    printed = judged_with(session, "mq\n", monkeypatch)
    assert "1,007 characters more: m" in printed
    assert "the end" in printed


def test_foreign_texts_cannot_steer_the_terminal(tmp_path, monkeypatch):
    nasty = "\x1b]0;owned\x07 [bold red]x[/] \u202egnp.exe \ud800 a\u200db"
    design = a_session(tmp_path).design
    texts = TEXTS | {"documents": dict.fromkeys(TEXTS["documents"], nasty)}
    session = Session(design, Journal(tmp_path / JOURNAL), most=6, **texts)
    printed = judged_with(session, "q\n", monkeypatch)
    assert "[bold red]x[/]" in printed
    assert "a\u200db" in printed
    for letter in "\x1b\x07\u202e\ud800":
        assert letter not in printed
    assert shown("a\r\nb\tc") == "a\nb\tc"


@pytest.fixture
def view(tmp_path):
    widgets = pytest.importorskip("ipywidgets")
    from toolkit.notebook.judging import JudgeView

    yield JudgeView(a_session(tmp_path))
    widgets.Widget.close_all()


def test_a_press_is_kept_before_the_next_document_shows(view, tmp_path):
    first = view.session.question
    assert first.query in view._query.value
    view._gains[2].click()
    assert Journal(tmp_path / JOURNAL).gains == {first.query_id: {first.doc_id: 2}}
    assert view.session.question.document in view._document.value
    view._undo.click()
    assert first.document in view._document.value
    assert Journal(tmp_path / JOURNAL).gains == {}
    view._unsure.click()
    assert Journal(tmp_path / JOURNAL).answers[-1].note == "unsure"


def test_keys_typed_into_the_field_are_presses_once_each(view, tmp_path):
    for value in ("3", "30 1", "30 1u", "30 1", "30 12"):  # two at once, an undo, a backspace
        view._keys.value = value
    assert [one.gain for one in Journal(tmp_path / JOURNAL).answers] == [3, 0, 1, None, 2]
    view._keys.value = ""
    view._keys.value = "x"
    assert "'x' is not one of 0 1 2 3 ? u" in view._said.value.replace("&#x27;", "'")


def test_the_widget_ends_when_all_is_judged_and_can_still_undo(view):
    qrels = some_qrels()
    while (question := view.session.question) is not None:
        view.press(str(qrels.get(question.query_id, {}).get(question.doc_id, 0)))
    assert "are judged" in view._place.value
    assert view._gains[0].disabled
    view._gains[0].click()
    view._undo.click()
    assert view.session.question is not None
    assert not view._gains[0].disabled


def test_texts_cannot_put_markup_into_the_notebook(tmp_path):
    pytest.importorskip("ipywidgets")
    from toolkit.notebook.judging import JudgeView

    design = a_session(tmp_path).design
    texts = {kind: dict.fromkeys(of, "<img src=x onerror=alert(1)>") for kind, of in TEXTS.items()}
    shown_view = JudgeView(Session(design, Journal(tmp_path / JOURNAL), most=6, **texts))
    assert "<img" not in shown_view._query.value + shown_view._document.value
    shown_view.close()


def test_an_answer_that_cannot_be_written_is_said_and_asked_again(view, tmp_path):
    first = view.session.question
    (tmp_path / JOURNAL).mkdir()
    view.press("1")
    assert "cannot be written" in view._said.value
    assert view.session.question == first


def test_keys_of_a_real_terminal_need_no_return_and_an_interrupt_loses_nothing(tmp_path):
    first = a_session(tmp_path).question
    program = textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_judge import a_session
        from toolkit.cli.judging import judge_in_terminal
        judge_in_terminal(a_session({str(tmp_path)!r}))
    """)
    ours, theirs = pty.openpty()
    run = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=at_the_terminal,
    )
    os.close(theirs)
    written = wait_for(ours, first.document)
    os.write(ours, b"2")
    wait_for(ours, f"{first.left - 1} documents left")
    os.write(ours, b"\x1b[A")  # an arrow key
    wait_for(ours, "is not one of")
    os.write(ours, b"0")
    wait_for(ours, f"{first.left - 2} documents left")
    os.write(ours, b"\x03")
    assert run.wait(timeout=20) != 0
    assert "KeyboardInterrupt" in run.stderr.read().decode()
    os.close(ours)
    assert first.query in written
    assert [one.gain for one in Journal(tmp_path / JOURNAL).answers] == [2, 0]


def at_the_terminal():
    """Makes standard input the terminal whose keys, Ctrl-C too, reach this process."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def wait_for(terminal, words, *, seconds=20):
    """What comes from a terminal up to some words."""
    read, end = "", time.monotonic() + seconds
    while words not in read:
        assert select.select([terminal], [], [], max(0.0, end - time.monotonic()))[0], (
            f"{words!r} not in {read!r}"
        )
        read += os.read(terminal, 4096).decode(errors="replace")
    return read
