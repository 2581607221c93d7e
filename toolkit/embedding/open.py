"""The one door to all engines: a short spec or a typed config in, an embedder out."""

from __future__ import annotations

from typing import Any

from toolkit.embedding.adapt import as_engine
from toolkit.embedding.config import LocalConfig, RemoteConfig, StaticConfig, parse_spec, with_settings
from toolkit.embedding.protocol import Embedder
from toolkit.errors import PlanError, require_package


def open_embedder(
    spec: str | StaticConfig | LocalConfig | RemoteConfig | Embedder,
    **settings: Any,  # noqa: ANN401 - checked against the config's fields
) -> Embedder:
    """Open an embedder; one that is already open is returned as it is.

    spec : ``static``, ``local:<hub id or folder>``, ``http://host:port/v1#<model>``, or a config.
    settings : fields of that config to replace, for example ``max_tokens=512``.

    Raises PlanError for a spec or setting that cannot work, ModelError or ServerError if it cannot be
    opened.
    """
    if isinstance(spec, str):
        spec = parse_spec(spec)
    if not isinstance(spec, StaticConfig | LocalConfig | RemoteConfig):
        engine = as_engine(spec)
        if settings:
            raise PlanError(f"{', '.join(settings)}: an embedder that is already open cannot be changed")
        return engine
    config = with_settings(spec, settings)
    if isinstance(config, StaticConfig):
        from toolkit.embedding.static import StaticEmbedder

        return StaticEmbedder()
    if isinstance(config, LocalConfig):
        require_package("torch", needed_for="a model on this machine", extra="local")
        require_package("sentence_transformers", needed_for="a model on this machine", extra="local")
        from toolkit.embedding.local import open_local

        return open_local(config)
    require_package("openai", needed_for="an embedding server", extra="remote")
    from toolkit.embedding.remote import RemoteEmbedder

    return RemoteEmbedder(config)


def stated_full_dim(spec: str | StaticConfig | LocalConfig | RemoteConfig) -> int | None:
    """The full dimension as far as it is known without weights or a server; None where it is not.

    Raises PlanError for an unknown spec, ModelError for a model whose files cannot be found.
    """
    config = parse_spec(spec) if isinstance(spec, str) else spec
    if isinstance(config, RemoteConfig):
        return config.full_dim
    if isinstance(config, LocalConfig):
        from toolkit.embedding.checkpoint import find_checkpoint

        return find_checkpoint(config).full_dim
    from toolkit.embedding.static import StaticEmbedder

    return StaticEmbedder().space.full_dim
