"""Arguments that several commands share, and how lists are written. Knows no command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from toolkit.errors import PlanError

if TYPE_CHECKING:
    from toolkit.scale.ray_workers import RayWorkers

_Number = TypeVar("_Number", int, float)

EMBEDDER = (
    "static, local:<hub id or folder>, or http://host:port/v1#<model> (/embed, /v2/embed, /api/embed too)"
)
DATA = (
    "builtin, beir:<folder>[@split], csv:<file or folder> (also parquet:, jsonl:), texts:<file of documents>, "
    "pairs:<file.tsv>[@split] or mteb:<task>"
)
DIMS = "dimensions between commas, or auto"


def complete_embedder(incomplete: str) -> list[str]:
    """Beginnings of embedder specs for a shell's completion; folders are the shell's own."""
    return [spec for spec in ("static", "local:", "http://", "https://") if spec.startswith(incomplete)]


def complete_data(incomplete: str) -> list[str]:
    """Beginnings of data specs likewise."""
    from toolkit.data.load import SPEC_FORMS

    starts = [form.split("<")[0].strip(". ") for form in SPEC_FORMS.split(", ")]
    return [spec for spec in starts if spec.startswith(incomplete)]


Embedder = Annotated[str, typer.Option(help=EMBEDDER, autocompletion=complete_embedder)]
ApiKeyEnv = Annotated[
    str | None,
    typer.Option(
        help="environment variable with the key, sent to the server that is named here and to no other"
    ),
]
Folder = Annotated[Path, typer.Argument(help="results folder that toolkit sweep wrote")]


Devices = Annotated[
    str | None, typer.Option(help="GPUs between commas, 0,1: one engine for each, one queue in front")
]


Address = Annotated[str | None, typer.Option(help="of a Ray cluster; this machine without it")]
Workers = Annotated[int | None, typer.Option(help="Ray workers; as many as there is room for")]
GpusPerWorker = Annotated[float, typer.Option(help="GPUs of each Ray worker")]


def ray_workers(
    *, ray: bool, address: str | None, workers: int | None, gpus_per_worker: float
) -> RayWorkers | None:
    """The workers that options name; None without --ray. Raises PlanError for the others without it."""
    if not ray:
        if address or workers or gpus_per_worker:
            raise PlanError("--address, --workers and --gpus-per-worker are of Ray: give --ray too")
        return None
    from toolkit.scale.ray_workers import RayWorkers

    return RayWorkers(address=address, workers=workers, gpus_per_worker=gpus_per_worker)


def listed_devices(devices: str | None) -> list[str] | None:
    """Names between commas; None if none were given."""
    return None if devices is None else [name for name in devices.split(",") if name.strip()]


def with_key(embedder: str | None, api_key_env: str | None, *, option: str = "--api-key-env") -> Any:  # noqa: ANN401
    """The embedder with the key of its server; the spec as it is where no key is named.

    Raises PlanError for what is no server.
    """
    if api_key_env is None:
        return embedder
    from toolkit.embedding.config import RemoteConfig, parse_spec, with_settings

    config = None if embedder is None else parse_spec(embedder)
    if not isinstance(config, RemoteConfig):
        raise PlanError(
            f"{option} {api_key_env} is for a server, which embedder {embedder!r} does not name; leave it out"
        )
    return with_settings(config, {"api_key_env": api_key_env})


def listed(values: Sequence[str] | None) -> list[str] | None:
    """What a repeatable option names, also between commas; None if it was not given."""
    if not values:
        return None
    return [part.strip() for value in values for part in value.split(",")]


def numbers(option: str, values: Sequence[str], kind: type[_Number]) -> tuple[_Number, ...]:
    """The numbers of a repeatable option, also between commas; raises PlanError for anything else."""
    words = listed(values) or []
    try:
        return tuple(kind(word) for word in words)
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise PlanError(f"{option} {','.join(words)} cannot be read; write {what} between commas") from None
