"""A corpus padded to a larger one: a file of vectors that grows block by block, and goes on where it was stopped.

Knows no index.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from toolkit.at_scale.distractors import BLOCK_ROWS, Distractors
from toolkit.experiment.store import writing
from toolkit.files import parse_json, write_atomically
from toolkit.progress import progress_bar
from toolkit.vectors import Vectors


def pad(
    corpus: np.ndarray,
    documents: int,
    path: Path,
    *,
    others: np.ndarray | None = None,
    like: np.ndarray | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Vectors:
    """The corpus first, then `others` as far as there are any, then drawn vectors; memory-mapped from `path`.

    corpus, others, like : (n, dim) float32 unit rows. Vectors are drawn after `like`, by default after the corpus:
    where a corpus holds some documents more often than further ones will, it is those that the further ones resemble.
    A file that an interrupted call left is continued; one of other contents must lie elsewhere. Raises ResultsError
    where the disk refuses it.
    """
    shape = (documents, corpus.shape[1])
    given = [corpus] if others is None else [corpus, others[: documents - len(corpus)]]
    known = sum(map(len, given))
    marks = path.with_name(f"{path.name}.json")
    with writing(path):
        done = _done(path, marks, shape)
        rows = np.lib.format.open_memmap(path, mode="r+" if done else "w+", dtype=np.float32, shape=shape)
        if not done:
            np.concatenate(given, out=rows[:known])
            rows.flush()
        done = max(done, known)
        if done < documents:
            with progress_bar(total=documents, label="draw distractors", unit="doc", show=progress) as bar:
                bar.update(done)
                source = Distractors(corpus if like is None else like, seed=seed)
                while done < documents:
                    size = min(BLOCK_ROWS, documents - done)
                    rows[done : done + size] = source.block((done - known) // BLOCK_ROWS, size)
                    rows.flush()
                    done += size
                    write_atomically(marks, json.dumps({"rows": done}).encode())
                    bar.update(size)
        del rows
    return Vectors.open(path)


def _done(path: Path, marks: Path, shape: tuple[int, int]) -> int:
    """Rows of an earlier call that are there; 0 for none, or for a file that is not whole."""
    try:
        there = np.load(path, mmap_mode="r", allow_pickle=False)
        return int(parse_json(marks.read_bytes())["rows"]) if there.shape == shape else 0
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return 0
