"""How long encoding mteb's tasks may take, by the sizes that mteb publishes with them. Loads no data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mteb.abstasks.abstask import AbsTask

from toolkit.embedding.protocol import Embedder
from toolkit.experiment.outlook import encode_seconds

# What a second of encoding is measured on: about a paragraph each.
_PROBE = [f"paragraph {i} of a task: " + "what is said here is said again. " * 8 for i in range(64)]


def seconds_of_tasks(
    embedder: Embedder, tasks: Sequence[AbsTask], *, instructions: int = 1
) -> tuple[float, int]:
    """Seconds for all characters of the tasks, encoded once per instruction; and how many tasks say no size.

    Vectors that are in the cache already are not known here, so it is a bound.
    """
    sizes = [_characters(task) for task in tasks]
    per_character = encode_seconds(embedder, _PROBE) / sum(map(len, _PROBE))
    known = [size for size in sizes if size is not None]
    return per_character * sum(known) * instructions, len(sizes) - len(known)


def _characters(task: AbsTask) -> int | None:
    stats = task.metadata.descriptive_stats
    if not stats:
        return None
    splits = [stats[split] for split in task.metadata.eval_splits if split in stats]
    found = [one.get("number_of_characters") for one in splits if isinstance(one, Mapping)]
    return sum(found) if found and all(isinstance(one, int) for one in found) else None
