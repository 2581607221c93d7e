"""Any toolkit embedder as an mteb encoder, at a dimension and with an instruction.

Texts become vectors in `embed_texts` and prefixes in `Vectors.at`, as everywhere else; this module only
translates mteb's calls. Knows nothing of result files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import mteb
import numpy as np
import psutil
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction
from mteb.types import PromptType

from toolkit.embedding.adapt import as_engine
from toolkit.embedding.pipeline import embed_texts
from toolkit.embedding.protocol import Embedder
from toolkit.errors import PlanError
from toolkit.files import safe_name
from toolkit.mteb_adapter.compat import texts_of
from toolkit.mteb_adapter.frame import TASK_PROMPT
from toolkit.redact import redacted
from toolkit.space import EmbeddingSpace, Instruction, Prompts, Role
from toolkit.vectors import Vectors

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata
    from torch.utils.data import DataLoader

    from toolkit.embedding.cache import VectorCache

_MEMORY_SHARE = 0.25  # of what is free when the first encoder is made; the rest is mteb's and the model's
_FRAMEWORKS = {
    "wordllama": ["NumPy"],
    "sentence-transformers": ["Sentence Transformers", "PyTorch"],
    "packed": ["PyTorch"],
    "openai": ["API"],
}


class MtebEncoder(AbsEncoder):
    """An mteb `EncoderProtocol` over an embedder: ``mteb.evaluate(MtebEncoder(embedder, dim=256), task)``.

    dim : length of the vectors mteb sees, cut and normalized again; None is the full one.
    instruction : ``"task"`` takes each task's own prompt by mteb's rules. All else means what it means
        in `toolkit.sweep`: ``"default"`` (or None) the model's own instruction, ``"none"`` no instruction,
        any other text the instruction of every query.
    cache : where full-dimension vectors are kept on disk; None keeps them in memory only.

    A document is never instructed. With ``"task"``, queries and the texts of tasks without roles (STS,
    classification, clustering, ...) carry the task's prompt if the model was trained on instructions;
    without a prompt, a query or document has the model's own prefix, and a text without a role has none.
    With every other instruction, a text without a role is taken for a query, as the two sides of a
    pair set are in `toolkit.sweep`.

    Raises DimensionError for a dimension outside the model's range.
    """

    def __init__(
        self,
        embedder: Embedder,
        *,
        dim: int | None = None,
        instruction: str | Instruction | None = TASK_PROMPT,
        cache: VectorCache | None = None,
    ) -> None:
        self.embedder = embedder = as_engine(embedder)
        self.dim = embedder.space.check_dim(dim)
        self.instruction = chosen_instruction(instruction)
        self._cache = cache
        self._memory = _Memory(int(psutil.virtual_memory().available * _MEMORY_SHARE))
        self.mteb_model_meta = model_meta(embedder.space, dim=self.dim, instruction=self.instruction)

    @property
    def label(self) -> str:
        """How tables name the instruction: ``task``, ``default``, ``none`` or the text itself."""
        return _label(self.instruction)

    def at(self, dim: int | None, instruction: str | Instruction | None = TASK_PROMPT) -> MtebEncoder:
        """Another setting of the same embedder; what one of them encoded, the others need not."""
        other = MtebEncoder(self.embedder, dim=dim, instruction=instruction, cache=self._cache)
        other._memory = self._memory
        return other

    def forget(self) -> None:
        """Free the vectors kept in memory for this encoder and those made from it with `at`."""
        self._memory.clear()

    def encode(
        self,
        inputs: DataLoader,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,  # noqa: ARG002 - mteb's protocol
        hf_subset: str,  # noqa: ARG002
        prompt_type: PromptType | None = None,
        **kwargs: object,
    ) -> np.ndarray:
        """The inputs' vectors, (n, dim) float32 unit rows.

        Of mteb's encode arguments only `precision` could change a vector, and is refused; batch sizes
        and progress bars are the embedder's own. Raises PlanError for a precision other than float32.
        """
        if kwargs.get("precision") not in (None, "float32"):
            raise PlanError(
                f"precision {kwargs['precision']!r} is not for this encoder: it returns float32; "
                "leave precision out and measure it with toolkit.sweep and precisions="
            )
        texts = texts_of(inputs)
        if not texts:
            return np.empty((0, self.dim), dtype=np.float32)
        role, instruction = self._prompt(task_metadata, prompt_type)
        key = _call_key(texts, role, instruction)
        vectors = self._memory.get(key)
        if vectors is None:
            embedder = self.embedder if role is not None else _WithoutPrompts(self.embedder)
            vectors = embed_texts(
                embedder, texts, role=role or Role.DOCUMENT, instruction=instruction, cache=self._cache
            )
            self._memory.keep(key, vectors)
        return vectors.at(self.dim)

    def _prompt(
        self, task_metadata: TaskMetadata, prompt_type: PromptType | None
    ) -> tuple[Role | None, Instruction]:
        """The role a text has here and its instruction; role None is a text that gets no prompt at all."""
        if prompt_type is PromptType.document:
            return Role.DOCUMENT, Instruction("")
        if isinstance(self.instruction, Instruction):
            return Role.QUERY, self.instruction
        text = self._task_prompt(task_metadata, prompt_type)
        if text or prompt_type is PromptType.query:
            return Role.QUERY, Instruction(text)
        return None, Instruction("")

    def _task_prompt(self, task_metadata: TaskMetadata, prompt_type: PromptType | None) -> str:
        if self.embedder.space.prompts.instructed is None:
            return ""
        prompt = self.get_instruction(task_metadata, prompt_type)
        if isinstance(prompt, dict):  # a task with prompts for roles, asked for a text without one
            prompt = next(iter(prompt.values()), "")
        return prompt or ""


def chosen_instruction(instruction: str | Instruction | None) -> Instruction | Literal["task"]:
    """What `MtebEncoder` understands by an instruction: each task's own prompt, or the toolkit's meaning."""
    return TASK_PROMPT if instruction == TASK_PROMPT else Instruction.of(instruction)


def model_meta(space: EmbeddingSpace, *, dim: int, instruction: Instruction | Literal["task"]) -> ModelMeta:
    """What mteb records of one setting, on top of what it may know of the model already.

    The full dimension with each task's own prompt is the model's plain run; any other setting is one
    of mteb's experiments, with a folder of its own. The revision carries 8 hex digits for engine,
    dtype, pooling, token limit and prompts: results of vectors that differ never share a folder. A
    server's revision may be its URL: what no file name holds becomes "_", so that it names one folder.
    """
    name = space.model if space.model.count("/") == 1 else f"local/{space.model.rstrip('/').split('/')[-1]}"
    identity = json.dumps([space.fingerprint, asdict(space.prompts)])
    digest = hashlib.blake2b(identity.encode(), digest_size=4).hexdigest()
    own = {
        "loader": None,
        "loader_kwargs": {},
        "name": name,
        "revision": f"{safe_name(redacted(space.revision))}-{digest}",
        "embed_dim": dim,
        "max_tokens": space.max_tokens or None,
        "similarity_fn_name": ScoringFunction.COSINE,
        "framework": _FRAMEWORKS.get(space.engine, []),
        "use_instructions": space.prompts.instructed is not None,
        "experiment_kwargs": _experiment(space, dim, instruction),
    }
    try:
        return mteb.get_model_meta(name).model_copy(update=own)
    except KeyError:  # a model that is not in mteb's registry
        return ModelMeta.create_empty(own)


def _label(instruction: Instruction | Literal["task"]) -> str:
    return instruction.label if isinstance(instruction, Instruction) else instruction


def _experiment(
    space: EmbeddingSpace, dim: int, instruction: Instruction | Literal["task"]
) -> dict[str, Any] | None:
    experiment: dict[str, Any] = {}
    if dim != space.full_dim:
        experiment["embed_dim"] = dim
    if isinstance(instruction, Instruction):
        experiment["instruction"] = instruction.label
    if isinstance(instruction, Instruction) and instruction.text:
        # mteb turns signs that no folder may hold into "_": two texts could end up in one folder.
        digest = hashlib.blake2b(instruction.text.encode(), digest_size=4).hexdigest()
        experiment["instruction_id"] = digest
    return experiment or None


class _WithoutPrompts:
    """The same embedder, whose queries and documents have no prefix."""

    def __init__(self, embedder: Embedder) -> None:
        self.space = embedder.space.with_prompts(Prompts())
        self.stream = embedder.stream
        self.encode = embedder.encode


class _Memory:
    """Vectors of whole calls, up to a number of bytes; the first that fit stay.

    A sweep asks for the same calls in the same order at every dimension. Dropping the oldest would
    then drop each just before it is asked for again, so the newest is not taken in instead.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self._kept: dict[bytes, Vectors] = {}

    def get(self, key: bytes) -> Vectors | None:
        return self._kept.get(key)

    def keep(self, key: bytes, vectors: Vectors) -> None:
        if self._bytes + vectors.rows.nbytes <= self._limit_bytes:
            self._kept[key] = vectors
            self._bytes += vectors.rows.nbytes

    def clear(self) -> None:
        self._kept.clear()
        self._bytes = 0


def _call_key(texts: Sequence[str], role: Role | None, instruction: Instruction) -> bytes:
    digest = hashlib.blake2b(f"{role}\0{instruction.text}\0".encode(), digest_size=16)
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.digest()
