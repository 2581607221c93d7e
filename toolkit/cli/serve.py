"""``toolkit serve``: an embedder behind OpenAI's API."""

from __future__ import annotations

from typing import Annotated

import typer

from toolkit.cli.options import Embedder


def serve(
    embedder: Embedder = "static",
    host: Annotated[str, typer.Option(help="to listen on; 0.0.0.0 is the whole network")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one")] = 30_000,
    served_model_name: Annotated[
        list[str] | None, typer.Option(help="what clients call the model; may be repeated")
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option(help="environment variable with the keys, between commas, that clients need")
    ] = None,
) -> None:
    """Serve an embedder: /v1/embeddings with dimensions, types, role and instruction in every request."""
    from toolkit.embedding.open import open_embedder
    from toolkit.serve.run import serve as run
    from toolkit.serve.settings import ServeSettings, keys_from

    settings = ServeSettings(
        host=host, port=port, names=tuple(served_model_name or ()), keys=keys_from(api_key_env)
    )
    run(lambda: open_embedder(embedder), settings, announce=lambda line: print(line, flush=True))
