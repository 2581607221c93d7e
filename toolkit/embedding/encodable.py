"""Texts that every tokenizer and every JSON body can hold."""

from __future__ import annotations

from collections.abc import Sequence


def encodable(texts: Sequence[str]) -> list[str]:
    """The texts with lone surrogates replaced by ``?``; all other texts are unchanged.

    Broken decoding (``errors="surrogateescape"``, half an emoji) leaves code points that UTF-8 has no
    bytes for; one such text must not stop a corpus.
    """
    return [text if _is_utf8(text) else text.encode("utf-8", "replace").decode() for text in texts]


def _is_utf8(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
