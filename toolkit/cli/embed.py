"""``toolkit embed``: a file of texts in, a file of vectors out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.options import Embedder


def embed(
    file: Annotated[Path, typer.Argument(help="texts, one per line, or .jsonl with a text field; also .gz")],
    out: Annotated[Path, typer.Option(help=".npy file to write")],
    embedder: Embedder = "static",
    dim: Annotated[int | None, typer.Option(help="embedding dimension; full by default")] = None,
    role: Annotated[str, typer.Option(help="document or query")] = "document",
    instruction: Annotated[str | None, typer.Option(help="for queries: default, none or a text")] = None,
) -> None:
    """Embed the texts of a file; writes (n, dim) float32 unit rows."""
    from toolkit import embed as run
    from toolkit.data.text_files import read_texts
    from toolkit.embedding.cache import VectorCache
    from toolkit.embedding.row_files import write_rows

    rows = run(embedder, read_texts(file), dim=dim, role=role, instruction=instruction, cache=VectorCache())
    write_rows(out, rows)
    print(f"{out}: {rows.shape[0]} x {rows.shape[1]} float32")
