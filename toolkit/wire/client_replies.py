"""Answers of embedding servers as rows, with everything that is wrong with them. Knows no HTTP library.

An answer that cannot be used still tells all: a caller raises the first finding or shows every one.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolkit.files import parse_json
from toolkit.wire.client_shapes import OPENAI, Answered, Shape

_QUOTED_CHARS = 300


@dataclass(frozen=True)
class ReplyFinding:
    """One thing that is wrong with an answer.

    code : a word for programs: ``not_json``, ``no_embeddings``, ``count``, ``index``, ``encoding``, ``length``,
        ``not_finite``, ``order``, ``usage``.
    text : what it is and what to do, to follow the server's address.
    usable : whether the vectors can be used all the same.
    """

    code: str
    text: str
    usable: bool = False


@dataclass(frozen=True)
class Reply:
    """A checked answer.

    rows : (count, dim) float32 in the order of the request, as the server gave them; None if they cannot be used.
    encoding : ``base64`` or ``float``, as they came; None if nothing came.
    tokens : that the server counted; None if it does not say.
    """

    rows: np.ndarray | None
    findings: tuple[ReplyFinding, ...] = ()
    encoding: str | None = None
    tokens: int | None = None

    @property
    def reason(self) -> str | None:
        """Why there are no rows; None if there are."""
        return next((finding.text for finding in self.findings if not finding.usable), None)


def read_reply(body: bytes, *, count: int, shape: Shape = OPENAI) -> Reply:
    """What an answer with status 200 to `count` inputs holds."""
    try:
        payload = parse_json(body)
    except ValueError:
        start = " ".join(body[:80].decode("utf-8", "replace").split())
        text = f"answered with something that is not JSON ({start!r}); the address should end in /v1"
        return Reply(None, (ReplyFinding("not_json", text),))
    answered = shape.read(payload)
    if answered is None:
        # SGLang and proxies may put an error into an answer with status 200.
        return Reply(
            None, (ReplyFinding("no_embeddings", f"answered without embeddings: {error_text(body)}"),)
        )
    return _checked(answered, count)


def _checked(answered: Answered, count: int) -> Reply:
    findings = []
    if len(answered.values) != count:
        text = f"returned {len(answered.values)} vectors for {count} texts; its answers cannot be used"
        findings.append(ReplyFinding("count", text))
    places = list(range(count)) if answered.indexes is None else answered.indexes
    numbers = [index for index in places if type(index) is int]
    if len(answered.values) == count and sorted(numbers) != list(range(count)):
        findings.append(ReplyFinding("index", _wrong_numbers(places, count)))
    elif numbers != sorted(numbers):
        text = (
            "returns vectors in another order than it was asked; a client that ignores index mixes texts up"
        )
        findings.append(ReplyFinding("order", text, usable=True))
    tokens = answered.tokens
    if answered.indexes is not None and (type(tokens) is not int or tokens < 0):
        text = "does not count the tokens of a request (usage.prompt_tokens)"
        findings.append(ReplyFinding("usage", text, usable=True))
        tokens = None
    vectors, problems = _vectors(answered.values)
    findings += problems
    came_as = {"base64" if isinstance(value, str) else "float" for value in answered.values}
    encoding = came_as.pop() if len(came_as) == 1 else None
    lengths = sorted({len(vector) for vector in vectors})
    if vectors and (len(lengths) > 1 or lengths[0] == 0):
        text = f"returned vectors of lengths {lengths} in one answer; its answers cannot be used"
        findings.append(ReplyFinding("length", text))
    if any(not finding.usable for finding in findings):
        return Reply(None, tuple(findings), encoding, tokens)
    rows = np.empty((count, lengths[0] if lengths else 0), dtype=np.float32)
    rows[places] = vectors
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        text = (
            f"returned NaN or infinity for {int((~finite).sum())} of {count} texts; run the model in bfloat16 or "
            "float32 instead of float16"
        )
        return Reply(None, (*findings, ReplyFinding("not_finite", text)), encoding, tokens)
    return Reply(rows, tuple(findings), encoding, tokens)


def _wrong_numbers(places: Sequence[Any], count: int) -> str:
    if count == 1:
        return f"numbered the only vector {places[0]!r} instead of 0; update the server"
    return (
        f"numbered {count} vectors {places[:8]}..., so which text each belongs to is unknown; set batch_size=1 or "
        "update the server"
    )


def _vectors(values: Sequence[Any]) -> tuple[list[np.ndarray], list[ReplyFinding]]:
    vectors = []
    for value in values:
        try:
            vector = _vector(value)
        except (binascii.Error, ValueError, TypeError, OverflowError) as error:
            text = f"returned an embedding that is neither base64 nor numbers: {error}"
            return vectors, [ReplyFinding("encoding", text)]
        if vector.ndim != 1:
            text = (
                f"returned an embedding of shape {vector.shape} instead of a list of numbers; a server that returns "
                "one vector per token must be started with pooling"
            )
            return vectors, [ReplyFinding("length", text)]
        vectors.append(vector)
    return vectors, []


def _vector(value: Any) -> np.ndarray:  # noqa: ANN401 - JSON
    if isinstance(value, str):
        return np.frombuffer(base64.b64decode(value, validate=True), dtype="<f4")
    # JSON has no NaN: some servers write null.
    return np.array([math.nan if number is None else number for number in value], dtype=np.float32)


def error_text(body: bytes) -> str:
    """The sentence inside an error body, one line: OpenAI and vLLM nest it, SGLang and TEI do not.

    Also FastAPI's ``detail`` and anything that is no JSON (a proxy's page).
    """
    try:
        said = parse_json(body)
    except ValueError:
        said = body.decode("utf-8", "replace")
    for key in ("error", "message", "detail"):
        if isinstance(said, Mapping) and said.get(key):
            said = said[key]
    if isinstance(said, Mapping):
        said = said.get("message") or json.dumps(said)
    elif isinstance(said, list):
        said = "; ".join(str(part.get("msg", part) if isinstance(part, Mapping) else part) for part in said)
    line = " ".join(str(said).split())
    return line[:_QUOTED_CHARS] or "no explanation"


def error_dialect(body: bytes) -> str | None:
    """In whose way an error is written: ``openai``, ``flat``, ``tei``, ``fastapi``; None for none of them."""
    try:
        said = parse_json(body)
    except ValueError:
        return None
    if not isinstance(said, Mapping):
        return None
    inner = said.get("error")
    if isinstance(inner, Mapping) and isinstance(inner.get("message"), str):
        return "openai"
    if "error_type" in said:
        return "tei"
    if isinstance(said.get("message"), str):
        return "flat"
    if isinstance(inner, str):
        return "flat"
    return "fastapi" if "detail" in said else None


def model_names(body: bytes) -> dict[str, str]:
    """Names that a list of models holds, each with the model behind it (its name again if it does not say).

    Empty for anything that is no such list.
    """
    try:
        entries = parse_json(body)["data"]
        return {entry["id"]: entry.get("root") or entry["id"] for entry in entries}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
