"""Arguments that several commands share, and how lists are written. Knows no command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

EMBEDDER = "static, local:<hub id or folder>, or http://host:port/v1#<model>"
DATA = (
    "builtin, beir:<folder>[@split], csv:<file or folder> (also parquet:, jsonl:), pairs:<file.tsv>[@split] "
    "or mteb:<task>"
)
DIMS = "dimensions between commas, or auto"

Embedder = Annotated[str, typer.Option(help=EMBEDDER)]
Folder = Annotated[Path, typer.Argument(help="results folder that toolkit sweep wrote")]


def listed(values: Sequence[str] | None) -> list[str] | None:
    """What a repeatable option names, also between commas; None if it was not given."""
    if not values:
        return None
    return [part.strip() for value in values for part in value.split(",")]
