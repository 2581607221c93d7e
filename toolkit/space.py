"""What an embedding space is: everything that decides a vector's value, and its fingerprint.

Knows nothing of engines, files or arrays. Rendering an instruction into a text and checking a
dimension happen here and nowhere else, so that every engine sees finished strings.
"""

from __future__ import annotations

import hashlib
import json
import operator
import re
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum

from toolkit.errors import DimensionError, DimensionWarning, InstructionWarning, PlanError

# Qwen3-Embedding model card: the task its own evaluation uses when none is given.
QWEN3_DEFAULT_TASK = "Given a web search query, retrieve relevant passages that answer the query"


class Role(StrEnum):
    """Which side of a search a text is on. Instructions apply to queries only."""

    QUERY = "query"
    DOCUMENT = "document"

    @classmethod
    def _missing_(cls, value: object) -> Role:
        raise PlanError(f"role {value!r} is unknown; choose query or document")


@dataclass(frozen=True)
class Prompts:
    """A model's own text templates.

    instructed : template of a query with an instruction; fields ``{instruction}`` and ``{text}``.
        ``None`` for a model that was not trained on instructions.
    query : prefix of a query without an instruction (for example ``"query: "`` of E5).
    document : prefix of every document.
    default_instruction : the instruction a query gets when the caller names none.
    """

    instructed: str | None = None
    query: str = ""
    document: str = ""
    default_instruction: str = ""

    def __post_init__(self) -> None:
        if self.instructed is not None and (
            "{instruction}" not in self.instructed or "{text}" not in self.instructed
        ):
            raise PlanError(
                f"instruction template {self.instructed!r} must hold both {{instruction}} and {{text}}"
            )


_FIELD = re.compile(r"(\{instruction\}|\{text\})")

# Qwen3-Embedding README: f"Instruct: {task_description}\nQuery:{query}", no space after "Query:".
QWEN3_PROMPTS = Prompts(
    instructed="Instruct: {instruction}\nQuery:{text}", default_instruction=QWEN3_DEFAULT_TASK
)


@dataclass(frozen=True)
class Instruction:
    """The instruction of a set of queries: the model's default, none at all, or a text."""

    text: str | None = None

    @classmethod
    def of(cls, value: str | Instruction | None) -> Instruction:
        """``None`` or ``"default"`` is the model's default, ``""`` or ``"none"`` is no instruction."""
        if isinstance(value, Instruction):
            return value
        if value is None or value == "default":
            return cls(None)
        return cls("" if value == "none" else value)

    @property
    def label(self) -> str:
        """How tables and charts name it: ``default``, ``none`` or the text itself."""
        if self.text is None:
            return "default"
        return self.text or "none"


@dataclass(frozen=True)
class EmbeddingSpace:
    """All that changes a vector's value, except the text itself.

    model : hub id, folder name or package that holds the weights.
    revision : commit, version or content hash of the weights; never empty.
    engine : the code that runs the model (``wordllama``, ``sentence-transformers``, ``packed``, ``openai``).
    dtype : arithmetic of the model (``float32``, ``bfloat16``, ``float16``, ``fp8``).
    pooling : how token states become one vector (``mean``, ``cls``, ``last``).
    max_tokens : texts are cut after this many tokens; 0 where the engine cuts nothing.
    full_dim : length of an uncut vector.
    engine_version : of the code that computes, as far as a new one may change a vector by more than the
        rounding of its dtype: the engine's own number, or the versions of the libraries that do the work.
        Empty where nobody tells it, as a server; its probe vectors, in `revision`, stand for it.
    min_dim : the shortest prefix the model's makers trained or state; ``full_dim`` for a model
        without Matryoshka training.
    prompts : the model's templates; not in the fingerprint, as the cache keys on rendered text.
    """

    model: str
    revision: str
    engine: str
    dtype: str
    pooling: str
    max_tokens: int
    full_dim: int
    min_dim: int
    prompts: Prompts = field(default_factory=Prompts)
    engine_version: str = ""

    @property
    def matryoshka(self) -> bool:
        """Whether the model was trained so that prefixes of its vectors are embeddings too."""
        return self.min_dim < self.full_dim

    @property
    def fingerprint(self) -> str:
        """32 hex digits that differ whenever the same rendered text could get another vector."""
        identity = asdict(self)
        del identity["prompts"], identity["min_dim"]
        payload = json.dumps(identity, sort_keys=True).encode()
        return hashlib.blake2b(payload, digest_size=16).hexdigest()

    def with_prompts(self, prompts: Prompts) -> EmbeddingSpace:
        """The same space with other templates (the fingerprint stays)."""
        return replace(self, prompts=prompts)

    def check_dim(self, dim: int | None) -> int:
        """Return a usable dimension (``None`` is the full one).

        Raises DimensionError outside 1..full_dim; warns (DimensionWarning) below the stated minimum
        or for a model not trained for shorter vectors.
        """
        if dim is None:
            return self.full_dim
        try:
            number = operator.index(dim)
        except TypeError:
            raise DimensionError(f"dimension {dim!r} is no whole number; choose 1..{self.full_dim}") from None
        if isinstance(dim, bool) or not 1 <= number <= self.full_dim:
            raise DimensionError(
                f"dimension {dim} is outside the range of {self.model}; choose 1..{self.full_dim}"
            )
        if number < self.min_dim:
            reason = (
                f"below the model's stated minimum {self.min_dim}"
                if self.matryoshka
                else f"a cut of a model trained for {self.full_dim} only"
            )
            warnings.warn(f"dimension {number} is {reason} ({self.model})", DimensionWarning, stacklevel=2)
        return number

    def render(self, text: str, role: Role, instruction: str | Instruction | None = None) -> str:
        """The string the engine sees. Documents never carry an instruction."""
        return self.renderer(role, instruction)(text)

    def renderer(self, role: Role, instruction: str | Instruction | None = None) -> Callable[[str], str]:
        """A function from text to finished string, for many texts of one role.

        Warns (InstructionWarning) when a model without a template is given an instruction; the
        instruction is then a plain line before the text.
        """
        if Role(role) is Role.DOCUMENT:
            return self.prompts.document.__add__
        chosen = Instruction.of(instruction)
        task = self.prompts.default_instruction if chosen.text is None else chosen.text
        if not task:
            return self.prompts.query.__add__
        if self.prompts.instructed is None:
            warnings.warn(
                f"{self.model} has no instruction template; the instruction is put before the query as "
                "plain text",
                InstructionWarning,
                stacklevel=2,
            )
            return f"{task}\n{self.prompts.query}".__add__
        # Not str.format, and the template is split before anything is put in: an instruction or a text may
        # hold braces of its own.
        parts = _FIELD.split(self.prompts.instructed)
        place = parts.index("{text}")
        head, tail = (
            "".join(task if part == "{instruction}" else part for part in side)
            for side in (parts[:place], parts[place + 1 :])
        )
        return lambda text: f"{head}{text}{tail}"
