"""What is wrong with a request, finding by finding: the field, its value, what is allowed and the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Any

from toolkit.errors import ToolkitError

_SHOWN_CHARACTERS = 80
_SHOWN_FINDINGS = 20


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a request.

    param : the field, such as ``dimensions`` or ``input[3]``; None for the request as a whole.
    problem : what it is, with the value.
    allowed : the range or the choices.
    fix : what to do.
    """

    param: str | None
    problem: str
    allowed: str
    fix: str

    def __str__(self) -> str:
        return f"{self.problem} (allowed: {self.allowed}); {self.fix}"


class RequestError(ToolkitError):
    """A request that gets no vectors.

    status : of HTTP. code : a word for programs. retry_after_s : for a request that may be sent again.
    """

    def __init__(
        self,
        findings: Iterable[Finding],
        *,
        status: int = HTTPStatus.BAD_REQUEST,
        code: str = "invalid_value",
        retry_after_s: int | None = None,
    ) -> None:
        self.findings = tuple(findings)
        self.status = int(status)
        self.code = code
        self.retry_after_s = retry_after_s
        super().__init__(str(self))

    def __str__(self) -> str:
        more = len(self.findings) - 1
        return str(self.findings[0]) + (f" (and {more} more under findings)" if more else "")

    @property
    def kind(self) -> str:
        """OpenAI's ``type`` of the error."""
        if self.status == HTTPStatus.TOO_MANY_REQUESTS:
            return "rate_limit_error"
        if self.status == HTTPStatus.UNAUTHORIZED:
            return "authentication_error"
        return "invalid_request_error" if self.status < 500 else "server_error"

    @property
    def told(self) -> list[dict[str, str | None]]:
        """The findings in parts, for JSON; of very many, the first."""
        return [asdict(one) for one in self.findings[:_SHOWN_FINDINGS]]

    def body(self) -> dict[str, Any]:
        """As OpenAI writes errors; ``findings`` has each of them in parts."""
        return {
            "error": {
                "message": str(self),
                "type": self.kind,
                "param": self.findings[0].param,
                "code": self.code,
                "findings": self.told,
            }
        }


def shown(value: object) -> str:
    """A value as a message quotes it, short."""
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 2]}.."


def wrong(param: str, value: object, allowed: str, fix: str) -> Finding:
    """A field whose value cannot be used."""
    return Finding(param, f"{param} is {shown(value)}", allowed, fix)


def unknown(name: str, known: Iterable[str]) -> Finding:
    """A field that there is not: it would be dropped without a word."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    fix = f"did you mean {close[0]}?" if close else "leave it out"
    return Finding(name[:_SHOWN_CHARACTERS], f"field {shown(name)} is unknown", ", ".join(known), fix)
