"""Every answer of a person, in one file that is only ever added to: on disk before the next question is asked.

    judgements.tsv    round, draw, query_id, doc_id, gain, note, time_utc, probability, judge

A later line on the same query and document replaces an earlier one; one without a gain takes it back. A line of
no query, with the note ``asked``, is no answer: its `draw` says how many draws a session set out to judge. A line that
a crash cut short is left out with a warning, and removed by the next answer. Knows no setting,
no metric.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from toolkit.errors import ResultsError, ToolkitWarning
from toolkit.experiment.lock import wait_for_lock

JOURNAL = "judgements.tsv"
TAKEN_BACK = "taken back"
UNSURE = "unsure"
ASKED = "asked"
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_LETTERS = {escape[1]: letter for letter, escape in _ESCAPES.items()}


@dataclass(frozen=True)
class Answer:
    """One line of the journal.

    round, draw : of the design; draws count from 0.
    gain : 0 is not relevant; None takes an earlier answer back.
    note : ``unsure`` for a document of which the judge could not tell (its gain is 0), ``taken back``, or empty.
    time_utc : ISO 8601.
    probability : of drawing this query.
    """

    round: int
    draw: int
    query_id: str
    doc_id: str
    gain: int | None
    note: str
    time_utc: str
    probability: float
    judge: str


_COLUMNS = [field.name for field in fields(Answer)]
_HEAD = "\t".join(_COLUMNS).encode() + b"\n"


class Journal:
    """The answers of one results folder.

    path : the file; it need not be there yet.
    answers : all of them in order, as they were when last read or added to.
    asked : of each round, how many draws were to be judged, the most of all its sessions; a round that an earlier
        version kept does not say.
    """

    def __init__(self, path: Path) -> None:
        """Read what is there, if anything; raises ResultsError for a damaged line that is not the last."""
        self.path = path
        self.answers: list[Answer] = []
        self.asked: dict[int, int] = {}
        self._seen_bytes = self._whole_bytes = 0
        try:
            self._take_in(path.read_bytes())
        except FileNotFoundError:
            return
        except OSError as error:
            raise ResultsError(f"{path} cannot be read ({error.strerror}); check its permissions") from error

    @property
    def gains(self) -> dict[str, dict[str, int]]:
        """What stands: query id -> document id -> gain."""
        found: dict[str, dict[str, int]] = {}
        for answer in standing(self.answers):
            found.setdefault(answer.query_id, {})[answer.doc_id] = answer.gain or 0
        return found

    def add(self, answer: Answer) -> bool:
        """Append an answer and wait until the disk has it.

        False if another session wrote here since: nothing is added then, and `answers` holds theirs too.
        Raises ResultsError if the file cannot be written.
        """
        with self._open() as file:
            if os.fstat(file).st_size != self._seen_bytes:
                self._take_in(_content(file))
                return False
            line = _line(answer) if self._whole_bytes else _HEAD + _line(answer)
            _append(file, line, at=self._whole_bytes)
            self._whole_bytes += len(line)
            self._seen_bytes = self._whole_bytes
            self._keep(answer)
            return True

    def _keep(self, line: Answer) -> None:
        if line.note == ASKED:
            self.asked[line.round] = max(line.draw, self.asked.get(line.round, 0))
        else:
            self.answers.append(line)

    @contextmanager
    def _open(self) -> Iterator[int]:
        """The file, while no other session adds to it."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                wait_for_lock(file)
                yield file
            finally:
                os.close(file)
        except OSError as error:
            raise ResultsError(
                f"{self.path} cannot be written ({error.strerror}), so this answer is not kept and all "
                "before it are; make room or mend its permissions, and start again"
            ) from error

    def _take_in(self, content: bytes) -> None:
        lines = content.split(b"\n")
        cut = lines.pop()  # empty where the last line is whole
        answers = []
        for number, line in enumerate(lines, start=1):
            try:
                if number > 1:
                    answers.append(_answer(line))
                elif line + b"\n" != _HEAD:
                    raise ValueError("it is not the head of a file of judgements")
            except ValueError as error:
                if 1 < number == len(lines):
                    cut = line + b"\n" + cut
                    break
                raise ResultsError(
                    f"{self.path}:{number} is damaged ({error}); mend this line or remove it: the others are whole"
                ) from error
        if cut:
            warnings.warn(
                f"{self.path}: the last line was cut short and does not count; that document is asked again",
                ToolkitWarning,
                stacklevel=3,
            )
        self.answers, self.asked = [], {}
        for answer in answers:
            self._keep(answer)
        self._seen_bytes = len(content)
        self._whole_bytes = len(content) - len(cut)


def standing(answers: Sequence[Answer]) -> list[Answer]:
    """Those that nothing later replaced or took back, in the order in which they were given."""
    found: dict[tuple[str, str], Answer] = {}
    for answer in answers:
        found.pop((answer.query_id, answer.doc_id), None)
        if answer.gain is not None:
            found[answer.query_id, answer.doc_id] = answer
    return list(found.values())


def _content(file: int) -> bytes:
    os.lseek(file, 0, os.SEEK_SET)
    return b"".join(iter(lambda: os.read(file, 2**20), b""))


def _append(file: int, payload: bytes, *, at: int) -> None:
    """All of it, behind the last whole line, or nothing if the disk is full."""
    os.ftruncate(file, at)
    os.lseek(file, at, os.SEEK_SET)
    try:
        while payload:
            payload = payload[os.write(file, payload) :]
        os.fsync(file)
    except OSError:
        os.ftruncate(file, at)
        raise


def _line(answer: Answer) -> bytes:
    cells = []
    for value in astuple(answer):
        text = (
            "" if value is None else str(value)
        )  # of a float, the shortest text that reads back as the same
        cells.append("".join(_ESCAPES.get(letter, letter) for letter in text))
    return ("\t".join(cells) + "\n").encode("utf-8", "surrogatepass")


def _answer(line: bytes) -> Answer:
    cells = [_unescaped(cell) for cell in line.decode("utf-8", "surrogatepass").split("\t")]
    if len(cells) != len(_COLUMNS):
        raise ValueError(f"{len(cells)} columns instead of {len(_COLUMNS)}")
    number, draw, query_id, doc_id, gain, note, time_utc, probability, judge = cells
    return Answer(
        int(number),
        int(draw),
        query_id,
        doc_id,
        int(gain) if gain else None,
        note,
        time_utc,
        float(probability),
        judge,
    )


def _unescaped(cell: str) -> str:
    letters = iter(cell)
    found = []
    for letter in letters:
        plain = letter if letter != "\\" else _LETTERS.get(next(letters, ""))
        if plain is None:
            raise ValueError("a backslash that escapes nothing")
        found.append(plain)
    return "".join(found)
