"""A server of a results folder: what is recommended has a name of its own and is quantized as it was measured."""

import httpx
import numpy as np
import pandas as pd
import pytest
from openai import OpenAI

import toolkit
from tests.sweeps import names_set
from toolkit.decide.recommend import recommend
from toolkit.embedding.config import StaticConfig
from toolkit.embedding.function import FunctionEmbedder
from toolkit.errors import PlanError, ResultsError
from toolkit.experiment.results import MEASUREMENTS, Results
from toolkit.search.faiss.backend import build_index
from toolkit.search.faiss.index import load_faiss
from toolkit.serve.run import RunningServer
from toolkit.serve.settings import ServeSettings
from toolkit.vectors import Vectors
from toolkit.wire.codes import Ranges, decode

NAME = "wordllama-l2-supercat-256"
RECOMMENDED = f"{NAME}#recommended"


def write_set(folder):
    """The set as files, so that the server can read it again."""
    data = names_set()
    folder.mkdir()
    for name, ids, texts in (
        ("documents", data.doc_ids, data.docs),
        ("queries", data.query_ids, data.queries),
    ):
        pd.DataFrame({"id": ids, "text": texts}).to_csv(folder / f"{name}.csv", index=False)
    judged = [(query, doc, 1) for query, docs in data.qrels.items() for doc in docs]
    pd.DataFrame(judged, columns=["query_id", "document_id", "score"]).to_csv(
        folder / "qrels.csv", index=False
    )


def sweep(folder):
    toolkit.sweep(
        embedder="static",
        data=f"csv:{folder / 'set'}",
        dims=[240, 256],
        precisions=["float32", "int8"],
        instructions=["find the page"],
        k=10,
        timing={"queries": 3, "rounds": 1, "threads": [1]},
        out=folder / "results",
        progress=False,
    )


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep whose int8 setting is recommended: it ranks as float32 does, in a quarter of the bytes."""
    folder = tmp_path_factory.mktemp("recommended")
    write_set(folder / "set")
    with pytest.warns(toolkit.errors.InstructionWarning):
        sweep(folder)

    # Which setting of so few documents is faster is chance, and would choose between them.
    measured = pd.read_parquet(folder / "results" / MEASUREMENTS)
    measured.assign(p95_ms=0.01, qps=1e5, qps_1_thread=1e5).to_parquet(folder / "results" / MEASUREMENTS)
    assert recommend(Results.load(folder / "results")).advised.setting.startswith("240 int8 Flat")
    return folder / "results"


@pytest.fixture(scope="module")
def server(swept):
    settings = ServeSettings(port=0, results=swept)
    with RunningServer(lambda: toolkit.open_embedder("static"), settings) as running:
        yield running


def test_documents_come_as_the_index_stores_them_and_queries_as_it_takes_them(server):
    docs, query = names_set().docs, names_set().queries[0]
    with httpx.Client(base_url=server.url) as http:
        answer = http.post("/embeddings", json={"model": RECOMMENDED, "input": list(docs)}).json()
        asked = http.post("/embeddings", json={"model": RECOMMENDED, "input": query, "role": "query"}).json()
        ranges = http.get("/calibration", params={"dimensions": 240}).json()
        whole = http.post("/embeddings", json={"model": NAME, "input": query}).json()
    codes = np.array([one["embedding"] for one in answer["data"]])
    assert codes.shape == (len(docs), 240)
    rows = toolkit.embed("static", docs, progress=False)
    index = build_index(Vectors(rows), 240, precision="int8")
    stored = load_faiss().vector_to_array(index.index.codes).reshape(codes.shape)
    assert np.array_equal(codes + 128, stored), "the bytes that the sweep's index holds"
    assert answer["calibration"]["id"] == ranges["id"]
    low_high = Ranges(np.array(ranges["low"], np.float32), np.array(ranges["high"], np.float32))
    read = decode(codes.astype(np.int8), "int8", low_high, dim=240)
    assert np.allclose(read, index.index.reconstruct_n(0, len(docs)), atol=1e-6)
    row = toolkit.embed(
        "static", [f"find the page\n{query}"], dim=240, progress=False
    )  # as a model without a template is told
    assert np.allclose(asked["data"][0]["embedding"], row[0], atol=1e-6)
    assert len(whole["data"][0]["embedding"]) == 256, "the model's own name has the model's own defaults"


def test_what_is_asked_for_goes_before_what_is_recommended(server):
    with httpx.Client(base_url=server.url) as http:
        body = {"model": RECOMMENDED, "input": "a cat", "dimensions": 64, "embedding_types": ["float"]}
        answer = http.post("/embeddings", json=body).json()
        (listed,) = (one for one in http.get("/models").json()["data"] if one["id"] == RECOMMENDED)
    assert len(answer["data"][0]["embeddings"]["64"]["float"]) == 64
    told = listed["embedding"]["recommended"]
    assert (told["dimensions"], told["embedding_types"]) == (240, {"document": "int8", "query": "float"})
    assert told["verdict"].startswith("keeps")
    assert told["measured_fingerprint"] == listed["embedding"]["fingerprint"]


def test_the_openai_sdk_which_asks_for_base64_reads_codes_as_codes(server):
    with OpenAI(base_url=server.url, api_key="none", max_retries=0) as client:
        answer = client.embeddings.create(model=RECOMMENDED, input="a page about red and group 0")
    assert len(answer.data[0].embedding) == 240
    assert all(code == int(code) and -128 <= code < 128 for code in answer.data[0].embedding)


def test_a_folder_of_another_model_is_refused_and_so_is_one_without_a_sweep(swept, tmp_path):
    other = FunctionEmbedder(lambda texts: np.eye(256, dtype=np.float32)[: len(texts)])
    with pytest.raises(PlanError, match="was measured with wordllama"):
        RunningServer(lambda: other, ServeSettings(port=0, results=swept)).__enter__()
    with pytest.raises(ResultsError, match="no finished sweep"):
        RunningServer(lambda: other, ServeSettings(port=0, results=tmp_path))


def test_the_folder_names_its_embedder(swept):
    spec = Results.load(swept).embedder_spec
    assert spec == "static" or isinstance(spec, StaticConfig)
