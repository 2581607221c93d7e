"""`toolkit bench serve` against real servers: what is asked, what stands in the table, and when it refuses."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.embedding_server import DIM, MODEL, EmbeddingServer, status
from toolkit.cli import main
from toolkit.conformance.speed import ServerPlan, measure_server
from toolkit.errors import PlanError, ServerError


@pytest.fixture
def server():
    with EmbeddingServer() as running:
        yield running


def plan(**more) -> ServerPlan:
    return ServerPlan(**{"clients": (2,), "seconds": 0.2, "processes": 1} | more)


def test_every_combination_is_one_load(server, tmp_path):
    (tmp_path / "texts.txt").write_text("one\ntwo words\nthree more words\n")
    found = measure_server(
        server.url,
        workload=str(tmp_path / "texts.txt"),
        plan=plan(clients=(1, 2), dims=(8, DIM), texts_per_request=(1, 4)),
    )
    loads = {(one.clients, one.dimensions, one.texts_per_request) for one in found.results}
    assert loads == {(clients, dim, size) for clients in (1, 2) for dim in (8, DIM) for size in (1, 4)}
    assert (found.model, found.full_dim) == (MODEL, DIM)
    assert all(one.requests_per_s > 0 and not one.failures for one in found.results)
    sent = {(len(request["input"]), request.get("dimensions")) for request in server.requests[3:]}
    assert sent == {(1, 8), (4, 8), (1, DIM), (4, DIM)}
    large = max(found.results, key=lambda one: one.texts_per_request)
    assert large.texts_per_s == pytest.approx(4 * large.requests_per_s)


def test_rates_are_an_open_loop_bounded_by_the_clients(server):
    server.delay_s = 0.1
    [result] = measure_server(server.url, plan=plan(rates=(100.0,), seconds=0.5)).results
    assert result.rate == 100
    assert server.most_at_once == 2
    assert result.dropped > 10


def test_the_command_shows_a_table_and_writes_it(server, tmp_path, capsys):
    file = tmp_path / "new" / "speed.json"
    options = ["--concurrency", "1,2", "--seconds", "0.2", "--processes", "1", "--json", str(file)]
    with pytest.raises(SystemExit) as ended:
        main(["bench", "serve", f"{server.url}#{MODEL}", *options])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "p99 ms" in shown
    assert MODEL in shown
    loads = json.loads(file.read_text())["loads"]
    assert [load["clients"] for load in loads] == [1, 2]
    assert all(load["p50_ms"] <= load["p95_ms"] <= load["p99_ms"] for load in loads)


def test_failures_are_shown_and_end_in_exit_code_1(server, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    server.always = lambda request: status(429)(request) if len(server.requests) % 2 else None
    server.requests.append({})  # the first question, for the vector's length, is answered
    options = ["--concurrency", "1", "--seconds", "0.2", "--processes", "1"]
    with pytest.raises(SystemExit) as ended:
        main(["bench", "serve", server.url, *options])
    assert ended.value.code == 1
    assert "HTTP 429" in capsys.readouterr().out


def test_a_client_that_was_the_limit_is_told(server):
    found = measure_server(server.url, plan=plan())
    assert found.client_limits == ()
    limited = replace(found.results[0], client_limit="a client process used 99% of a core")
    told = replace(found, results=(limited,))
    assert "2 clients, 1 texts a request: the client was the limit" in told.client_limits[0]


def test_a_server_that_ignores_the_dimension_has_no_figure_under_its_name(server):
    def whole(request):
        request.pop("dimensions", None)

    server.always = whole
    with pytest.raises(ServerError, match=f"dimensions=8 with {DIM} numbers"):
        measure_server(server.url, plan=plan(dims=(8,)))


def test_what_cannot_be_measured(server, capsys):
    with pytest.raises(PlanError, match=f"choose 1..{DIM}"):
        measure_server(server.url, plan=plan(dims=(8, 100)))
    with pytest.raises(PlanError, match=r"clients=\(0,\)"):
        plan(clients=(0,))
    server.models = None
    with pytest.raises(PlanError, match=r"lists no models; name one"):
        measure_server(server.url, plan=plan())
    with pytest.raises(SystemExit):
        main(["bench", "serve", server.url, "--concurrency", "1,x"])
    assert "--concurrency 1,x cannot be read; write whole numbers between commas" in capsys.readouterr().err
