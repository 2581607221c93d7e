"""A thousand requests that mean no good beside clients that do: no 500, no wrong vector, nothing left over."""

import asyncio
import contextlib
import json
import random
import re

import httpx
import numpy as np
import pytest

import toolkit
from toolkit.serve.run import RunningServer
from toolkit.serve.settings import ServeSettings

NAME = "wordllama-l2-supercat-256"
TEXTS = [f"passage {i} of an honest client about {'wings' * (i % 3)}" for i in range(40)]
_PATHS = ("/v1/embeddings", "/v2/embed", "/embed")
_TOO_LARGE = 300_000


@pytest.fixture(scope="module")
def server():
    settings = ServeSettings(port=0, most_body_bytes=2**18, body_timeout_s=0.3, most_waiting=64)
    with RunningServer(lambda: toolkit.open_embedder("static"), settings) as running:
        yield running


def post(path, body, head=b"content-type: application/json\r\n"):
    return b"POST %b HTTP/1.1\r\nhost: x\r\n%bcontent-length: %d\r\n\r\n%b" % (
        path.encode(),
        head,
        len(body),
        body,
    )


def odd_value(rng, depth=0):
    """A JSON value of any type, as text: numbers that JSON does not have too."""
    plain = [
        *(
            "null",
            "true",
            "NaN",
            "-Infinity",
            "1e999",
            "0",
            "-1",
            "257",
            "1.5",
            "99999999999999999999",
            '""',
            '"a"',
        ),
        *(
            '"\\ud800"',
            '"\\u0000"',
            "[]",
            "{}",
            '["a", ""]',
            '["a", 1]',
            "[[1], [-1]]",
            "[[]]",
            "[1e3]",
            '"x"' * 2,
        ),
        json.dumps("x" * 5_000),
        json.dumps(["x"] * 3_000),
        json.dumps(list(range(3_000))),
    ]
    if depth < 3 and rng.random() < 0.2:
        return f"[{odd_value(rng, depth + 1)}, {odd_value(rng, depth + 1)}]"
    return rng.choice(plain)


def odd_fields(rng):
    known = [
        "model",
        "input",
        "inputs",
        "texts",
        "dimensions",
        "embedding_types",
        "input_type",
        "truncate",
        "role",
    ]
    fields = {"model": json.dumps(NAME), "input": '"a"'} if rng.random() < 0.7 else {}
    for _ in range(rng.randint(1, 4)):
        fields[rng.choice([*known, "instruction", "user", "strange", "x" * 300])] = odd_value(rng)
    return "{" + ", ".join(f"{json.dumps(name)}: {value}" for name, value in fields.items()) + "}"


def broken_bodies():
    yield from (b"", b"null", b"[]", b"{", b'{"model"', b"\xef\xbb\xbf{}", b"\x00" * 50, b'"' * 99)
    yield from (b"{" * 50_000, b"[" * 50_000 + b"]" * 50_000, b'{"input":' * 5_000 + b"1" + b"}" * 5_000)
    yield from (b'{"input": "\xff\xfe"}', b'{"input": "\xed\xa0\x80"}', b"\x80" * 1_000)
    yield b"{" + b",".join(b'"f%d": 1' % i for i in range(10_000)) + b"}"
    yield b'{"model": "m", "embedding_types": [' + b"1," * 50_000 + b"1]}"
    yield b'{"model": "m", "texts": [' + b"1," * 50_000 + b"1]}"
    yield b'{"model": "m", "input": [' + b"7," * 100_000 + b"7]}"


def requests_of(rng):
    """A thousand requests as bytes."""
    whole = [post(path, body) for path in _PATHS for body in broken_bodies()]
    whole += [post(rng.choice(_PATHS), odd_fields(rng).encode()) for _ in range(750)]
    whole += [
        post("/v1/embeddings", b"{}", b"content-type: %b\r\n" % kind)
        for kind in (b"text/plain", b"", b"application/json; charset=\xff", b"multipart/form-data") * 5
    ]
    whole += [
        b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (_TOO_LARGE * i)
        for i in range(1, 30)
    ]
    chunk = b"%x\r\n%b\r\n" % (50_000, b" " * 50_000)
    chunked = b"POST /embed HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    whole += [chunked + chunk * 10, chunked + b"zz\r\n", chunked + b"0\r\n\r\n"] * 5
    whole += [
        *(b"GET /v1/embeddings HTTP/1.1\r\nhost: x\r\n\r\n", b"DELETE /embed HTTP/1.1\r\nhost: x\r\n\r\n"),
        *(
            b"GET /%%ff/../..//etc HTTP/1.1\r\nhost: x\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        ),
        *(
            b"POST /v1/embeddings HTTP/9.9\r\n\r\n",
            b"nonsense\r\n\r\n",
            b"\r\n" * 100,
            b"GET /" + b"a" * 70_000,
        ),
        b"GET /v1/models HTTP/1.1\r\nhost: x\r\n" + b"x: y\r\n" * 2_000 + b"\r\n",
        b"GET /v1/calibration?dimensions=" + b"9" * 5_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n{}",
        b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
    ] * 3
    ways = ["read"] * len(whole)
    good = post("/v1/embeddings", json.dumps({"model": NAME, "input": TEXTS}).encode())
    # Half a body and then silence, half a body and a closed half, a whole one and nobody there any more.
    for way in ("slow", "half", "leave"):
        whole += [good if way == "leave" else good[:-20]] * 40
        ways += [way] * 40
    pairs = list(zip(whole, ways, strict=True))
    rng.shuffle(pairs)
    return pairs


async def send(address, content, way):
    """The status that came back; None where the server only hung up."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        with contextlib.suppress(ConnectionError):
            writer.write(content)
            await writer.drain()
        if way == "leave":
            writer.transport.abort()
            return None
        if way == "half":
            writer.write_eof()
        with contextlib.suppress(ConnectionError):
            head = await asyncio.wait_for(reader.read(300), 20 if way == "slow" else 2)
            found = re.match(rb"HTTP/1\.1 (\d+)", head)
            return int(found[1]) if found else None
    except TimeoutError:
        return None  # what is no whole request waits for its rest
    finally:
        writer.close()


async def attack(server):
    host, port = server.root.removeprefix("http://").split(":")
    pairs = requests_of(random.Random(7))
    at_once = asyncio.Semaphore(60)
    done = asyncio.Event()

    async def one(content, way):
        async with at_once:
            return way, await send((host, int(port)), content, way)

    async def honest(number):
        """Asks until the others are done; the answers that were not right, and how many were."""
        wrong, right = [], 0
        async with httpx.AsyncClient(base_url=server.root, timeout=30) as http:
            while not done.is_set():
                i = (number * 7 + right) % len(TEXTS)
                answer = await http.post("/v1/embeddings", json={"model": NAME, "input": TEXTS[i]})
                if answer.status_code == 429:
                    continue
                row = np.array(answer.json()["data"][0]["embedding"], np.float32)
                wrong += [] if np.array_equal(row, EXPECTED[i]) else [i]
                right += 1
        return wrong, right

    clients = [asyncio.ensure_future(honest(number)) for number in range(4)]
    statuses = await asyncio.gather(*(one(*pair) for pair in pairs))
    done.set()
    return statuses, await asyncio.gather(*clients)


EXPECTED = toolkit.embed("static", TEXTS, progress=False)


def test_a_thousand_hostile_requests(server):
    statuses, clients = asyncio.run(attack(server))
    assert len(statuses) >= 1_000
    seen = {status for _, status in statuses}
    assert not {status for status in seen if status is not None and status >= 500}, seen
    assert {400, 404, 405, 408, 413, 415} <= seen
    assert {status for way, status in statuses if way == "slow"} == {408}
    assert all(wrong == [] and right > 10 for wrong, right in clients), clients
    for _ in range(100):
        watch, service = server.state.watch, server.state.service
        left = [watch._young, watch._old, watch._guards, server._server.server_state.tasks]
        if service._port.waiting == (0, 0) and not any(left) and not watch.gone:
            break
        asyncio.run(asyncio.sleep(0.05))
    assert service._port.waiting == (0, 0)
    assert [len(one) for one in left] == [0, 0, 0, 0]
    assert not watch.gone
    assert "te_queue_size 0.0" in httpx.get(f"{server.root}/metrics").text
