"""A model's files: where they are, which version they are, and what they state about the model.

Reads configuration files only: knows nothing of weights, torch or tokenizers. Hub ids are fetched with
huggingface_hub, whose environment variables (HF_HOME, HF_TOKEN, HF_HUB_OFFLINE) all work.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from toolkit.embedding.config import LocalConfig
from toolkit.embedding.model_families import QWEN3_MIN_DIM, Family, family_of
from toolkit.errors import ModelError, PlanError
from toolkit.files import cache_folder, parse_json, write_atomically
from toolkit.space import QWEN3_PROMPTS, Prompts

# Everything that can change a vector; pictures, exports and notes beside it cannot.
_HASHED_SUFFIXES = {".safetensors", ".bin", ".pt", ".json", ".txt", ".model", ".py", ".jinja"}
_OTHER_FORMATS = ["*.onnx*", "*.h5", "*.msgpack", "*.ot", "*.gguf", "*.ckpt", "onnx/*", "openvino/*"]
# sentence-transformers' own name for a pooling, and this package's.
_POOLING_NAMES = {"lasttoken": "last", "cls": "cls", "mean": "mean"}
_LEGACY_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# Their position table starts after the padding index: that many entries are not for tokens.
_OFFSET_POSITIONS = {"roberta": 2, "xlm-roberta": 2, "camembert": 2, "mpnet": 2}
# Of a prompt like Qwen3's, "Instruct: {task}\nQuery:", with whatever follows "Query:".
_INSTRUCT_PROMPT = re.compile(r"Instruct: (?P<task>[^\n]+)\nQuery:(?P<gap> ?)$")


@dataclass(frozen=True)
class Checkpoint:
    """A model folder on this machine.

    name : hub id, or the folder's name.
    folder : where the files are.
    revision : commit hash of a hub model, ``sha-<hash of the contents>`` of a folder.
    """

    name: str
    folder: Path
    revision: str

    @cached_property
    def config(self) -> dict[str, Any]:
        """The transformers configuration; empty for a model that has none."""
        return self._json("config.json")

    @cached_property
    def is_sentence_transformer(self) -> bool:
        """Whether the folder says itself how its modules are put together."""
        return (self.folder / "modules.json").is_file()

    @property
    def model_type(self) -> str:
        """The architecture's name in transformers, such as ``bert`` or ``qwen3``."""
        return self.config.get("model_type", "")

    @cached_property
    def pooling(self) -> str:
        """``mean``, ``cls``, ``last`` or what sentence-transformers calls it; ``none`` without a stage.

        A plain transformers folder states none: last token for decoders, mean otherwise.
        """
        if not self.is_sentence_transformer:
            architecture = (self.config.get("architectures") or [""])[0]
            decoder = self.model_type == "qwen3" or architecture.endswith("ForCausalLM")
            return "last" if decoder else "mean"
        for kind, module in self._modules:
            if kind == "StaticEmbedding":
                return "mean"
            if kind == "Pooling":
                stated = self._json(Path(module["path"], "config.json"))
                modes = stated.get("pooling_mode") or [
                    mode for key, mode in _LEGACY_POOLING.items() if stated.get(key)
                ]
                modes = [modes] if isinstance(modes, str) else modes or ["mean"]
                return "+".join(_POOLING_NAMES.get(mode, mode) for mode in modes)
        return "none"

    @property
    def quantization(self) -> str:
        """The method its weights are stored by, such as ``fp8`` or ``awq``; empty for plain numbers."""
        stated = self.config.get("quantization_config") or self.config.get("compression_config")
        return str(stated.get("quant_method") or "an unnamed method") if stated else ""

    @property
    def leaves_out_prompt(self) -> bool:
        """Whether its pooling skips the tokens of the prompt, as that of Instructor models does."""
        return any(
            self._json(Path(module["path"], "config.json")).get("include_prompt", True) is False
            for kind, module in self._modules
            if kind == "Pooling"
        )

    @property
    def routes_by_role(self) -> bool:
        """Whether queries and documents go through modules of their own (a Router, formerly Asym)."""
        return any(kind in ("Router", "Asym") for kind, _ in self._modules)

    @property
    def similarity(self) -> str:
        """How its makers compare vectors, such as ``cosine`` or ``dot``; empty if they do not say.

        Vectors that its own last stage normalizes have one order by cosine and by inner product.
        """
        stated = self._json("config_sentence_transformers.json").get("similarity_fn_name") or ""
        normalized = any(kind == "Normalize" for kind, _ in self._modules)
        return "cosine" if normalized and stated in ("dot", "euclidean") else stated

    @property
    def is_bare(self) -> bool:
        """Whether nothing but pooling and normalizing follows the transformer, and no adapter is in it."""
        kinds = {kind for kind, _ in self._modules}
        has_adapter = (self.folder / "adapter_config.json").exists()
        return kinds <= {"Transformer", "Pooling", "Normalize"} and not has_adapter

    @cached_property
    def full_dim(self) -> int | None:
        """The length of its vectors, if the files state it without the weights."""
        dim = self.config.get("hidden_size")
        for kind, module in self._modules:
            if kind == "Dense":
                dim = self._json(Path(module["path"], "config.json")).get("out_features", dim)
            elif kind not in {"Transformer", "Pooling", "Normalize"}:
                return None
        if "+" in self.pooling:
            return None  # several poolings side by side make a longer vector
        return dim

    @property
    def is_qwen3(self) -> bool:
        """Whether it is a Qwen3 decoder pooled at its last token, as Qwen3-Embedding is."""
        return self.model_type == "qwen3" and self.pooling == "last"

    @cached_property
    def prompts(self) -> Prompts:
        """The templates the folder states (config_sentence_transformers.json), or its family's."""
        settings = self._json("config_sentence_transformers.json")
        found = prompts_of(settings.get("prompts") or {}, settings.get("default_prompt_name"))
        if self.is_qwen3 and not found.query and found.instructed is None:
            return QWEN3_PROMPTS
        if found == Prompts():
            return (self._family and self._family.prompts) or found
        return found

    def min_dim(self, full_dim: int) -> int:
        """The shortest prefix that the files or the model's makers state; `full_dim` if none is."""
        settings = self._json("config_sentence_transformers.json")
        stated: list[int] = []
        for source in (settings, self.config):
            for key in ("matryoshka_dims", "matryoshka_dimensions", "truncate_dim"):
                value = source.get(key)
                stated += value if isinstance(value, list) else [value] if value else []
        if stated:
            return min(*stated, full_dim)
        if self.is_qwen3:
            return min(QWEN3_MIN_DIM, full_dim)
        return min((self._family and self._family.min_dim) or full_dim, full_dim)

    def max_tokens(self, wanted: int | None) -> int:
        """How many tokens of a text are used: `wanted`, or the model's own limit.

        0 for a model that is not a transformer (static vectors): it reads texts to their end.

        Raises PlanError if `wanted` is beyond the positions the model has, ModelError if the files
        state no limit and none is given.
        """
        if self.is_sentence_transformer and self._modules[0][0] != "Transformer":
            return 0
        positions = self.config.get("max_position_embeddings") or 0
        positions -= _OFFSET_POSITIONS.get(self.model_type, 0)
        if wanted is not None:
            if 0 < positions < wanted:
                raise PlanError(
                    f"max_tokens {wanted} exceeds the {positions} positions of {self.name}; "
                    f"choose 2..{positions}"
                )
            return wanted
        stated = self._json("sentence_bert_config.json").get("max_seq_length")
        if stated:
            return int(stated)
        # A tokenizer without a limit states 1e30.
        tokenizer_limit = self._json("tokenizer_config.json").get("model_max_length") or 0
        limits = [limit for limit in (positions, int(tokenizer_limit)) if 0 < limit < 2**24]
        if not limits:
            raise ModelError(f"{self.name} states no maximum length; give one, for example max_tokens=512")
        return min(limits)

    @cached_property
    def _modules(self) -> list[tuple[str, dict[str, Any]]]:
        return [(module["type"].rsplit(".", 1)[-1], module) for module in self._json("modules.json")]

    @property
    def _family(self) -> Family | None:
        return family_of(self.name)

    def _json(self, path: str | Path) -> Any:  # noqa: ANN401 - JSON
        file = self.folder / path
        try:
            return parse_json(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise ModelError(f"{file} cannot be read ({error}); fetch the model again") from error


def prompts_of(stated: Mapping[str, str | None], default_name: str | None) -> Prompts:
    """Templates from sentence-transformers' named prompts, by the names its `encode_query` and so on look for."""
    named = {key: text for key, text in stated.items() if text}
    default = named.get(default_name or "", "")
    query = named.get("query", default)
    document = next((named[key] for key in ("document", "passage", "corpus") if key in named), default)
    instruct = _INSTRUCT_PROMPT.match(query)
    if instruct is None:
        return Prompts(query=query, document=document)
    return Prompts(
        instructed="Instruct: {instruction}\nQuery:" + instruct["gap"] + "{text}",
        document=document,
        default_instruction=instruct["task"],
    )


def find_checkpoint(config: LocalConfig) -> Checkpoint:
    """The folder of a config's model, downloaded first if it is a hub id that is not cached.

    Raises ModelError in one line: what was looked for, and what to do.
    """
    folder = Path(config.model).expanduser()
    if folder.is_dir():
        if not any((folder / name).is_file() for name in ("config.json", "modules.json")):
            raise ModelError(f"{folder} holds no model: neither config.json nor modules.json is in it")
        return Checkpoint(_folder_name(folder), folder, _hub_commit(folder) or _content_hash(folder))
    if folder.is_absolute() or config.model.startswith((".", "~")) or config.model.count("/") > 1:
        raise ModelError(
            f"model folder {config.model} does not exist; give a folder or a hub id like org/name"
        )
    snapshot = _snapshot(config.model, config.revision)
    return Checkpoint(config.model, snapshot, snapshot.name)


def _snapshot(model: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    where = f"model {model!r}" + (f" at revision {revision!r}" if revision else "")
    try:
        folder = Path(snapshot_download(model, revision=revision, ignore_patterns=[*_OTHER_FORMATS, "*.bin"]))
        if not list(folder.rglob("*.safetensors")):
            # Only an old repository without safetensors needs its pickled weights.
            folder = Path(snapshot_download(model, revision=revision, ignore_patterns=_OTHER_FORMATS))
    except HFValidationError as error:
        raise ModelError(f"{where} is neither a folder nor a hub id; write org/name or a folder") from error
    except GatedRepoError as error:
        raise ModelError(
            f"{where} is gated; accept its terms on the hub and log in with: hf auth login"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{where} does not exist; choose a branch, tag or commit of {model}") from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"{where} is not on the hub; check the spelling, or log in with: hf auth login"
        ) from error
    except LocalEntryNotFoundError as error:
        if os.environ.get("HF_HUB_OFFLINE", "0").upper() in {"1", "ON", "YES", "TRUE"}:
            reason = "HF_HUB_OFFLINE is set; unset it"
        else:
            reason = "the hub cannot be reached; check the network"
        raise ModelError(
            f"{where} is neither a folder nor in the local hub cache, and {reason}, "
            "or give the folder of a downloaded copy as local:<folder>"
        ) from error
    except HfHubHTTPError as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{where} could not be downloaded: {reason}") from error
    return folder


def _folder_name(folder: Path) -> str:
    """What to call a folder: a hub snapshot by its id, a folder called ``model`` with its parent.

    A link to a folder has its own name, which its user chose.
    """
    parts = folder.resolve().parts
    if len(parts) > 3 and parts[-2] == "snapshots" and parts[-3].startswith("models--"):
        return parts[-3].removeprefix("models--").replace("--", "/")
    parts = Path(os.path.abspath(folder)).parts  # noqa: PTH100 - `resolve` would follow the link
    return "/".join(parts[-2:]) if parts[-1] == "model" else parts[-1]


def _hub_commit(folder: Path) -> str | None:
    parts = folder.resolve().parts
    return parts[-1] if len(parts) > 3 and parts[-2] == "snapshots" and len(parts[-1]) == 40 else None


def _content_hash(folder: Path) -> str:
    """Hash of all that can change a vector; hashes of unchanged files are remembered on disk.

    Reading 8 GB of weights takes seconds, and a sweep opens its model many times.
    """
    memory = cache_folder() / "file_hashes.json"
    try:
        known = parse_json(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    found: dict[str, str] = {}
    fresh: dict[str, str] = {}
    for file in sorted(folder.rglob("*")):
        relative = file.relative_to(folder)
        hidden = any(part.startswith(".") for part in relative.parts)
        if hidden or file.suffix not in _HASHED_SUFFIXES or not file.is_file():
            continue
        status = file.stat()
        # A file replaced with its size and time kept still has another inode, or a later change time.
        stamps = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        key = "|".join(map(str, (file.resolve(), *stamps)))
        if key not in known:
            with file.open("rb") as handle:
                fresh[key] = hashlib.file_digest(handle, "sha256").hexdigest()
        found[relative.as_posix()] = fresh.get(key) or known[key]
    if fresh:
        try:
            memory.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(memory, json.dumps({**known, **fresh}, indent=0).encode())
        except OSError:
            pass  # without a writable cache the files are only hashed again next time
    digest = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
    return f"sha-{digest[:32]}"
