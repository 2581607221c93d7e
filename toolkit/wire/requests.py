"""Request bodies of embedding endpoints as one typed request: what all APIs share, and OpenAI's.

Every finding is collected, so that a caller mends all at once. Hand-written checks over one fast JSON
parse: a validation library would take longer than a short text takes on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import islice
from typing import Any

from toolkit.wire.findings import Finding, RequestError, shown, unknown, wrong

TYPES = ("float", "float16", "int8", "uint8", "uint4", "binary", "ubinary")
MOST_DIMENSIONS = 64
# Of one kind: a hostile body could hold millions.
_MOST_FINDINGS = 20
_INPUT_FORMS = "a text, a list of texts, a list of token ids, or a list of lists of token ids"


@dataclass(frozen=True)
class Limits:
    """What a request may ask for.

    full_dim : the longest vector. inputs : texts in one request. vocabulary : token ids below it exist; None
        where the model takes none.
    answer_numbers : of all vectors in one answer.
    """

    full_dim: int
    inputs: int = 2_048
    vocabulary: int | None = None
    answer_numbers: int = 32_000_000


@dataclass(slots=True)
class EmbeddingRequest:
    """What a client asks for, whichever API it speaks.

    texts : to embed; empty where `token_ids` are given.
    dims : in the order asked for; None is the model's default.
    types : of numbers, of TYPES; None is the model's default.
    several : whether the client asked for dimensions or types as a list, and gets them all by name.
    base64 : whether vectors travel as base64 of their bytes instead of as numbers.
    role : ``query`` or ``document``; None is a query where there is an instruction, else a document.
    truncate : whether a text that is too long is cut; otherwise it is refused.
    """

    texts: list[str]
    model: str | None = None
    token_ids: list[list[int]] | None = None
    dims: tuple[int, ...] | None = None
    types: tuple[str, ...] | None = None
    several: bool = False
    base64: bool = False
    role: str | None = None
    instruction: str | None = None
    truncate: bool = False

    @property
    def side(self) -> str:
        """``query`` or ``document``."""
        return self.role or ("document" if self.instruction is None else "query")

    def __len__(self) -> int:
        return len(self.texts) if self.token_ids is None else len(self.token_ids)


def parse_json_object(body: bytes) -> dict[str, Any]:
    """The object in a body; raises RequestError for anything else."""
    import orjson

    try:
        values = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(
            [Finding(None, f"the body is not JSON: {error}", "a JSON object in UTF-8", "correct the body")],
            code="invalid_json",
        ) from None
    if type(values) is not dict:
        raise RequestError(
            [Finding(None, f"the body is {shown(values)}", "a JSON object", "write {..} with its fields")],
            code="invalid_json",
        )
    return values


def parse_openai(values: Mapping[str, Any], limits: Limits) -> EmbeddingRequest:
    """``POST /v1/embeddings``, with this server's own fields; raises RequestError with all findings."""
    reader = Reader(values, OPENAI_FIELDS)
    model = reader.text("model", required=True)
    texts, token_ids = reader.inputs("input", limits)
    several = values.get("embedding_types") is not None or type(values.get("dimensions")) is list
    request = EmbeddingRequest(
        texts=texts,
        model=model,
        token_ids=token_ids,
        dims=reader.dims("dimensions", limits),
        types=reader.types("embedding_types"),
        several=several,
        base64=reader.choice("encoding_format", ("float", "base64")) == "base64",
        role=reader.choice("role", ("query", "document")),
        instruction=reader.text("instruction"),
        truncate=reader.flag("truncate", default=False),
    )
    reader.text("user")
    return reader.finish(request, limits)


OPENAI_FIELDS = (
    "model",
    "input",
    "dimensions",
    "encoding_format",
    "user",
    "embedding_types",
    "instruction",
    "role",
    "truncate",
)


@dataclass
class Reader:
    """Takes fields of a body one by one, and keeps what is wrong with them."""

    values: Mapping[str, Any]
    known: tuple[str, ...]
    findings: list[Finding] = field(default_factory=list)
    too_large: bool = False

    def __post_init__(self) -> None:
        strange = (name for name in self.values if name not in self.known)
        self.findings += [unknown(name, self.known) for name in islice(strange, _MOST_FINDINGS)]

    def finish(self, request: EmbeddingRequest, limits: Limits) -> EmbeddingRequest:
        """The request; raises RequestError if anything was wrong."""
        if request.role == "document" and request.instruction not in (None, "none", ""):
            self.add(
                "instruction",
                request.instruction,
                "with role query only",
                "instructions apply to queries: set role to query, or leave the instruction out",
            )
        if request.types and request.dims:
            self.findings += unfit_dims(request.types, request.dims)
        numbers = len(request) * len(request.types or "1") * sum(request.dims or (limits.full_dim,))
        if numbers > limits.answer_numbers:
            self.too_large = True
            what = f"{len(request)} inputs at these dimensions and types are {numbers:,} numbers"
            allowed = f"up to {limits.answer_numbers:,} numbers in an answer"
            self.findings.append(Finding("input", what, allowed, "send fewer inputs in a request"))
        if self.findings:
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if self.too_large else HTTPStatus.BAD_REQUEST
            raise RequestError(self.findings, status=status)
        return request

    def add(self, param: str, value: object, allowed: str, fix: str) -> None:
        """A field cannot be used."""
        self.findings.append(wrong(param, value, allowed, fix))

    def text(self, name: str, *, required: bool = False) -> str | None:
        """A string; None where it is left out or wrong."""
        value = self.values.get(name)
        if value is None and not required:
            return None
        if type(value) is not str:
            self.add(name, value, "a string", "give a string")
            return None
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        """True or false."""
        value = self.values.get(name)
        if value is None:
            return default
        if type(value) is not bool:
            self.add(name, value, "true or false", "write true or false")
        return value is True

    def choice(self, name: str, choices: tuple[str, ...], *, required: bool = False) -> str | None:
        """One of some words; None where it is left out or wrong."""
        value = self.values.get(name)
        if value is None and not required:
            return None
        if type(value) is not str or value not in choices:
            self.add(name, value, ", ".join(choices), f"choose one of {', '.join(choices)}")
            return None
        return value

    def dims(self, name: str, limits: Limits) -> tuple[int, ...] | None:
        """One dimension or a list of them, each once."""
        value = self.values.get(name)
        if value is None:
            return None
        dims = value if type(value) is list else [value]
        if not 1 <= len(dims) <= MOST_DIMENSIONS:
            self.add(name, value, f"1 to {MOST_DIMENSIONS} dimensions", "name at least one, and not more")
            return None
        good = []
        for dim in dims:
            if type(dim) is int and 1 <= dim <= limits.full_dim:
                good.append(dim)
            else:
                self.add(name, dim, f"1..{limits.full_dim}", f"choose whole numbers in 1..{limits.full_dim}")
        return tuple(dict.fromkeys(good)) or None

    def dim(self, name: str, limits: Limits) -> tuple[int, ...] | None:
        """One dimension, for an API that has no lists of them."""
        value = self.values.get(name)
        if type(value) is list:
            self.add(name, value, f"1..{limits.full_dim}", "name one dimension")
            return None
        return self.dims(name, limits)

    def types(self, name: str, known: tuple[str, ...] = TYPES) -> tuple[str, ...] | None:
        """One type of numbers or a list of them, each once."""
        value = self.values.get(name)
        if value is None:
            return None
        kinds = value if type(value) is list else [value]
        if not 1 <= len(kinds) <= len(known):
            self.add(name, value, ", ".join(known), "name at least one type, and each once")
            return None
        for kind in kinds:
            if type(kind) is not str or kind not in known:
                self.add(name, kind, ", ".join(known), "choose from the types allowed")
        return tuple(kind for kind in dict.fromkeys(map(str, kinds)) if kind in known)

    def inputs(self, name: str, limits: Limits) -> tuple[list[str], list[list[int]] | None]:
        """Texts, or token ids."""
        value = self.values.get(name)
        if type(value) is str:
            self._check_texts(name, [value], single=True)
            return [value], None
        if type(value) is not list or not value:
            self.add(name, value, _INPUT_FORMS, "give at least one text")
            return [], None
        kinds = set(map(type, value))
        if kinds == {str}:
            if self._count_fits(name, len(value), limits):
                self._check_texts(name, value)
            return value, None
        if kinds == {int}:
            self._check_ids(name, value, limits)
            return [], [value]
        if kinds == {list}:
            if self._count_fits(name, len(value), limits):
                for i, ids in enumerate(value):
                    self._check_ids(f"{name}[{i}]", ids, limits)
            return [], value
        mixed = [i for i, item in enumerate(value) if type(item) is not type(value[0])]
        i = mixed[0] if mixed else 0
        self.add(f"{name}[{i}]", value[i], _INPUT_FORMS, "give items of one kind")
        return [], None

    def text_list(self, name: str, limits: Limits) -> list[str]:
        """A list of texts and nothing else."""
        value = self.values.get(name)
        if type(value) is not list or not value:
            self.add(name, value, "a list of texts", "give a list of at least one text")
            return []
        wrong_items = list(
            islice((i for i, item in enumerate(value) if type(item) is not str), _MOST_FINDINGS)
        )
        for i in wrong_items:
            self.add(f"{name}[{i}]", value[i], "a string", "give a string")
        if wrong_items:
            return []
        if self._count_fits(name, len(value), limits):
            self._check_texts(name, value)
        return value

    def _count_fits(self, name: str, count: int, limits: Limits) -> bool:
        if count > limits.inputs:
            self.too_large = True
            what = f"{name} holds {count:,} inputs"
            self.findings.append(Finding(name, what, f"1..{limits.inputs:,} inputs", "send several requests"))
            return False
        return True

    def _check_texts(self, name: str, texts: list[str], *, single: bool = False) -> None:
        if "" in texts:
            empty = (i for i, text in enumerate(texts) if not text)
            for i in islice(empty, _MOST_FINDINGS):
                place = name if single else f"{name}[{i}]"
                self.add(place, "", "at least one character", "leave empty texts out")

    def _check_ids(self, name: str, ids: list[Any], limits: Limits) -> None:
        if limits.vocabulary is None:
            self.add(name, ids, "texts", "this model's tokenizer is not known to the server: send texts")
            return
        if not ids:
            self.add(name, ids, "at least one token id", "leave empty inputs out")
        for i, number in enumerate(ids):
            if type(number) is not int or not 0 <= number < limits.vocabulary:
                self.add(
                    f"{name}[{i}]",
                    number,
                    f"0..{limits.vocabulary - 1}",
                    "use ids of this model's own tokenizer, or send texts",
                )
                return


def unfit_dims(types: tuple[str, ...], dims: tuple[int, ...]) -> list[Finding]:
    """Dimensions whose vectors do not fill whole bytes in these types."""
    return [
        wrong(
            "dimensions",
            dim,
            f"multiples of {divisor} for {kind}",
            f"choose {max(divisor, dim // divisor * divisor)} or another type",
        )
        for dim in dims
        for kind, divisor in (("binary", 8), ("ubinary", 8), ("uint4", 2))
        if kind in types and dim % divisor
    ]


Parser = Callable[[Mapping[str, Any], Limits], EmbeddingRequest]
