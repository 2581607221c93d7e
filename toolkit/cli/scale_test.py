"""``toolkit scale-test``: a setting of a results folder over as many documents as one plans for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.confirm import YES, go_on
from toolkit.cli.options import DATA, Folder


def scale_test(
    folder: Folder,
    documents: Annotated[str, typer.Option(help="size to measure at: 250k, 1e6, 10M")],
    setting: Annotated[
        str | None, typer.Option(help="by its name in measurements.csv; else the recommended")
    ] = None,
    distractors: Annotated[
        Path | None,
        typer.Option(help="texts of other documents, one per line or .jsonl; else vectors are drawn"),
    ] = None,
    data: Annotated[str | None, typer.Option(help=f"where the data set lies now: {DATA}")] = None,
    yes: YES = False,
) -> None:
    """Pad the corpus to a size, build the real index there, and measure recall, latency and memory.

    The index is the one that would be run at that size: lists, probes and graph width follow the corpus. The same
    command goes on where an interrupted one stopped.
    """
    from toolkit.at_scale.run import scale_test as run
    from toolkit.data.text_files import read_texts
    from toolkit.decide.cost import parse_count
    from toolkit.experiment.outlook import duration
    from toolkit.experiment.results import Results

    print(
        run(
            Results.load(folder),
            parse_count(documents),
            setting=setting,
            distractors=None if distractors is None else read_texts(distractors),
            data=data,
            before=lambda seconds: go_on(f"about {duration(seconds)}", seconds, yes=yes),
        )
    )
