"""Judgements as a file of qrels that any tool reads. Knows no setting."""

from __future__ import annotations

from pathlib import Path

from toolkit.errors import ResultsError
from toolkit.files import write_atomically
from toolkit.judge.design import FOLDER, load_rounds
from toolkit.judge.journal import JOURNAL, Journal
from toolkit.judge.judged import is_whole


def export_qrels(results_folder: Path, file: Path) -> str:
    """Write the judgements of all queries that are judged whole as BEIR's qrels; returns what was done.

    A query that is judged in part would look as if what was not asked yet were not relevant.

    Raises ResultsError if nothing was judged or the file cannot be written.
    """
    folder = results_folder / FOLDER
    gains = Journal(folder / JOURNAL).gains
    whole = {
        query_id
        for design in load_rounds(folder)
        for query_id in design.rankings
        if query_id in gains and is_whole(design, query_id, gains)
    }
    if not whole:
        raise ResultsError(
            f"{results_folder} has no query that is judged whole; judge some with: toolkit judge {results_folder}"
        )
    rows = [
        (query_id, doc_id, str(gain))
        for query_id, of_query in gains.items()
        if query_id in whole
        for doc_id, gain in of_query.items()
    ]
    odd = next((cell for row in rows for cell in row if any(mark in cell for mark in "\t\r\n")), None)
    if odd is not None:
        raise ResultsError(
            f"id {odd!r} has a tab or line break, which a file of qrels cannot hold; rename it"
        )
    text = "".join("\t".join(row) + "\n" for row in [("query-id", "corpus-id", "score"), *rows])
    try:
        write_atomically(file, text.encode("utf-8", "surrogatepass"))
    except OSError as error:
        raise ResultsError(f"{file} cannot be written ({error.strerror}); choose another file") from error
    left_out = sum(len(of_query) for query_id, of_query in gains.items() if query_id not in whole)
    more = f"; {left_out} of queries judged in part are left out" if left_out else ""
    return f"{file}: {len(rows):,} judgements of {len(whole):,} queries{more}"
