"""The server over real sockets: the vectors are the library's, whoever asks and however."""

import asyncio
import base64

import httpx
import numpy as np
import pytest
from openai import AsyncOpenAI, OpenAI

import toolkit
from toolkit.serve.run import RunningServer
from toolkit.serve.settings import ServeSettings

TEXTS = ["what lifts a wing?", "a cat", "数据", "the cost of memory " * 40]
NAME = "wordllama-l2-supercat-256"


@pytest.fixture(scope="module")
def server():
    with RunningServer(lambda: toolkit.open_embedder("static"), ServeSettings(port=0)) as running:
        yield running


@pytest.fixture(scope="module")
def http(server):
    with httpx.Client(base_url=server.root) as client:
        yield client


@pytest.fixture(scope="module")
def rows():
    return toolkit.embed("static", TEXTS, progress=False)


def ask(http, **body):
    return http.post("/v1/embeddings", json={"model": NAME, "input": TEXTS} | body)


def vectors(answer):
    assert answer.status_code == 200, answer.text
    entries = answer.json()["data"]
    assert [entry["index"] for entry in entries] == list(range(len(entries)))
    return np.array([entry["embedding"] for entry in entries], dtype=np.float32)


def test_floats_are_the_librarys_to_the_last_bit(http, rows):
    assert np.array_equal(vectors(ask(http)), rows)


def test_base64_is_the_same_bytes(http, rows):
    data = ask(http, encoding_format="base64").json()["data"]
    decoded = [np.frombuffer(base64.b64decode(entry["embedding"]), "<f4") for entry in data]
    assert np.array_equal(decoded, rows)


def test_the_openai_sdk_sync_and_async(server, rows):
    with OpenAI(base_url=server.url, api_key="none", max_retries=0) as client:
        answer = client.embeddings.create(model=NAME, input=TEXTS, dimensions=64)
    cut = toolkit.embed("static", TEXTS, dim=64, progress=False)
    assert np.allclose([one.embedding for one in answer.data], cut, atol=1e-7)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > len(TEXTS)

    async def both():
        async with AsyncOpenAI(base_url=server.url, api_key="none", max_retries=0) as client:
            return await asyncio.gather(*(client.embeddings.create(model=NAME, input=text) for text in TEXTS))

    answers = asyncio.run(both())
    assert np.allclose([one.data[0].embedding for one in answers], rows, atol=1e-7)


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({"dimensions": 257}, "dimensions", "1..256"),
        ({"dimensions": True}, "dimensions", "1..256"),
        ({"input": []}, "input", "at least one text"),
        ({"input": ["a", ""]}, "input[1]", "at least one character"),
        ({"input": ["a", 3]}, "input[1]", "one kind"),
        ({"encoding_format": "hex"}, "encoding_format", "base64"),
        ({"dimension": 3}, "dimension", "did you mean dimensions?"),
        ({"embedding_types": ["int9"]}, "embedding_types", "int8"),
        ({"instruction": "find", "role": "document"}, "instruction", "queries"),
        ({"dimensions": 12, "embedding_types": ["ubinary"]}, "dimensions", "multiples of 8"),
    ],
)
def test_what_cannot_be_done_is_refused_with_value_range_and_fix(http, body, param, said):
    answer = ask(http, **body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["type"]) == (400, param, "invalid_request_error")
    assert said in error["message"]


def test_all_findings_are_told_at_once(http):
    error = ask(http, dimensions=0, encoding_format=7, color="red").json()["error"]
    assert {one["param"] for one in error["findings"]} == {"dimensions", "encoding_format", "color"}


def test_an_unknown_model_and_an_unknown_page(http):
    answer = ask(http, model="gpt-9")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert http.get("/v1/nothing").json()["error"]["code"] == "not_found"
    assert http.get("/v1/embeddings").status_code == 405


def test_health_models_and_the_space(http):
    space = toolkit.open_embedder("static").space
    assert http.get("/health/ready").json() == {
        "status": "ready",
        "model": NAME,
        "fingerprint": space.fingerprint,
    }
    (model,) = http.get("/v1/models").json()["data"]
    assert model["id"] == NAME
    assert model["embedding"]["custom_dim_range"] == [1, 256]
    answer = ask(http)
    assert answer.headers["x-embedding-space"] == space.fingerprint
    stale = http.post(
        "/v1/embeddings", json={"model": NAME, "input": "a"}, headers={"X-Expect-Space": "another"}
    )
    assert stale.status_code == 409
    assert space.fingerprint in stale.json()["error"]["message"]
