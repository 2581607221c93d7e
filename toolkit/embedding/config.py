"""Typed settings of each engine, and the short specs that stand for them. Loads no model."""

from __future__ import annotations

import difflib
import re
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from toolkit.errors import PlanError
from toolkit.redact import redacted


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_Kind = TypeVar("_Kind", bound=_Config)


class StaticConfig(_Config):
    """The embedded default: WordLlama's static 256-d vectors, bundled in its wheel."""

    kind: Literal["static"] = "static"


class LocalConfig(_Config):
    """A transformers or sentence-transformers model on this machine.

    model : hub id or folder.
    revision : branch, tag or commit on the hub; ignored for a folder.
    device : ``auto`` takes CUDA where there is one.
    dtype : ``auto`` is bfloat16 on CUDA and float32 on CPU, where ``bfloat16`` is faster on processors that
        have instructions for it (avx512_bf16, amx_bf16); ``fp8`` needs the packed engine on Hopper
        or later.
    max_tokens : longer texts are cut; ``None`` is the model's own limit.
    batch_tokens : tokens in one forward pass; ``None`` chooses from free memory.
    engine : ``auto`` takes the packed engine for the decoders it knows, sentence-transformers otherwise.
    """

    kind: Literal["local"] = "local"
    model: str
    revision: str | None = None
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16", "fp8"] = "auto"
    max_tokens: Annotated[int, Field(ge=2)] | None = None
    batch_tokens: Annotated[int, Field(ge=16)] | None = None
    engine: Literal["auto", "packed", "sentence-transformers"] = "auto"
    compile: bool | None = None
    trust_remote_code: bool = False


class RemoteConfig(_Config):
    """A server with OpenAI's, TEI's, Cohere's or Ollama's API; the end of its address says which.

    base_url : ends in ``/v1`` (OpenAI), ``/embed`` (TEI), ``/v2/embed`` (Cohere) or ``/api/embed`` (Ollama).
    model : name the server knows it by.
    full_dim : length the server must return; ``None`` asks the server once.
    batch_size : texts in one request.
    concurrency : requests under way at once.
    retries : tries after the first for time-outs, 429 and 5xx, with exponential backoff.
    timeout_s : of one request.
    api_key_env : environment variable that holds the key for this server. None sends OPENAI_API_KEY to
        OpenAI alone; `embedding.keys` says which key goes where.
    """

    kind: Literal["remote"] = "remote"
    base_url: str
    model: str
    full_dim: Annotated[int, Field(ge=1)] | None = None
    batch_size: Annotated[int, Field(ge=1)] = 64
    concurrency: Annotated[int, Field(ge=1)] = 4
    retries: Annotated[int, Field(ge=0)] = 4
    timeout_s: Annotated[float, Field(gt=0)] = 120.0
    api_key_env: str | None = None

    @field_validator("base_url")
    @classmethod
    def _is_http_address(cls, value: str) -> str:
        parts = urlsplit(value)
        _ = parts.port  # raises ValueError for a port that is no number
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("write it as http://host:port/v1")
        if parts.username is not None or parts.password is not None:
            raise ValueError("it holds a user name or password, which would be written down; use api_key_env")
        if parts.query or parts.fragment:
            raise ValueError("it must end with the path, /v1: /embeddings is added to it")
        return value.rstrip("/")


class PluginConfig(_Config):
    """An engine of another package: an entry point of the group ``toolkit.embedders``.

    name : of the entry point, a function of `place` that returns an open embedder.
    place : what follows the colon in a spec, for the engine to read.
    """

    kind: Literal["plugin"] = "plugin"
    name: str
    place: str = ""


AnyConfig = StaticConfig | LocalConfig | RemoteConfig | PluginConfig
EmbedderConfig = Annotated[AnyConfig, Field(discriminator="kind")]

ENTRY_POINTS = "toolkit.embedders"
SPEC_FORMS = "static, local:<hub id or folder>, http://host:port/v1#<model>"


def parse_spec(spec: str) -> AnyConfig:
    """Turn a short spec into a config; raises PlanError naming the forms there are."""
    if spec == "static":
        return StaticConfig()
    if spec.startswith("local:") and spec != "local:":
        return LocalConfig(model=spec.removeprefix("local:"))
    if re.match(r"https?://", spec):
        base_url, mark, model = spec.partition("#")
        if not mark or not model:
            raise PlanError(
                f"embedder {redacted(spec)!r} names no model; write {redacted(base_url).rstrip('/')}#<model name on "
                "the server>"
            )
        return checked_config(RemoteConfig, {"base_url": base_url, "model": model})
    name, _, place = spec.partition(":")
    installed = sorted({point.name for point in entry_points(group=ENTRY_POINTS)})
    if name in installed:
        return PluginConfig(name=name, place=place)
    meant = _closest_spec(spec, installed)
    hint = f"; did you mean {meant!r}?" if meant else ""
    more = "".join(f", {other}:.." for other in installed)
    raise PlanError(f"unknown embedder {redacted(spec)!r}{hint} (choose one of: {SPEC_FORMS}{more})")


def with_settings(config: AnyConfig, settings: dict[str, Any]) -> AnyConfig:
    """The config with some settings replaced; raises PlanError for an unknown or unusable one."""
    if not settings:
        return config
    return checked_config(type(config), {**config.model_dump(), **settings})


def checked_config(kind: type[_Kind], values: dict[str, Any]) -> _Kind:
    """A config of this kind; raises PlanError for an unknown or unusable setting."""
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else kind.__name__
        if first["type"] == "extra_forbidden":
            allowed = sorted(set(kind.model_fields) - {"kind"})
            close = difflib.get_close_matches(name, allowed, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            what = ", ".join(allowed) or "none"
            raise PlanError(f"unknown embedder setting {name!r}{hint} (choose from: {what})") from None
        reason = first["msg"].removeprefix("Value error, ")
        shown = redacted(repr(first["input"]))
        raise PlanError(f"embedder setting {name}={shown} cannot be used: {reason}") from None


def _closest_spec(spec: str, installed: list[str]) -> str | None:
    if difflib.get_close_matches(spec.lower(), ["static"]):
        return "static"
    if re.match(r"[\w.-]+:\d+(/|$)", spec):
        return f"http://{spec}"
    if Path(spec).expanduser().is_dir() or re.fullmatch(r"[\w.-]+/[\w.-]+", spec):
        return f"local:{spec}"
    scheme, colon, rest = spec.partition(":")
    near = difflib.get_close_matches(scheme.lower(), ["local", *installed], n=1)
    if colon and rest and near:
        return f"{near[0]}:{rest}"
    return None
