"""The check of one server: every probe of the table in turn, and what was found, for a terminal, a notebook and CI."""

from __future__ import annotations

import html
from dataclasses import asdict, dataclass, replace
from typing import Any

from toolkit.conformance.cost import Cost
from toolkit.conformance.probes import PROBES, Probe
from toolkit.conformance.server import CheckedServer
from toolkit.conformance.subject import TEXTS, Level, Subject, skipped
from toolkit.data.sets import RetrievalSet
from toolkit.embedding.protocol import Embedder
from toolkit.errors import ServerError
from toolkit.progress import progress_bar

_STYLES = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red", Level.SKIPPED: "dim"}


@dataclass(frozen=True)
class Finding:
    """What one probe found.

    seen : with figures. means, mends, upstream : as in the table of probes, empty where all is well.
    ndcg_cost : nDCG@10 that a client loses by trusting the server in this; None where it was not measured.
    """

    probe: str
    level: Level
    seen: str
    sends: str
    means: str = ""
    mends: str = ""
    upstream: str = ""
    ndcg_cost: float | None = None


@dataclass(frozen=True)
class Conformance:
    """What a check found. `findings` has every probe, also those without a finding."""

    url: str
    model: str
    api: str
    full_dim: int
    findings: tuple[Finding, ...]

    @property
    def problems(self) -> tuple[Finding, ...]:
        """Those that warn or fail."""
        return tuple(finding for finding in self.findings if finding.level in (Level.WARN, Level.FAIL))

    @property
    def conformant(self) -> bool:
        """Whether nothing failed; warnings are for people."""
        return not any(finding.level is Level.FAIL for finding in self.findings)

    def __getitem__(self, probe: str) -> Finding:
        for finding in self.findings:
            if finding.probe == probe:
                return finding
        raise KeyError(f"{probe}: choose from {', '.join(finding.probe for finding in self.findings)}")

    @property
    def headline(self) -> str:
        """One line."""
        counts = {level: sum(finding.level is level for finding in self.findings) for level in Level}
        return (
            f"{self.model} at {self.url} ({self.api} API, {self.full_dim} numbers): {counts[Level.FAIL]} fail, "
            f"{counts[Level.WARN]} warn, {counts[Level.OK]} ok, {counts[Level.SKIPPED]} skipped"
        )

    def to_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        found = [{**asdict(finding), "level": str(finding.level)} for finding in self.findings]
        return {
            "url": self.url,
            "model": self.model,
            "api": self.api,
            "full_dim": self.full_dim,
            "conformant": self.conformant,
            "findings": found,
        }

    def __rich__(self) -> Any:  # noqa: ANN401 - a rich renderable, imported when shown
        from rich.table import Table
        from rich.text import Text

        table = Table(title=Text(self.headline), show_lines=True)
        for name in ("probe", "level", "seen", "what it means, and what mends it"):
            table.add_column(name)
        for finding in self.findings:
            table.add_row(
                finding.probe,
                Text(finding.level, _STYLES[finding.level]),
                Text(finding.seen),
                Text(_advice(finding)),
            )
        return table

    def _repr_html_(self) -> str:
        rows = "".join(
            "<tr>"
            + "".join(
                f"<td style='text-align:left'>{html.escape(text)}</td>"
                for text in (finding.probe, str(finding.level), finding.seen, _advice(finding))
            )
            + "</tr>"
            for finding in self.findings
        )
        head = "<tr><th>probe</th><th>level</th><th>seen</th><th>what it means, and what mends it</th></tr>"
        return f"<p>{html.escape(self.headline)}</p><table>{head}{rows}</table>"


def _advice(finding: Finding) -> str:
    if finding.level not in (Level.WARN, Level.FAIL):
        return ""
    lines = [finding.means, f"mend: {finding.mends}"]
    if finding.upstream:
        lines.append(f"also: {finding.upstream}")
    if finding.ndcg_cost is not None:
        lines.append(f"costs {finding.ndcg_cost:+.3f} nDCG@10")
    return "\n".join(lines)


def check_server(
    url: str,
    model: str,
    *,
    reference: Embedder | None = None,
    data: RetrievalSet | None = None,
    risky: bool = False,
    key: str | None = None,
    timeout_s: float = 60.0,
    progress: bool = True,
) -> Conformance:
    """Ask everything; raises ServerError if the server cannot be reached or gives no vectors at all."""
    with CheckedServer(url, model, key=key, timeout_s=timeout_s) as server:
        subject = Subject(server, reference)
        full_dim = subject.full_dim  # nothing can be checked without vectors
        cost = None if data is None else Cost(subject, data)
        findings = []
        with progress_bar(total=len(PROBES), label="check", unit="probe", show=progress) as bar:
            down_since = None
            for probe in PROBES:
                if down_since is None:
                    found = _found(probe, subject, cost, risky=risky)
                    if found.level in (Level.WARN, Level.FAIL) and server.ask([TEXTS[0]]).status == 0:
                        down_since = probe.name
                        seen = f"the server no longer answers since this probe: {found.seen}"
                        found = replace(found, level=Level.FAIL, seen=seen)
                else:
                    seen = f"not asked: the server no longer answers since {down_since}"
                    found = Finding(probe.name, Level.SKIPPED, seen, probe.sends)
                findings.append(found)
                bar.update()
        return Conformance(server.address.url, model, server.address.shape.name, full_dim, tuple(findings))


def _found(probe: Probe, subject: Subject, cost: Cost | None, *, risky: bool) -> Finding:
    if probe.risky and not risky:
        verdict = skipped("could take the server down; ask for it with risky=True")
    else:
        try:
            verdict = probe.run(subject)
        except ServerError as error:
            verdict = skipped(f"could not be asked: {error}")
    finding = Finding(probe.name, verdict.level, verdict.seen, probe.sends)
    if verdict.level not in (Level.WARN, Level.FAIL):
        return finding
    finding = replace(finding, means=probe.means, mends=probe.mends, upstream=probe.upstream)
    if cost is None or probe.handling is None:
        return finding
    try:
        return replace(finding, ndcg_cost=cost.of(probe.handling))
    except ServerError as error:
        return replace(finding, seen=f"{finding.seen} ({error})")
