"""The server under load, abuse and interruption: refused with a reason, and nobody else gets a wrong vector."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from openai import OpenAI

import toolkit
from toolkit.embedding.engine import Engine
from toolkit.embedding.static import StaticEmbedder
from toolkit.search.faiss.index import load_faiss
from toolkit.serve.run import RunningServer
from toolkit.serve.settings import ServeSettings
from toolkit.wire.codes import Ranges, decode, encode

NAME = "wordllama-l2-supercat-256"


class Gated(Engine):
    """The embedded model, working only while the gate is open; keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = StaticEmbedder()
        self.gate = threading.Event()
        self.gate.set()
        self.seen: list[str] = []

    @property
    def space(self):
        return self.inner.space

    def tokenizer_file(self):
        return self.inner.tokenizer_file()

    def _blocks(self, texts):
        self.gate.wait(20)
        self.seen += texts
        yield np.arange(len(texts)), self.inner.encode(texts)


@pytest.fixture
def gated():
    return Gated()


def body(**fields):
    return {"model": NAME, "input": "a cat"} | fields


@pytest.mark.parametrize(("kind", "bits"), [("uint8", "QT_8bit"), ("uint4", "QT_4bit")])
def test_codes_are_those_that_a_sweep_measures(kind, bits):
    rows = toolkit.embed("static", [f"text {i} of many" for i in range(300)], dim=64, progress=False)
    faiss = load_faiss()
    quantizer = faiss.ScalarQuantizer(64, getattr(faiss.ScalarQuantizer, bits))
    quantizer.train(rows)
    codes = encode(rows, kind, Ranges.of(rows))
    assert np.array_equal(codes, quantizer.compute_codes(rows))
    assert np.allclose(decode(codes, kind, Ranges.of(rows), dim=64), quantizer.decode(codes), atol=1e-6)


def test_one_forward_pass_answers_all_dimensions_and_types(gated, tmp_path):
    (tmp_path / "pairs.csv").write_text(
        "query,document\nwhat purrs,a cat\nwhat barks,a loud dog\nfish,the sea\n"
    )
    settings = ServeSettings(port=0, calibrate=f"csv:{tmp_path / 'pairs.csv'}")
    with RunningServer(lambda: gated, settings) as server, httpx.Client(base_url=server.url) as http:
        gated.seen.clear()
        kinds = ["float", "float16", "int8", "uint8", "uint4", "binary", "ubinary"]
        answer = http.post("/embeddings", json=body(dimensions=[64, 256], embedding_types=kinds)).json()
        (calibration, ranges) = answer["calibration"], {}
        for dim in (64, 256):
            page = http.get("/calibration", params={"dimensions": dim}).json()
            assert page["id"] == calibration["id"]
            ranges[dim] = Ranges(np.array(page["low"], np.float32), np.array(page["high"], np.float32))
    assert gated.seen == ["a cat"]
    (entry,) = answer["data"]
    assert entry["embedding"] is None
    assert list(entry["embeddings"]) == ["64", "256"]
    for dim in (64, 256):
        row = toolkit.embed("static", ["a cat"], dim=dim, progress=False)
        for kind in kinds:
            expected = encode(row, kind, ranges[dim])[0]
            assert np.array_equal(np.array(entry["embeddings"][str(dim)][kind], expected.dtype), expected)


def test_types_that_need_a_calibration_are_refused_without_one(gated):
    with RunningServer(lambda: gated, ServeSettings(port=0)) as server:
        answer = httpx.post(f"{server.url}/embeddings", json=body(embedding_types=["int8"]))
    assert answer.status_code == 400
    assert "calibration" in answer.json()["error"]["message"]


def test_token_ids_are_the_texts_own_and_foreign_ones_are_refused(gated):
    from tokenizers import Tokenizer

    ids = Tokenizer.from_str(gated.tokenizer_file().json).encode(
        "what lifts a wing", add_special_tokens=False
    )
    with (
        RunningServer(lambda: gated, ServeSettings(port=0)) as server,
        httpx.Client(base_url=server.url) as http,
    ):
        of_ids = http.post("/embeddings", json=body(input=[ids.ids, ids.ids])).json()
        of_text = http.post("/embeddings", json=body(input="what lifts a wing")).json()
        foreign = http.post("/embeddings", json=body(input=list(reversed(range(300, 340)))))
        beyond = http.post("/embeddings", json=body(input=[10**9]))
    assert [one["embedding"] for one in of_ids["data"]] == [of_text["data"][0]["embedding"]] * 2
    assert of_ids["usage"]["prompt_tokens"] == 2 * len(ids.ids)
    assert foreign.status_code == beyond.status_code == 400
    assert foreign.json()["error"]["code"] == "foreign_token_ids"


def test_concurrent_requests_get_their_own_vectors(gated):
    texts = [f"passage {i} about {'x' * (i % 7)}" for i in range(300)]
    dims = [32 * (1 + i % 8) for i in range(len(texts))]

    async def ask_all(url):
        async with httpx.AsyncClient(base_url=url, timeout=30) as http:
            return await asyncio.gather(
                *(
                    http.post("/embeddings", json=body(input=text, dimensions=dim))
                    for text, dim in zip(texts, dims, strict=True)
                )
            )

    with RunningServer(lambda: gated, ServeSettings(port=0)) as server:
        answers = asyncio.run(ask_all(server.url))
    rows = toolkit.embed("static", texts, progress=False)
    for answer, row, dim in zip(answers, rows, dims, strict=True):
        got = np.array(answer.json()["data"][0]["embedding"])
        assert np.allclose(got, row[:dim] / np.linalg.norm(row[:dim]), atol=1e-6)


def until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def test_a_full_queue_says_when_to_come_back_and_a_client_that_leaves_frees_its_place(gated):
    with RunningServer(lambda: gated, ServeSettings(port=0, most_waiting=2)) as server:
        gated.gate.clear()
        waiting = server.state.service._port
        sockets = []
        content = b'{"model":"%b","input":"leaves"}' % NAME.encode()
        head = b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        for _ in range(2):
            client = socket.create_connection(server.root.removeprefix("http://").split(":"))
            client.sendall(head + b"content-length: %d\r\n\r\n" % len(content) + content)
            sockets.append(client)
        until(lambda: waiting.waiting[0] == 2)
        refused = httpx.post(f"{server.url}/embeddings", json=body())
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["type"] == "rate_limit_error"
        for client in sockets:
            client.close()
        until(lambda: waiting.waiting[0] == 0)
        gated.gate.set()
        assert httpx.post(f"{server.url}/embeddings", json=body()).status_code == 200
        assert "te_request_disconnected_total 2.0" in httpx.get(f"{server.root}/metrics").text


HOSTILE = [
    b"{" * 100_000,
    b"[" * 5_000 + b"]" * 5_000,
    b'{"model": "\xff\xfe", "input": "a"}',
    b'{"model": "m", "input": "\\ud800"}',
    b"",
    b"null",
    b'{"model": 1e999, "input": NaN}',
    b'{"input": "' + b"x" * 3_000_000 + b'"}',
]


def test_hostile_bodies_are_refused_and_change_nothing_for_others(gated):
    settings = ServeSettings(port=0, most_body_bytes=2**20, body_timeout_s=0.3)
    with RunningServer(lambda: gated, settings) as server, httpx.Client(base_url=server.url) as http:
        for content in HOSTILE:
            headers = {"content-type": "application/json"}
            answer = http.post("/embeddings", content=content, headers=headers)
            assert 400 <= answer.status_code < 500, content[:20]
            assert answer.json()["error"]["message"]
        slow = socket.create_connection(server.root.removeprefix("http://").split(":"))
        slow.sendall(b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        slow.settimeout(5)
        assert b" 408 " in slow.recv(1_000)
        half = socket.create_connection(server.root.removeprefix("http://").split(":"))
        half.sendall(b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        half.shutdown(socket.SHUT_WR)
        good = http.post("/embeddings", json=body()).json()["data"][0]["embedding"]
        slow.close()
        half.close()
    assert np.array_equal(np.array(good, np.float32), toolkit.embed("static", ["a cat"], progress=False)[0])


def test_keys_open_the_server_and_nothing_else_does(gated):
    settings = ServeSettings(port=0, keys=("first-key", "other-key"))
    with RunningServer(lambda: gated, settings) as server, httpx.Client(base_url=server.root) as http:
        for given in (None, "Bearer", "Bearer three", "Basic first-key", "Bearer first-key x"):
            headers = {} if given is None else {"Authorization": given}
            assert http.post("/v1/embeddings", json=body(), headers=headers).status_code == 401
            assert http.get("/v1/models", headers=headers).status_code == 401
        for key in settings.keys:
            headers = {"Authorization": f"Bearer {key}"}
            assert http.post("/v1/embeddings", json=body(), headers=headers).status_code == 200
        assert http.get("/health/ready").status_code == 200
    assert "first-key" not in repr(settings)


def test_not_ready_before_the_model_is_there_and_a_model_that_fails_says_why(gated):
    opened = threading.Event()

    def open_late():
        opened.wait(10)
        raise toolkit.errors.ModelError("no such weights; name others")

    running = RunningServer(open_late, ServeSettings(port=0))
    failures = []

    def enter():
        with contextlib.suppress(toolkit.errors.ModelError):
            running.__enter__()
            return
        failures.append("failed")

    thread = threading.Thread(target=enter)
    thread.start()
    answer = httpx.get(f"{running.root}/health/ready", timeout=10)
    assert (answer.status_code, answer.json()["status"]) == (503, "loading")
    early = httpx.post(f"{running.url}/embeddings", json=body())
    assert early.status_code == 503
    assert "retry-after" in early.headers
    opened.set()
    thread.join(10)
    assert failures == ["failed"]


def test_stopping_finishes_what_was_accepted(gated):
    server = RunningServer(lambda: gated, ServeSettings(port=0)).__enter__()
    gated.gate.clear()
    answers = []
    asking = threading.Thread(
        target=lambda: answers.append(httpx.post(f"{server.url}/embeddings", json=body(), timeout=20))
    )
    asking.start()
    until(lambda: server.state.service._port.waiting[0] == 1)
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    time.sleep(0.3)
    gated.gate.set()
    asking.join(10)
    stopping.join(10)
    assert answers[0].status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.root}/health")


def test_killed_and_started_again_the_clients_retries_lose_and_duplicate_nothing(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "toolkit", "serve", "--embedder", "static", "--port", str(port)]

    def start():
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
        for line in process.stdout:
            if line.startswith("ready: "):
                return process
        raise AssertionError("it never became ready")

    first = start()
    texts = [f"text {i} that must arrive once" for i in range(400)]
    from toolkit.embedding.config import RemoteConfig

    remote = toolkit.open_embedder(
        RemoteConfig(
            base_url=f"http://127.0.0.1:{port}/v1", model=NAME, batch_size=2, concurrency=2, retries=8
        )
    )
    blocks, second = [], None
    for number, block in enumerate(remote.stream(texts)):
        blocks.append(block)
        if number == 20:
            first.kill()
            first.wait()
            second = start()
    remote.close()
    second.send_signal(signal.SIGTERM)
    assert second.wait(15) == 0, "told to stop, it ends well"
    positions = np.concatenate([positions for positions, _ in blocks])
    assert sorted(positions.tolist()) == list(range(len(texts)))
    rows = np.concatenate([rows for _, rows in blocks])[np.argsort(positions)]
    assert np.allclose(rows, toolkit.embed("static", texts, progress=False), atol=1e-6)


def test_killed_in_the_midst_of_requests_the_openai_sdks_retries_lose_and_duplicate_nothing():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "toolkit", "serve", "--embedder", "static", "--port", str(port)]
    batches = [[f"text {i} of batch {batch}, once" for i in range(200)] for batch in range(60)]
    sent, answers = [], {}

    def start():
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert any(line.startswith("ready: ") for line in process.stdout), "it never became ready"
        return process

    def embed(client, number):
        answer = client.embeddings.create(model=NAME, input=batches[number])
        assert number not in answers
        answers[number] = [one.embedding for one in sorted(answer.data, key=lambda one: one.index)]

    first = start()
    counted = httpx.Client(event_hooks={"request": [sent.append]})
    with (
        OpenAI(
            base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=10, http_client=counted
        ) as client,
        ThreadPoolExecutor(6) as threads,
    ):
        asked = [threads.submit(embed, client, number) for number in range(len(batches))]
        until(lambda: len(answers) > 5 and len(sent) > len(answers))
        first.kill()
        first.wait()
        second = start()
        for one in asked:
            one.result(timeout=60)
    second.kill()
    second.wait()
    assert len(sent) > len(batches), "requests were under way when it was killed"
    assert sorted(answers) == list(range(len(batches)))
    expected = toolkit.embed("static", [text for batch in batches for text in batch], progress=False)
    assert np.allclose(np.concatenate([answers[i] for i in range(len(batches))]), expected, atol=1e-6)
