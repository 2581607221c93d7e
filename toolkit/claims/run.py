"""Measures the claims one after another; each is on disk before the next begins."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

from toolkit.claims import meaning, scenarios, server, speed, vectors
from toolkit.claims.bench import Bench, server_config
from toolkit.claims.claim import OPEN, Claim, Finding, Outcome
from toolkit.claims.outcomes import Claims
from toolkit.claims.page import page
from toolkit.embedding.config import RemoteConfig
from toolkit.embedding.open import open_embedder
from toolkit.embedding.protocol import Embedder
from toolkit.errors import PlanError, ResultsError, ToolkitError
from toolkit.experiment.environment import environment
from toolkit.experiment.machine import HostLoad, usable_cores
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
_BUSY_SHARE = 0.1  # of the cores; more in other programs' hands makes timings doubtful
_REST_S = 1.0


def measure_claims(
    embedder: str | Embedder = "static",
    *,
    data: str | Path | None = None,
    server: str | None = None,
    serve: bool = False,
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
    server : ``http://host:port/v1#<model>`` for what is claimed of servers. serve : starts one of this package over the
        embedder instead, for as long as this takes.
    only : keys of the claims to measure; all if not given.
    most : queries, pairs or documents of one measurement at most; 0 takes all.
    repeats : samples of each latency.
    out : folder for claims.json and claims.html; None writes nothing. What is there of other claims stays.

    Raises PlanError for an unknown key or folder, ResultsError if `out` holds something else, and what opening the
    embedder raises. A measurement that fails is a claim that cannot be decided here.
    """
    chosen = _chosen(only)
    folder = None if data is None else Path(data)
    if folder is not None and not folder.is_dir():
        raise PlanError(
            f"data {str(folder)!r} is not a folder; give the one that holds tatoeba, stard_goldpool .."
        )
    config = server_config(server)
    if serve and server is not None:
        raise PlanError(f"server {server!r} and serve=True are two servers; leave one out")
    if repeats < 10 or most < 0:
        raise PlanError(f"repeats {repeats} must be at least 10, and most {most} at least 0 (0 takes all)")
    place = None if out is None else Path(out)
    claims = Claims([], {})
    if place is not None and (place / JSON).is_file():
        claims = Claims.load(place / JSON)
    with ExitStack() as held:
        opened = open_embedder(embedder)
        if isinstance(embedder, str):
            held.callback(opened.close)
        spec = embedder if isinstance(embedder, str) else opened.space.model
        if serve:
            config = held.enter_context(_served(opened))
        bench = Bench(spec, opened, folder, config, serve, most or 10**9, repeats, progress=progress)
        about = environment(opened.space)
        at = str(about["date_utc"])
        options = _options(bench, data=data, server=server)
        order = [claim.key for claim in ALL]
        with progress_bar(total=len(chosen), label="claims", unit="claim", show=progress) as bar:
            for claim in chosen:
                bar.set_postfix_str(claim.key)
                one = _measured(claim, bench, at, options)
                claims = claims.and_later(Claims([one], {at: about}), order)
                claims = replace(claims, again=_again(claims, options, place))
                if place is not None:
                    _write(claims, place)
                bar.update()
    return claims


@contextmanager
def _served(embedder: Embedder) -> Iterator[RemoteConfig]:
    """The config of a server of this package over an embedder that stays open."""
    from toolkit.serve.run import RunningServer
    from toolkit.serve.settings import ServeSettings

    with RunningServer(lambda: cast("Embedder", _StaysOpen(embedder)), ServeSettings(port=0)) as running:
        yield RemoteConfig(base_url=running.url, model=embedder.space.model)


class _StaysOpen:
    """An embedder that who uses it cannot close."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._embedder, name)

    def close(self) -> None:
        """Nothing: it belongs to someone else."""


def _chosen(only: Sequence[str] | None) -> list[Claim]:
    known = {claim.key: claim for claim in ALL}
    for key in only or ():
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise PlanError(f"unknown claim {key!r}{hint} (choose from: {', '.join(known)})")
    return [claim for claim in ALL if not only or claim.key in only]


def _measured(claim: Claim, bench: Bench, at: str, options: Mapping[str, str]) -> Outcome:
    others = _others_at_rest() if claim.timed else None
    load = HostLoad()
    try:
        found = claim.measure(bench)
    except ToolkitError as error:
        found = Finding(OPEN, why=str(error))
    if claim.timed:
        others = max(others, _others_at_rest())
        if bench.server is None or bench.serves_embedder:  # else the server's own work is another program's
            others = max(others, float(load.facts()["cores_used_by_others"]))
    needs = "" if found.needs.startswith("--only") else found.needs
    kept = {option: value for option, value in options.items() if option not in needs}
    return Outcome.of(
        claim,
        found,
        f"{_command([claim.key], kept)} {needs}".rstrip(),
        measured_at=at,
        cores_used_by_others=others,
        run_again=others is not None and others > _BUSY_SHARE * usable_cores(),
    )


def _others_at_rest() -> float:
    """Cores that other programs use while this one waits."""
    load = HostLoad()
    time.sleep(_REST_S)
    return float(load.facts()["cores_used_by_others"])


def _options(bench: Bench, *, data: str | Path | None, server: str | None) -> dict[str, str]:
    """What was given, by option; an option without a value has an empty one."""
    given = {"--embedder": bench.spec, "--data": data, "--server": server and redacted(server)}
    options = {option: str(value) for option, value in given.items() if value is not None}
    return options | ({"--serve": ""} if bench.serves_embedder else {})


def _command(keys: Sequence[str], options: Mapping[str, str]) -> str:
    words = ["toolkit", "claims", "--only", ",".join(keys)]
    return shlex.join([*words, *(word for option in options.items() for word in option if word)])


def _again(claims: Claims, options: Mapping[str, str], out: Path | None) -> str:
    """The command for all outcomes that others disturbed, with this run's options."""
    keys = [one.key for one in claims.outcomes if one.run_again]
    return _command(keys, {**options, **({} if out is None else {"--out": str(out)})}) if keys else ""


def _write(claims: Claims, out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / JSON, claims.as_json().encode())
        write_atomically(out / HTML, page(claims.outcomes, claims.runs, claims.again).encode())
    except OSError as error:
        raise ResultsError(f"{out} cannot be written ({error.strerror}); check its permissions") from error
