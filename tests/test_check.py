"""The check finds each fault by the probe meant for it, and nothing in an honest server."""

from __future__ import annotations

import json
import socket
import threading

import pytest

import toolkit
from tests.faulty_server import FAULTS, FaultyServer
from toolkit.cli import main
from toolkit.conformance.probes import PROBES
from toolkit.conformance.subject import Level
from toolkit.errors import ServerError

FOUND_BY = {
    "ignored": {"dimensions"},
    "unnormalized cut": {"dimension_norm"},
    "other cut": {"dimension_prefix"},
    "no bounds": {"dimension_bounds"},
    "index": {"order"},
    "coalescing": {"concurrency"},
    "truncation": {"silent_truncation"},
    "base64 as float64": {"base64"},
    "usage": {"usage"},
    "nan": {"odd_texts"},
    "count": {"count"},
    "no errors": {"errors"},
    "padding": {"batch_invariance"},
    "prompt": {"reference"},
    "token ids": {"token_ids"},
}


@pytest.fixture(scope="module")
def static():
    with toolkit.open_embedder("static") as embedder:
        yield embedder


def test_an_honest_server_has_no_findings(static):
    with FaultyServer(static) as server:
        found = toolkit.check(server.url, model="static", reference=static, risky=True, progress=False)
    assert [(finding.probe, finding.seen) for finding in found.problems] == []
    assert {finding.probe for finding in found.findings if finding.level is Level.SKIPPED} == set()
    assert found.conformant


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_by_the_probe_meant_for_it(static, fault):
    with FaultyServer(static, fault) as server:
        found = toolkit.check(server.url, model="static", reference=static, progress=False)
    failed = {finding.probe for finding in found.findings if finding.level is Level.FAIL}
    assert failed == FOUND_BY[fault], [(finding.probe, finding.seen) for finding in found.problems]
    assert not found.conformant


def test_a_server_that_goes_down_is_the_finding_of_the_probe_that_did_it(static, monkeypatch):
    with FaultyServer(static) as server:
        honest = server.answer
        down = threading.Event()

        def answer(body):
            if len(body) > 10_000:  # long_texts is the first to send so much
                down.set()
            if down.is_set():
                raise ConnectionResetError
            return honest(body)

        monkeypatch.setattr(server, "answer", answer)
        monkeypatch.setattr(server._http, "handle_error", lambda *_: None)
        found = toolkit.check(server.url, model="static", reference=static, risky=True, progress=False)
    assert [finding.probe for finding in found.problems] == ["long_texts"]
    assert "no longer answers since this probe" in found["long_texts"].seen
    assert found["huge"].level is Level.SKIPPED
    assert "since long_texts" in found["huge"].seen


def test_what_a_fault_costs_is_measured_on_data(static):
    docs = {
        f"d{i}": f"{word} grows in the garden"
        for i, word in enumerate(("rose", "tulip", "oak", "fern", "moss"))
    }
    data = toolkit.retrieval_set(
        docs=docs,
        queries={"q1": "rose", "q2": "oak", "q3": "moss"},
        qrels={"q1": ["d0"], "q2": ["d2"], "q3": ["d4"]},
    )
    with FaultyServer(static, "other cut") as server:
        found = toolkit.check(server.url, model="static", data=data, progress=False)
    cost = found["dimension_prefix"].ndcg_cost
    assert cost is not None
    assert -1 <= cost <= 1
    assert found["dimensions"].ndcg_cost is None


def test_exit_codes_and_the_file(static, tmp_path, capsys):
    file = tmp_path / "found" / "check.json"
    with FaultyServer(static, "ignored") as server, pytest.raises(SystemExit) as ended:
        main(["check", server.url, "--model", "static", "--json", str(file)])
    assert ended.value.code == 1
    written = json.loads(file.read_text())
    assert not written["conformant"]
    assert {row["probe"] for row in written["findings"]} == {probe.name for probe in PROBES}
    assert "is_matryoshka" in capsys.readouterr().out.replace("\n", "")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
    with pytest.raises(SystemExit) as ended:
        main(["check", nobody, "--model", "static"])
    assert ended.value.code == 2


def test_a_notebook_shows_every_probe(static):
    with FaultyServer(static, "usage") as server:
        found = toolkit.check(server.url, model="<static>", progress=False)
    shown = found._repr_html_()
    assert all(probe.name in shown for probe in PROBES)
    assert "&lt;static&gt;" in shown
    assert "<static>" not in shown


def test_a_server_without_vectors_cannot_be_checked():
    with pytest.raises(ServerError, match="gives no vector"):
        toolkit.check("http://127.0.0.1:9/v1", model="m", progress=False)
