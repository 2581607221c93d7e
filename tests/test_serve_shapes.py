"""Cohere's and TEI's APIs over the same service, with their own clients; and the check finds nothing wrong with any."""

import base64

import cohere
import httpx
import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import InferenceClient

import toolkit
from toolkit.serve.run import RunningServer
from toolkit.serve.settings import ServeSettings
from toolkit.wire.codes import encode

TEXTS = ["what lifts a wing?", "a cat", "数据"]
NAME = "wordllama-l2-supercat-256"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    pairs = tmp_path_factory.mktemp("calibration") / "pairs.csv"
    pairs.write_text("query,document\nwhat purrs,a cat\nwhat barks,a loud dog\nfish,the sea\n")
    settings = ServeSettings(port=0, calibrate=f"csv:{pairs}")
    with RunningServer(lambda: toolkit.open_embedder("static"), settings) as running:
        yield running


@pytest.fixture(scope="module")
def http(server):
    with httpx.Client(base_url=server.root) as client:
        yield client


def rows(dim):
    return toolkit.embed("static", TEXTS, dim=dim, progress=False)


def test_coheres_sdk(server):
    client = cohere.ClientV2(base_url=server.root, api_key="none")
    answer = client.embed(
        model=NAME,
        texts=TEXTS,
        input_type="search_document",
        output_dimension=128,
        embedding_types=["float", "ubinary", "int8"],
    )
    assert np.allclose(answer.embeddings.float_, rows(128), atol=1e-7)
    assert np.array_equal(answer.embeddings.ubinary, encode(rows(128), "ubinary"))
    assert np.array(answer.embeddings.int8).shape == (3, 128)
    assert answer.meta.billed_units.input_tokens > len(TEXTS)
    packed = client.embed(model=NAME, texts=TEXTS, input_type="search_query", embedding_types=["base64"])
    read = [np.frombuffer(base64.b64decode(one), "<f4") for one in packed.embeddings.base64]
    assert np.array_equal(read, rows(256))
    with pytest.raises(cohere.BadRequestError, match="output_dimension is 257"):
        client.embed(model=NAME, texts=TEXTS, input_type="search_query", output_dimension=257)


def test_teis_client(server, http, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)  # the hub is not asked
    client = InferenceClient()
    assert np.allclose(client.feature_extraction(TEXTS[0], model=f"{server.root}/embed"), rows(256)[:1])
    assert http.post("/embed", json={"inputs": TEXTS, "dimensions": 64}).json() == pytest.approx(
        rows(64), abs=1e-7
    )
    told = http.get("/info").json()
    assert (told["model_id"], told["max_client_batch_size"], told["auto_truncate"]) == (NAME, 2_048, False)


@pytest.mark.parametrize(
    ("path", "fields", "said"),
    [
        ("/v2/embed", {"input_type": "image"}, "input_type is 'image'"),
        ("/v2/embed", {"input_type": None}, "input_type is None"),
        ("/v2/embed", {"truncate": "START"}, "NONE, END"),
        ("/v2/embed", {"embedding_types": ["float", "base64"]}, "float or base64"),
        ("/v2/embed", {"output_dimension": [64]}, "name one dimension"),
        ("/v2/embed", {"texts": "a"}, "list of texts"),
        ("/v2/embed", {"texts": ["a"] * 2_049}, "2,049 inputs"),
        ("/v2/embed", {"images": []}, "'images' is unknown"),
        ("/embed", {"normalize": False}, "norm 1"),
        ("/embed", {"truncation_direction": "Left"}, "Right"),
        ("/embed", {"prompt_name": "passage"}, "query, document"),
        ("/embed", {"inputs": None}, "at least one text"),
        ("/embed", {"dimensions": [64]}, "name one dimension"),
    ],
)
def test_what_these_apis_have_and_this_server_cannot_do_is_refused_in_their_own_way(http, path, fields, said):
    plain = {
        "/v2/embed": {"model": NAME, "texts": ["a"], "input_type": "search_query"},
        "/embed": {"inputs": "a"},
    }
    answer = http.post(path, json=plain[path] | fields)
    assert answer.status_code in (400, 413)
    error = answer.json()
    assert said in (error["message"] if path == "/v2/embed" else error["error"])
    assert path == "/v2/embed" or error["error_type"] == "Validation"


@pytest.mark.parametrize("path", ["/v1", "/v2/embed", "/embed"])
@pytest.mark.parametrize("reference", [None, "static"])
def test_the_check_finds_nothing_wrong(server, path, reference):
    found = toolkit.check(
        f"{server.root}{path}", model=NAME, reference=reference, risky=path == "/v1", progress=False
    )
    assert [(finding.probe, finding.seen) for finding in found.problems] == []
