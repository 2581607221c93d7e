"""The server's OpenAPI document holds: what it allows is answered in its shape, what it does not is refused."""

import re

import httpx
import numpy as np
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks

import toolkit
from toolkit.serve.run import RunningServer
from toolkit.serve.settings import ServeSettings

NAME = "wordllama-l2-supercat-256"
# What no schema can say is refused too.
_BEYOND_SCHEMAS = (
    "token ids that|multiples of|without a calibration|there is no calibration|instructions apply to queries"
    r"|ask for one of the two|are expected"  # another space
    r"|is -?\d+\.0 \(|give items of one kind"  # floats that are whole
)
_CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
    checks.negative_data_rejection,
    checks.unsupported_method,
]


@pytest.fixture(scope="module")
def server():
    with RunningServer(lambda: toolkit.open_embedder("static"), ServeSettings(port=0)) as running:
        yield running


@pytest.fixture(scope="module")
def described(server):
    refused = ["400", "404", "408", "409", "413", "415", "422"]
    config = schemathesis.Config.from_dict(
        {"checks": {"negative_data_rejection": {"expected-statuses": refused}}}
    )
    return schemathesis.openapi.from_url(f"{server.root}/openapi.json", config=config)


_OPERATIONS = [
    *("POST /v1/embeddings", "POST /v2/embed", "POST /embed"),
    *("GET /v1/models", "GET /v1/models/{name}", "GET /v1/calibration", "GET /info"),
    *("GET /health", "GET /health/ready", "GET /metrics"),
]


def test_every_operation_is_tried(described):
    assert [operation.ok().label for operation in described.get_all_operations()] == _OPERATIONS


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize("label", _OPERATIONS)
def test_what_is_described_is_done(described, label, mode):
    (operation,) = (one.ok() for one in described.get_all_operations() if one.ok().label == label)
    if mode is GenerationMode.NEGATIVE and not (operation.body or operation.query or operation.headers):
        pytest.skip("nothing can be wrong with it")

    with requests.Session() as session:

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        def holds(case):
            answer = case.call_and_validate(checks=_CHECKS, session=session)
            answered.append(answer.status_code == 200)
            if mode is GenerationMode.POSITIVE:
                assert answered[-1] or re.search(_BEYOND_SCHEMAS, answer.text), answer.text

        answered = []
        holds()
    assert mode is GenerationMode.NEGATIVE or any(answered) or "calibration" in label


def test_the_vectors_are_right_after_all_that(server):
    answer = httpx.post(f"{server.url}/embeddings", json={"model": NAME, "input": "a cat"}).json()
    expected = toolkit.embed("static", ["a cat"], progress=False)[0]
    assert np.array_equal(np.array(answer["data"][0]["embedding"], np.float32), expected)
    assert server.state.service._port.waiting == (0, 0)


def test_the_document_has_the_servers_own_limits(server):
    told = httpx.get(f"{server.root}/openapi.json").json()
    fields = told["paths"]["/v1/embeddings"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert fields["properties"]["model"]["enum"] == [NAME]
    assert fields["properties"]["dimensions"]["anyOf"][0] == {"type": "integer", "minimum": 1, "maximum": 256}
    assert fields["additionalProperties"] is False
    assert "security" not in told["paths"]["/embed"]["post"]


def test_with_keys_the_document_says_so_and_is_there_without():
    with RunningServer(
        lambda: toolkit.open_embedder("static"), ServeSettings(port=0, keys=("k",))
    ) as running:
        told = httpx.get(f"{running.root}/openapi.json").json()
    assert told["paths"]["/embed"]["post"]["security"] == [{"key": []}]
    assert "security" not in told["paths"]["/health"]["get"]


def test_the_page_needs_no_other_host(server):
    page = httpx.get(f"{server.root}/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//|<script|@import""", page.text)
    for name in ("/v2/embed", "embedding_types", "1..256", "X-Expect-Space", "429"):
        assert name in page.text
