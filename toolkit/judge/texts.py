"""What a person reads while judging: what each gain means, and foreign texts that can do nothing but be read."""

from __future__ import annotations

import unicodedata

# By the largest gain asked for. Linear in nDCG, as trec_eval takes them; 1 and more are relevant to recall and MRR.
GAINS = {
    1: {0: "does not answer it", 1: "answers it, at least in part"},
    3: {
        0: "does not answer it",
        1: "says a little of the answer",
        2: "answers a good part of it",
        3: "answers it fully",
    },
}
# Direction marks that hold beyond their own word.
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def shown(text: str) -> str:
    """The text with a replacement character for each that would steer a terminal or turn a line's direction."""
    return "".join("\ufffd" if _steers(letter) else letter for letter in text.replace("\r\n", "\n"))


def _steers(letter: str) -> bool:
    return (unicodedata.category(letter) in ("Cc", "Cs") and letter not in "\n\t") or letter in _TURNING
