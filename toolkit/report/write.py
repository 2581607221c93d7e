"""Writes the report of a results folder: its charts as files, and one page that shows all of it.

Needs neither model nor FAISS.
"""

from __future__ import annotations

from pathlib import Path

from toolkit.decide.dimension import headline_of
from toolkit.decide.evidence import judged, recommended, with_recommendation
from toolkit.errors import ResultsError
from toolkit.experiment.results import Results
from toolkit.files import write_atomically
from toolkit.report.kinds import kinds

_WIDE = ("precision", "throughput")


def write_report(results: Results) -> Path:
    """Draw ``charts/*.png``, ``charts/*.svg`` and ``report.html`` into the results folder.

    Returns the path of report.html; raises ResultsError if the folder cannot be written.
    """
    from toolkit.report.html import Page, Picture, render
    from toolkit.report.style import inline_svg, save_chart

    recommendation = recommended(results)
    frame = with_recommendation(judged(results), recommendation)
    told = headline_of(frame)
    folder = results.folder / "charts"
    path = results.folder / "report.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        pictures = []
        for name, kind in kinds().items():
            if not kind.possible(frame):
                continue
            _, svg = save_chart(kind.draw(frame), folder / name)
            inline = inline_svg(svg.read_bytes(), f"p{len(pictures)}", kind.caption)
            pictures.append(Picture(name, kind.title, kind.caption, inline, wide=name in _WIDE))
        page = Page(
            title=f"{results.name}: embedding trade-offs",
            headline=told,
            pictures=pictures,
            frame=frame,
            environment=results.environment,
            plan_toml=results.plan_text,
            notes=results.notes,
            recommendation=recommendation,
        )
        write_atomically(path, render(page).encode())
    except OSError as error:
        raise ResultsError(
            f"{results.folder} cannot be written ({error.strerror}); check its permissions"
        ) from error
    return path
