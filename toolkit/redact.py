"""What looks like a key, a token or a password, taken out of a text before it is shown or written down."""

from __future__ import annotations

import re
from collections.abc import Sequence

_KEPT_BACK = r"[\w.-]*(?:api[-_]?keys?|token|secrets?|passw(?:or)?ds?|authorization|credentials?)"
_SECRET_OPTION = re.compile(rf"--?{_KEPT_BACK}", re.IGNORECASE)
_SECRETS = (
    (re.compile(r"(?<=://)[^/\s@]+@"), "***@"),
    (re.compile(rf"({_KEPT_BACK}\s*[=:]\s*['\"]?)(?:bearer\s+)?[^\s&'\",;]+", re.IGNORECASE), r"\1***"),
    (re.compile(r"([?&](?:key|sig|signature|auth)=)[^&\s]+", re.IGNORECASE), r"\1***"),
    (re.compile(r"(bearer\s+)\S+", re.IGNORECASE), r"\1***"),
    (re.compile(r"\b(?:sk-|glpat-|xox[bp]-|hf_|gh[opsu]_)[\w-]{16,}|\bAKIA[0-9A-Z]{16}\b"), "***"),
)


def redacted(text: str) -> str:
    """The text with ``***`` for every secret that it seems to hold."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def redacted_arguments(arguments: Sequence[str]) -> list[str]:
    """Command-line arguments likewise; also what follows an option such as ``--api-key``."""
    shown = []
    secret_follows = False
    for argument in arguments:
        shown.append("***" if secret_follows and not argument.startswith("-") else redacted(argument))
        secret_follows = _SECRET_OPTION.fullmatch(argument) is not None
    return shown
