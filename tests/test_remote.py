"""The remote engine against a real HTTP server that behaves, and misbehaves."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from email.utils import formatdate

import numpy as np
import pytest

from tests.embedding_server import DIM, MODEL, EmbeddingServer, hash_vector, status
from toolkit.cli import main
from toolkit.embedding.config import RemoteConfig
from toolkit.embedding.open import open_embedder
from toolkit.embedding.remote import RemoteEmbedder
from toolkit.errors import ServerError, ServerWarning
from toolkit.space import Role
from toolkit.wire.client_replies import error_text

TEXTS = [f"text number {number} " + "x" * (number % 7) for number in range(25)]


@pytest.fixture
def server():
    with EmbeddingServer() as running:
        yield running


def opened(server, **settings) -> RemoteEmbedder:
    """Opened while the server behaves; what it was asked for by that is forgotten."""
    chosen = {"full_dim": DIM, "batch_size": 4, "concurrency": 3, "retries": 2, **settings}
    once, always, delay_s, edit = list(server.once), server.always, server.delay_s, server.edit
    server.once.clear()
    server.always, server.delay_s, server.edit = None, 0.0, lambda entries: entries
    embedder = RemoteEmbedder(RemoteConfig(base_url=server.url, model=MODEL, **chosen))
    server.requests.clear()
    server.once.extend(once)
    server.always, server.delay_s, server.edit = always, delay_s, edit
    return embedder


def expected(texts) -> np.ndarray:
    rows = np.stack([hash_vector(text) for text in texts])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def refused(server, *, texts=("a", "b", "c"), **settings) -> str:
    with pytest.raises(ServerError) as caught:
        opened(server, **settings).encode(list(texts))
    message = str(caught.value)
    assert "\n" not in message
    assert server.url in message
    return message


def test_vectors_are_the_servers_normalized_in_order(server):
    np.testing.assert_allclose(opened(server).encode(TEXTS), expected(TEXTS), atol=1e-6)


@pytest.mark.parametrize(
    ("path", "field", "engine"),
    [("/embed", "inputs", "tei"), ("/v2/embed", "texts", "cohere"), ("/api/embed", "input", "ollama")],
)
def test_other_apis_by_the_end_of_the_address(server, path, field, engine):
    server.path = path
    embedder = opened(server)
    np.testing.assert_allclose(embedder.encode(TEXTS), expected(TEXTS), atol=1e-6)
    assert embedder.space.engine == engine
    assert embedder.space.revision.startswith(server.url)
    assert server.url.endswith(path)
    assert all(request[field] and "encoding_format" not in request for request in server.requests)
    server.always = status(500, {"error": "out of memory"}, Retry_After="0")
    assert "out of memory" in refused(server, texts=["a"])


def test_a_server_that_pads_wrongly_is_asked_for_one_text_at_a_time(server):
    def shifted(entries):
        """In a batch, vectors that lean towards that of its first text."""
        if len(entries) > 1:
            rows = [np.frombuffer(base64.b64decode(entry["embedding"]), dtype="<f4") for entry in entries]
            for entry, row in zip(entries, rows, strict=True):
                leaning = (row + rows[-1]).astype("<f4")
                entry["embedding"] = base64.b64encode(leaning.tobytes()).decode()
        return entries

    server.edit = shifted
    config = RemoteConfig(base_url=server.url, model=MODEL, batch_size=4)
    with pytest.warns(ServerWarning, match=r"another vector in a batch than alone .* one text at a time"):
        embedder = RemoteEmbedder(config)
    server.requests.clear()
    np.testing.assert_allclose(embedder.encode(TEXTS), expected(TEXTS), atol=1e-6)
    assert len(server.requests) == len(TEXTS)


def test_the_full_dimension_is_asked_for_once_and_never_sent(server):
    embedder = opened(server, full_dim=None)
    assert embedder.space.full_dim == DIM
    embedder.encode(TEXTS)
    assert len(server.requests) == -(-len(TEXTS) // 4)
    assert all("dimensions" not in request for request in server.requests)
    assert all(request["encoding_format"] == "base64" for request in server.requests)


@pytest.mark.parametrize("accepts", [False, None], ids=["refuses base64", "ignores base64"])
def test_numbers_where_base64_is_not_known(server, accepts):
    server.accepts_base64 = accepts
    np.testing.assert_allclose(opened(server).encode(TEXTS), expected(TEXTS), atol=1e-6)
    if accepts is False:
        assert server.requests[-1]["encoding_format"] == "float"


def test_at_most_so_many_requests_at_once(server):
    server.delay_s = 0.05
    opened(server, concurrency=3, batch_size=1).encode(TEXTS[:12])
    assert server.most_at_once == 3


def test_entries_in_another_order_are_put_right(server):
    server.edit = lambda entries: entries[::-1]
    np.testing.assert_allclose(opened(server).encode(TEXTS), expected(TEXTS), atol=1e-6)


def test_empty_texts_are_not_sent(server):
    rows = opened(server).encode(["", "a", "", "b"])
    assert np.linalg.norm(rows, axis=1).round(5).tolist() == [0.0, 1.0, 0.0, 1.0]
    assert sum(len(request["input"]) for request in server.requests) == 2
    assert opened(server).encode(["", ""]).shape == (2, DIM)


def test_busy_servers_are_asked_again_when_they_say(server):
    server.once.extend(
        [status(429, Retry_After="0"), status(503, Retry_After="0"), status(429, Retry_After="0")]
    )
    np.testing.assert_allclose(opened(server, retries=3).encode(TEXTS), expected(TEXTS), atol=1e-6)


def test_a_retry_date_in_the_past_means_now(server):
    server.once.append(status(429, Retry_After=formatdate(time.time() - 60, usegmt=True)))
    np.testing.assert_allclose(opened(server).encode(["a"]), expected(["a"]), atol=1e-6)


def test_failures_without_advice_are_tried_again_after_a_wait(server):
    server.once.append(status(500, b"<html>oops</html>"))
    np.testing.assert_allclose(opened(server).encode(["a"]), expected(["a"]), atol=1e-6)
    assert len(server.requests) == 2


def test_tries_end(server):
    server.always = status(500, {"message": "out of memory"}, Retry_After="0")
    message = refused(server, texts=["a"], retries=2)
    assert "HTTP 500: out of memory" in message
    assert len(server.requests) == 3


def test_a_server_that_wants_an_hour_is_not_waited_for(server):
    server.always = status(429, {"error": {"message": "quota used up"}}, Retry_After="3600")
    assert "quota used up" in refused(server)


def test_a_refusal_is_not_repeated(server):
    opened(server).encode(["a"])
    server.always = status(413, {"error": "Validation: too many tokens", "error_type": "Validation"})
    assert "HTTP 413: Validation: too many tokens" in refused(server, texts=["a"])
    assert len(server.requests) == 1


def test_a_slow_server_times_out(server):
    server.delay_s = 5.0
    message = refused(server, texts=["a"], timeout_s=0.1, retries=0)
    assert "within 0.1 s" in message
    assert "timeout_s" in message


def test_nobody_listens():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(ServerError, match=rf"http://127.0.0.1:{port}/v1 cannot be reached.*check"):
        open_embedder(f"http://127.0.0.1:{port}/v1#m")


def test_an_unknown_model_names_those_there_are(server):
    server.models = [{"id": "bge-m3"}, {"id": "qwen3"}]
    server.always = status(404, {"object": "error", "message": "The model does not exist.", "code": 404})
    message = refused(server)
    assert "has no model 'tiny-embedder'; it serves: bge-m3, qwen3" in message
    assert f"{server.url}#bge-m3" in message


def test_an_address_without_v1(server):
    with pytest.raises(ServerError, match=r"should end in /v1"):
        open_embedder(f"{server.url.removesuffix('/v1')}#{MODEL}")


def test_a_wrong_key_names_the_variable(server, monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    server.always = status(401, {"error": {"message": "bad key"}})
    message = refused(server, api_key_env="MY_KEY")
    assert "MY_KEY" in message
    assert "secret" not in message
    assert server.headers[0]["authorization"] == "Bearer secret"


def nan_in(entries: list[dict]) -> list[dict]:
    vector = np.full(DIM, np.nan, dtype="<f4")
    entries[-1]["embedding"] = base64.b64encode(vector.tobytes()).decode()
    return entries


def with_last(**changes):
    return lambda entries: [*entries[:-1], {**entries[-1], **changes}]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda entries: entries[:-1], "2 vectors for 3 texts"),
        (lambda entries: [], "0 vectors for 3 texts"),
        (with_last(index=0), "which text each belongs to"),
        (with_last(index=None), "which text each belongs to"),
        (with_last(embedding=[1.0, 2.0]), r"lengths \[2, 48\]"),
        (with_last(embedding=[None] * DIM), "NaN or infinity for 1 of 3"),
        (nan_in, "NaN or infinity for 1 of 3"),
        (with_last(embedding="no base64!"), "neither base64 nor numbers"),
        (with_last(embedding="AAA="), "neither base64 nor numbers"),
        (with_last(embedding={"a": 1}), "neither base64 nor numbers"),
        (lambda entries: ["x"] * 3, "without embeddings"),
    ],
)
def test_answers_that_cannot_be_used(server, edit, said):
    server.edit = edit
    assert re.search(said, refused(server))


def test_another_length_than_the_full_one(server):
    assert "length 48 where full_dim says 64" in refused(server, full_dim=64)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>login page</html>", "not JSON ('<html>login page</html>')"),
        (b'{"object": "error", "message": "model is loading"}', "without embeddings: model is loading"),
        (b"[]", "without embeddings"),
        (b'{"data": null}', "without embeddings"),
    ],
)
def test_success_that_is_none(server, body, said):
    server.always = status(200, body)
    assert said in refused(server)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            {"object": "error", "message": "SGLang is flat", "type": "BadRequest", "code": 400},
            "SGLang is flat",
        ),
        ({"error": {"message": "vLLM nests", "type": "BadRequestError", "code": 400}}, "vLLM nests"),
        ({"message": "TEI is flat", "code": 422, "error_type": "Validation"}, "TEI is flat"),
        ({"error": "TEI's own route", "error_type": "Validation"}, "TEI's own route"),
        ({"detail": "FastAPI"}, "FastAPI"),
        ({"detail": [{"loc": ["body"], "msg": "Field required"}]}, "Field required"),
        ({"error": {"code": 5}}, '{"code": 5}'),
        ("two\nlines", "two lines"),
        ("", "no explanation"),
    ],
)
def test_every_dialect_of_errors(body, said):
    raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    assert error_text(raw) == said


def test_what_came_before_a_failure_is_kept(server):
    def fails_on_the_marked_text(request):
        if "BAD" in request["input"]:
            return status(400, {"message": "this text is refused"})(request)
        time.sleep(0.05)
        return None

    server.always = fails_on_the_marked_text
    texts = ["a" * 9, "b" * 8, "c" * 7, "d" * 6, "BAD", "e", "f"]
    kept = set()

    def consume():
        for positions, rows in opened(server, batch_size=1, concurrency=2).stream(texts):
            kept.update(positions.tolist())
            np.testing.assert_allclose(rows, expected([texts[i] for i in positions]), atol=1e-6)

    with pytest.raises(ServerError, match="this text is refused"):
        consume()
    assert {0, 1, 2, 3} <= kept
    assert 4 not in kept


def test_leaving_early_stops_asking(server):
    server.delay_s = 0.02
    stream = opened(server, batch_size=1, concurrency=2).stream(TEXTS)
    next(stream)
    stream.close()
    time.sleep(0.2)
    assert len(server.requests) <= 5  # one answered, two under way then, two begun since
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("embed-")]


def test_interrupting_does_not_wait_for_a_server_that_hangs(server):
    server.delay_s = 60.0
    program = f"""
        from toolkit.embedding.config import RemoteConfig
        from toolkit.embedding.remote import RemoteEmbedder
        config = RemoteConfig(base_url={server.url!r}, model="m", full_dim=8)
        RemoteEmbedder(config).encode(["a"])
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stderr=subprocess.PIPE)
    while not server.requests:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=20)  # far below the hour that the request would take
    assert b"KeyboardInterrupt" in error


def test_known_models_bring_their_prompts_and_minimum(server):
    config = RemoteConfig(base_url=server.url, model="Qwen/Qwen3-Embedding-0.6B", full_dim=DIM)
    space = RemoteEmbedder(config).space
    assert (space.min_dim, space.engine) == (32, "openai")
    assert space.render("x", Role.QUERY, "Find").startswith("Instruct: Find\nQuery:x")


def test_a_served_name_is_looked_up_behind_its_alias(server):
    server.models = [{"id": MODEL, "root": "nomic-ai/nomic-embed-text-v1.5"}]
    assert opened(server).space.render("x", Role.DOCUMENT) == "search_document: x"


def test_servers_that_list_no_models_will_do(server):
    server.models = None
    space = opened(server).space
    assert (space.min_dim, space.matryoshka) == (DIM, False)


def test_the_space_is_the_servers_address_and_model(server):
    one = opened(server).space
    with EmbeddingServer() as other:
        assert opened(other).space.fingerprint != one.fingerprint
    assert re.fullmatch(rf"{re.escape(server.url)} [0-9a-f]{{12}}", one.revision)


def test_commands_send_the_key_that_is_named(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MY_KEY", "secret")
    (tmp_path / "texts.txt").write_text("one\ntwo\n")
    command = [
        "embed",
        str(tmp_path / "texts.txt"),
        "--out",
        str(tmp_path / "v.npy"),
        "--api-key-env",
        "MY_KEY",
    ]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--embedder", f"{server.url}#{MODEL}"])
    assert ended.value.code == 0
    assert {headers["authorization"] for headers in server.headers} == {"Bearer secret"}
    with pytest.raises(SystemExit) as ended:
        main([*command, "--embedder", "static"])
    assert ended.value.code == 2
    assert (
        "--api-key-env MY_KEY is for a server, which embedder 'static' does not name"
        in capsys.readouterr().err
    )
