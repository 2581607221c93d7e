"""``toolkit doctor``: what this installation has, and the next step for what it lacks."""

from __future__ import annotations

import json
from typing import Annotated

import typer

_SIGNS = {"ok": "ok", "lacking": "--", "problem": "!!"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="one JSON list, for a bug report")] = False,
    hub: Annotated[bool, typer.Option(help="ask whether the model hub can be reached")] = True,
) -> None:
    """Look at GPU, FAISS, extras, hub, caches, disk and threads; say the next step for each lack.

    ok is there, -- is lacking and only some commands need it, !! will fail or mislead; then the exit code is 1.
    """
    from toolkit.experiment.installation import examine

    findings = []
    for finding in examine(hub=hub):
        findings.append(finding)
        if not as_json:
            print(f"{_SIGNS[finding.state]}  {finding.subject:14} {finding.found}", flush=True)
            if finding.next_step:
                print(f"    {'':14} -> {finding.next_step}", flush=True)
    if as_json:
        print(json.dumps([finding.as_dict() for finding in findings], indent=2))
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(1)
