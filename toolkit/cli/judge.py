"""``toolkit judge``: a person judges documents of the queries that decide most."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.options import DATA, Folder


def judge(
    folder: Folder,
    most: Annotated[int, typer.Option(help="queries to judge at most; fewer where one is drawn again")] = 50,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            help="a setting in question, by its name in measurements.csv; repeatable; else those undecided"
        ),
    ] = None,
    metric: Annotated[str | None, typer.Option(help="ndcg@10, recall@10 ..; else the sweep's first")] = None,
    keep: Annotated[float | None, typer.Option(help="share of the full setting's quality to keep")] = None,
    grades: Annotated[
        int | None, typer.Option(help="largest gain: 3 for gains 0 to 3, 1 for relevant or not")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="of the draws")] = None,
    name: Annotated[str | None, typer.Option(help="who judges; else the user's name here")] = None,
    data: Annotated[str | None, typer.Option(help=f"where the data set lies now: {DATA}")] = None,
    new_round: Annotated[
        bool, typer.Option("--new-round", help="begin another round, about what is in question now")
    ] = False,
    export: Annotated[
        Path | None, typer.Option(help="write what was judged as BEIR qrels to this file, and ask nothing")
    ] = None,
) -> None:
    """Judge documents of unlabelled queries, drawn where the settings in question can lose most.

    Every answer is kept at once in FOLDER/judgements; the same command goes on where the last one stopped. Keys
    come from the terminal, or line by line from a pipe.
    """
    from toolkit.judge.export import export_qrels

    if export is not None:
        print(export_qrels(folder, export))
        return
    from toolkit.cli.judging import judge_in_terminal
    from toolkit.decide.judging import judging_session
    from toolkit.experiment.results import Results

    session = judging_session(
        Results.load(folder),
        settings=setting or None,
        metric=metric,
        keep=keep,
        most=most,
        most_gain=grades,
        seed=seed,
        judge=name,
        data=data,
        new_round=new_round,
    )
    judge_in_terminal(session)
    print(session.summary)
