"""``toolkit report``: a results folder's charts and report, drawn again."""

from __future__ import annotations

from toolkit.cli.options import Folder


def report(folder: Folder) -> None:
    """Draw the charts and the report of a results folder again; needs neither model nor FAISS."""
    from toolkit.decide.evidence import headline
    from toolkit.experiment.results import Results
    from toolkit.report.write import write_report

    results = Results.load(folder)
    print(f"report: {write_report(results)}")
    print(headline(results))
