"""Measures the claims one after another; each is on disk before the next begins."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from toolkit.claims import meaning, scenarios, server, speed, vectors
from toolkit.claims.bench import Bench, server_config
from toolkit.claims.claim import OPEN, Claim, Finding, Outcome
from toolkit.claims.outcomes import Claims
from toolkit.claims.page import page
from toolkit.embedding.open import open_embedder
from toolkit.embedding.protocol import Embedder
from toolkit.errors import PlanError, ResultsError, ToolkitError
from toolkit.experiment.environment import environment
from toolkit.files import write_atomically
from toolkit.progress import progress_bar
from toolkit.redact import redacted

ALL: tuple[Claim, ...] = (
    *vectors.CLAIMS,
    *speed.CLAIMS,
    *server.CLAIMS,
    *meaning.CLAIMS,
    *scenarios.CLAIMS,
)
JSON, HTML = "claims.json", "claims.html"


def measure_claims(
    embedder: str | Embedder = "static",
    *,
    data: str | Path | None = None,
    server: str | None = None,
    only: Sequence[str] | None = None,
    most: int = 2_000,
    repeats: int = 100,
    out: str | Path | None = None,
    progress: bool = True,
) -> Claims:
    """Measure each claim with what is at hand; what that cannot decide says why, and the command that would.

        measure_claims("static")["storage-saved"].verdict      # 'does not hold'

    embedder : a spec, or an open embedder, which stays open.
    data : a folder that holds evaluation sets by name (``tatoeba``, ``xquad``, ``qmsum``, ``stard_goldpool``,
        ``policyqa``, ``cosqa``, ``icecat_chorus``); without it the built-in set is all there is.
    server : ``http://host:port/v1#<model>`` for what is claimed of servers.
    only : keys of the claims to measure; all if not given.
    most : queries, pairs or documents of one measurement at most; 0 takes all.
    repeats : samples of each latency.
    out : folder for claims.json and claims.html; None writes nothing.

    Raises PlanError for an unknown key or folder, and what opening the embedder raises. A measurement that fails
    is a claim that cannot be decided here.
    """
    chosen = _chosen(only)
    folder = None if data is None else Path(data)
    if folder is not None and not folder.is_dir():
        raise PlanError(
            f"data {str(folder)!r} is not a folder; give the one that holds tatoeba, stard_goldpool .."
        )
    config = server_config(server)
    if repeats < 10 or most < 0:
        raise PlanError(f"repeats {repeats} must be at least 10, and most {most} at least 0 (0 takes all)")
    opened = open_embedder(embedder)
    try:
        spec = embedder if isinstance(embedder, str) else opened.space.model
        bench = Bench(spec, opened, folder, config, most or 10**9, repeats, progress=progress)
        about = environment(opened.space)
        outcomes: list[Outcome] = []
        with progress_bar(total=len(chosen), label="claims", unit="claim", show=progress) as bar:
            for claim in chosen:
                bar.set_postfix_str(claim.key)
                outcomes.append(_measured(claim, bench, data=data, server=server))
                if out is not None:
                    _write(Claims(outcomes, about), Path(out))
                bar.update()
    finally:
        if isinstance(embedder, str):
            opened.close()
    return Claims(outcomes, about)


def _chosen(only: Sequence[str] | None) -> list[Claim]:
    known = {claim.key: claim for claim in ALL}
    for key in only or ():
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise PlanError(f"unknown claim {key!r}{hint} (choose from: {', '.join(known)})")
    return [claim for claim in ALL if not only or claim.key in only]


def _measured(claim: Claim, bench: Bench, *, data: str | Path | None, server: str | None) -> Outcome:
    try:
        found = claim.measure(bench)
    except ToolkitError as error:
        found = Finding(OPEN, why=str(error))
    words = ["toolkit", "claims", "--only", claim.key]
    given = {"--embedder": bench.spec, "--data": data, "--server": server and redacted(server)}
    words += [
        word
        for option, value in given.items()
        if value is not None and option not in found.needs
        for word in (option, str(value))
    ]
    needs = f" {found.needs}" if found.needs and not found.needs.startswith("--only") else ""
    return Outcome.of(claim, found, shlex.join(words) + needs)


def _write(claims: Claims, out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / JSON, claims.as_json().encode())
        write_atomically(out / HTML, page(claims.outcomes, claims.about).encode())
    except OSError as error:
        raise ResultsError(f"{out} cannot be written ({error.strerror}); check its permissions") from error
