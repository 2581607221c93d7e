"""The one door to all engines: a short spec, a typed config or an object in, an embedder out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Any

from toolkit.embedding.adapt import as_engine
from toolkit.embedding.config import (
    ENTRY_POINTS,
    AnyConfig,
    LocalConfig,
    PluginConfig,
    RemoteConfig,
    StaticConfig,
    parse_spec,
    with_settings,
)
from toolkit.embedding.protocol import Embedder
from toolkit.errors import PlanError, require_package


def open_embedder(
    spec: str | AnyConfig | Embedder | object,
    *,
    devices: Sequence[str | int] | None = None,
    **settings: Any,  # noqa: ANN401 - checked against the config's fields
) -> Embedder:
    """Open an embedder; one that is already open is returned as it is.

    spec : ``static``, ``local:<hub id or folder>``, ``http://host:port/v1#<model>``, ``<plug-in>:..``, a config,
        a SentenceTransformer, a function from a list of texts to rows, or any object with `space` and
        `encode(texts)` or `stream(texts)`.
    devices : of this machine, such as ``[0, 1]`` or ``["cuda:0", "cuda:1"]``: one process with an engine for each,
        and one queue in front.
    settings : fields of a config to replace, for example ``max_tokens=512``.

    Raises PlanError for a spec or setting that cannot work, ModelError or ServerError if it cannot be
    opened.
    """
    if isinstance(spec, str):
        spec = parse_spec(spec)
    if not isinstance(spec, AnyConfig):
        given = [*settings, *(["devices"] if devices is not None else [])]
        if given:
            raise PlanError(f"{', '.join(given)}: an embedder that is already open cannot be changed")
        return _around(spec)
    config = with_settings(spec, settings)
    if devices is not None:
        from toolkit.embedding.devices import DevicesEmbedder

        return DevicesEmbedder(config, devices)
    if isinstance(config, StaticConfig):
        from toolkit.embedding.static import StaticEmbedder

        return StaticEmbedder()
    if isinstance(config, LocalConfig):
        require_package("torch", needed_for="a model on this machine", extra="local")
        require_package("sentence_transformers", needed_for="a model on this machine", extra="local")
        from toolkit.embedding.local import open_local

        return open_local(config)
    if isinstance(config, PluginConfig):
        return _around(_plugin(config))
    require_package("openai", needed_for="an embedding server", extra="remote")
    from toolkit.embedding.remote import RemoteEmbedder

    return RemoteEmbedder(config)


def stated_full_dim(spec: str | AnyConfig) -> int | None:
    """The full dimension as far as it is known without weights or a server; None where it is not.

    Raises PlanError for an unknown spec, ModelError for a model whose files cannot be found.
    """
    config = parse_spec(spec) if isinstance(spec, str) else spec
    if isinstance(config, RemoteConfig):
        return config.full_dim
    if isinstance(config, LocalConfig):
        from toolkit.embedding.checkpoint import find_checkpoint

        return find_checkpoint(config).full_dim
    if isinstance(config, PluginConfig):
        return None
    from toolkit.embedding.static import StaticEmbedder

    return StaticEmbedder().space.full_dim


def _around(opened: object) -> Embedder:
    """An engine for an object; sentence-transformers is looked at only if the caller has loaded it."""
    loaded = sys.modules.get("sentence_transformers")
    if loaded is not None and isinstance(opened, loaded.SentenceTransformer):
        from toolkit.embedding.loaded_model import LoadedModelEmbedder

        return LoadedModelEmbedder(opened)
    if callable(opened) and not hasattr(opened, "space"):
        from toolkit.embedding.function import FunctionEmbedder

        return FunctionEmbedder(opened)
    return as_engine(opened)


def _plugin(config: PluginConfig) -> object:
    for point in entry_points(group=ENTRY_POINTS):
        if point.name == config.name:
            return point.load()(config.place)
    raise PlanError(
        f"embedder {config.name}:{config.place} needs the package that brings the entry point {config.name!r} of "
        f"the group {ENTRY_POINTS}; install it"
    )
