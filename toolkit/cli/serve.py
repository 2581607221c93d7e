"""``toolkit serve``: an embedder behind OpenAI's API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.options import DATA, EMBEDDER, Devices, complete_embedder, listed_devices, with_key


def serve(
    embedder: Annotated[
        str | None,
        typer.Option(
            help=f"{EMBEDDER}; else the sweep's of --setting, or static", autocompletion=complete_embedder
        ),
    ] = None,
    devices: Devices = None,
    setting: Annotated[
        Path | None,
        typer.Option(help="results folder whose recommended setting is served too, as NAME#recommended"),
    ] = None,
    host: Annotated[str, typer.Option(help="to listen on; 0.0.0.0 is the whole network")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one")] = 30_000,
    served_model_name: Annotated[
        list[str] | None, typer.Option(help="what clients call the model; may be repeated")
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option(help="environment variable with the keys, between commas, that clients need")
    ] = None,
    embedder_key_env: Annotated[
        str | None, typer.Option(help="environment variable with the key of the server that --embedder names")
    ] = None,
    calibrate: Annotated[
        str | None, typer.Option(help=f"documents that give the ranges of int8, uint8 and uint4: {DATA}")
    ] = None,
    max_batch_tokens: Annotated[
        int | None, typer.Option(help="tokens of one forward pass of a local model")
    ] = None,
    max_inputs: Annotated[int, typer.Option(help="texts in one request")] = 2_048,
    max_request_tokens: Annotated[int, typer.Option(help="tokens in one request")] = 300_000,
    max_queue: Annotated[
        int, typer.Option(help="requests that wait or are at work; more get HTTP 429")
    ] = 512,
    max_body_mib: Annotated[int, typer.Option(help="size of one request")] = 32,
) -> None:
    """Serve an embedder: /v1/embeddings with dimensions, types, role and instruction in every request."""
    from toolkit.embedding.open import open_embedder
    from toolkit.experiment.results import Results
    from toolkit.serve.run import serve as run
    from toolkit.serve.settings import ServeSettings, keys_from

    settings = ServeSettings(
        host=host,
        port=port,
        names=tuple(served_model_name or ()),
        keys=keys_from(api_key_env),
        results=setting,
        calibrate=calibrate,
        most_inputs=max_inputs,
        most_tokens=max_request_tokens,
        most_waiting=max_queue,
        most_body_bytes=max_body_mib * 2**20,
    )
    batching = {} if max_batch_tokens is None else {"batch_tokens": max_batch_tokens}
    chosen = with_key(embedder, embedder_key_env, option="--embedder-key-env") or (
        Results.load(setting).embedder_spec if setting else "static"
    )
    on = listed_devices(devices)
    run(
        lambda: open_embedder(chosen, devices=on, **batching),
        settings,
        announce=lambda line: print(line, flush=True),
    )
