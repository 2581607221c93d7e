"""A session of judging as a notebook widget: buttons, or keys typed into its field. Keeps nothing itself.

Every press is the session's before the next document is shown, so a kernel that dies loses nothing.
"""

from __future__ import annotations

from functools import partial
from html import escape

import ipywidgets

from toolkit.errors import ToolkitError
from toolkit.judge.session import Question, Session
from toolkit.judge.texts import GAINS, shown

_UNSURE, _UNDO = "?", "u"
# The document's box keeps its height, so that the buttons stay where they are.
_TEXT = (
    '<div style="white-space: pre-wrap; overflow-wrap: anywhere; {height}; overflow-y: auto; '
    'border: 1px solid #8888; padding: 0.5em 0.8em; line-height: 1.45">{text}</div>'
)


class JudgeView(ipywidgets.VBox):
    """The document to judge, and what to press; see `ResultsView.judge`.

    session : the session behind it.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._question: Question | None = None
        self._place = ipywidgets.HTML()
        self._query = ipywidgets.HTML()
        self._document = ipywidgets.HTML()
        self._said = ipywidgets.HTML()
        self._gains = [
            self._button(f"{gain} · {meaning}", partial(self._answer, gain))
            for gain, meaning in GAINS[session.design.most_gain].items()
        ]
        self._unsure = self._button("? · cannot say (counts as 0)", partial(self._answer, 0, unsure=True))
        self._undo = self._button("u · undo", self._take_back)
        last = session.design.most_gain
        self._keys = ipywidgets.Text(
            placeholder=f"click here and type 0..{last}, ? or u", layout=ipywidgets.Layout(width="20em")
        )
        self._keys.observe(self._typed, names="value")
        super().__init__(
            [
                self._place,
                self._query,
                self._document,
                ipywidgets.VBox([*self._gains, self._unsure]),
                ipywidgets.HBox([self._keys, self._undo]),
                self._said,
            ]
        )
        self.add_class("toolkit-judge")
        self._show()

    def press(self, key: str) -> None:
        """What a key does: a gain, ``?`` or ``u``; any other is answered with what there is."""
        gains = [str(gain) for gain in range(self.session.design.most_gain + 1)]
        if key in gains:
            self._answer(int(key))
        elif key == _UNSURE:
            self._answer(0, unsure=True)
        elif key == _UNDO:
            self._take_back()
        else:
            self._say(f"{shown(key)!r} is not one of {' '.join([*gains, _UNSURE, _UNDO])}")

    def _button(self, label: str, press: partial[None]) -> ipywidgets.Button:
        button = ipywidgets.Button(description=label, layout=ipywidgets.Layout(width="24em"))
        button.on_click(lambda _: press())
        return button

    def _typed(self, change: dict[str, str]) -> None:
        """Act on what was added at the end of the field.

        It is never cleared from here: a key pressed meanwhile would come back with the ones before it, as a second
        answer to each.
        """
        old, new = change["old"], change["new"]
        if new.startswith(old):
            for key in "".join(new[len(old) :].split()):
                self.press(key)

    def _answer(self, gain: int, *, unsure: bool = False) -> None:
        if self._question is None:
            return
        try:
            kept = self.session.answer(self._question, gain, unsure=unsure)
        except ToolkitError as error:
            self._say(str(error))
            return
        self._show()
        if not kept:
            self._say("another session judged here meanwhile; going on from where it is")

    def _take_back(self) -> None:
        try:
            taken = self.session.undo()
        except ToolkitError as error:
            self._say(str(error))
            return
        self._show()
        if not taken:
            self._say("nothing to take back")

    def _show(self) -> None:
        self._question = question = self.session.question
        self._say("")
        for button in (*self._gains, self._unsure):
            button.disabled = question is None
        if question is None:
            self._place.value = f"<b>All {self.session.queries_to_judge} queries are judged.</b>"
            self._query.value = self._document.value = ""
            return
        left = f"{question.left} document{'s' if question.left > 1 else ''} left"
        self._place.value = (
            f"<b>Query {question.number} of {question.of}</b> · {left}. "
            "How well does the document answer the query?"
        )
        self._query.value = _TEXT.format(
            height="max-height: 8em", text=f"<b>{escape(shown(question.query))}</b>"
        )
        self._document.value = _TEXT.format(
            height="height: 16em", text=escape(shown(question.document)) or "(empty text)"
        )

    def _say(self, sentence: str) -> None:
        self._said.value = escape(sentence)
