"""The load generator against a real server: what it sends, counts and times."""

from __future__ import annotations

import json
import threading
import time

import numpy as np
import pytest

from tests.embedding_server import MODEL, EmbeddingServer, status
from toolkit.conformance.load import Load, _client_limit, run_load
from toolkit.errors import PlanError, ServerError

TEXTS = [["one"], ["two"], ["three"]]


@pytest.fixture
def server():
    with EmbeddingServer() as running:
        yield running


def test_a_closed_loop_keeps_its_clients_busy_and_no_more(server):
    server.delay_s = 0.02
    result = run_load(Load(server.url, MODEL, TEXTS, clients=4, processes=2, seconds=0.6, warm_up=4))
    assert server.most_at_once == 4
    assert result.processes == 2
    assert not result.failures
    assert result.percentile_ms(0) >= 20
    assert len(result.latencies_ms) == len(server.requests) - 4
    assert result.requests_per_s <= 1.1 * 4 / 0.02
    assert result.requests_per_s * result.duration_s == pytest.approx(len(result.latencies_ms))
    assert {request["input"][0] for request in server.requests} == {"one", "two", "three"}


def test_it_stops_after_so_many_requests_and_sends_the_dimension(server):
    result = run_load(
        Load(
            server.url, MODEL, [["a", "b"]], clients=2, seconds=30, most_requests=10, warm_up=1, dimensions=8
        )
    )
    assert len(result.latencies_ms) == 10
    assert result.texts_per_request == 2
    assert {request["dimensions"] for request in server.requests} == {8}
    json.dumps(result.row())


def test_an_open_loop_counts_from_when_a_request_was_due(server):
    """One place and a stall: the requests that waited for a place were dropped, none was sent late unseen."""
    stalled = threading.Event()

    def stall(request):
        if len(server.requests) == 6 and not stalled.is_set():
            stalled.set()
            time.sleep(0.5)

    server.always = stall
    result = run_load(Load(server.url, MODEL, TEXTS, clients=1, rate=50, seconds=1.5, warm_up=1))
    assert result.dropped >= 10
    assert result.percentile_ms(100) >= 500
    assert len(result.latencies_ms) + result.dropped == pytest.approx(75, abs=35)


def test_failures_are_counted_by_kind(server):
    run = Load(server.url, MODEL, TEXTS, clients=1, seconds=20, most_requests=8, warm_up=1)
    server.always = lambda request: status(429)(request) if len(server.requests) % 2 == 0 else None
    result = run_load(run)
    assert result.failures == {"HTTP 429": 4}
    assert len(result.latencies_ms) == 4


def test_a_server_that_refuses_everything_is_an_error(server):
    server.always = status(401)
    with pytest.raises(ServerError, match="HTTP 401"):
        run_load(Load(server.url, MODEL, TEXTS, clients=1, seconds=1))


def test_the_client_says_when_it_is_the_limit():
    calm = np.full(100, 50.0)
    assert _client_limit(0.5, 2.0, calm, 1) is None
    assert "90% of a core" in _client_limit(0.9, 2.0, calm, 1)
    assert "40 ms late" in _client_limit(0.5, 40.0, calm, 2)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(PlanError, match="clients 0"):
        Load("http://127.0.0.1:1/v1", "m", TEXTS, clients=0)
    with pytest.raises(PlanError, match="at least one text"):
        Load("http://127.0.0.1:1/v1", "m", [[]])
