"""Short requests beside long ones: the wait is bounded, counted in pieces of work, and the long ones end too."""

import asyncio
import re
import time

import httpx
import numpy as np

import toolkit
from toolkit.embedding.engine import Engine
from toolkit.embedding.static import StaticEmbedder
from toolkit.serve.run import RunningServer
from toolkit.serve.settings import ServeSettings

NAME = "wordllama-l2-supercat-256"
_PIECE_TEXTS = 16
_PIECE_S = 0.004
_LONG_TEXTS = 960  # sixty pieces
_LONG = 4


class Paced(Engine):
    """The embedded model in pieces of few texts that each take a while, as on a device; counts its pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = StaticEmbedder()
        self.pieces = 0

    @property
    def space(self):
        return self.inner.space

    def tokenizer_file(self):
        return self.inner.tokenizer_file()

    def _shared_characters(self):
        return (
            40 * _PIECE_TEXTS
        )  # of several callers together, one piece at a time, as the engines of models have it

    def _blocks(self, texts):
        for start in range(0, len(texts), _PIECE_TEXTS):
            part = texts[start : start + _PIECE_TEXTS]
            time.sleep(_PIECE_S)
            self.pieces += 1
            yield start + np.arange(len(part)), self.inner.encode(part)


async def load(url, engine):
    """Long requests at once, short ones beside them until they are done; pieces that each short one waited for."""
    long_texts = [f"passage {i} of a long request" for i in range(_LONG_TEXTS)]
    waits, right = [], []

    async with httpx.AsyncClient(base_url=url, timeout=60) as http:

        async def ask(**fields):
            answer = await http.post("/embeddings", json={"model": NAME} | fields)
            assert answer.status_code == 200, answer.text
            return answer.json()["data"]

        async def short(number):
            while not all(one.done() for one in long):
                text, dim = f"query {number} {len(waits)}", 64 * (1 + number % 4)
                before = engine.pieces
                (entry,) = await ask(input=text, dimensions=dim, role="query")
                waits.append(engine.pieces - before)
                right.append((text, dim, entry["embedding"]))

        long = [asyncio.ensure_future(ask(input=long_texts)) for _ in range(_LONG)]
        while engine.pieces < _LONG:
            await asyncio.sleep(0.001)
        await asyncio.gather(*(short(number) for number in range(3)))
        return waits, right, [len(one.result()) for one in long]


def test_short_requests_wait_for_a_few_pieces_and_long_ones_end():
    engine = Paced()
    with RunningServer(lambda: engine, ServeSettings(port=0)) as server:
        engine.pieces = 0
        waits, right, lengths = asyncio.run(load(server.url, engine))
    assert lengths == [_LONG_TEXTS] * _LONG
    assert len(waits) > 30, "short requests went on all the while"
    # At worst: what is at work, one turn of the others' run, and the run of one's own, which may be shared.
    assert np.percentile(waits, 99) <= 8, sorted(waits)[-10:]
    assert max(waits) <= _LONG_TEXTS / _PIECE_TEXTS / 4
    rows = toolkit.embed("static", [text for text, _, _ in right], progress=False)
    for (_, dim, got), row in zip(right, rows, strict=True):
        assert np.allclose(got, row[:dim] / np.linalg.norm(row[:dim]), atol=1e-6)


def test_requests_that_differ_in_everything_share_their_work():
    engine = Paced()

    async def ask_all(url):
        async with httpx.AsyncClient(base_url=url, timeout=30) as http:
            return await asyncio.gather(
                *(
                    http.post("/embeddings", json={"model": NAME, "input": f"text {i}", **fields})
                    for i, fields in enumerate(
                        [{"dimensions": 64}, {"role": "query"}, {"embedding_types": ["ubinary"]}] * 20
                    )
                )
            )

    with RunningServer(lambda: engine, ServeSettings(port=0)) as server:
        engine.pieces = 0
        answers = asyncio.run(ask_all(server.url))
    assert {answer.status_code for answer in answers} == {200}
    assert engine.pieces < len(answers) / 3, "texts of several requests go through the model together"


def test_metrics_tell_how_long_requests_waited_and_what_went_together():
    engine = Paced()
    with RunningServer(lambda: engine, ServeSettings(port=0)) as server:
        asyncio.run(load(server.url, engine))
        httpx.post(f"{server.url}/embeddings", json={"model": NAME, "input": ""})
        httpx.post(f"{server.root}/embed", json={"inputs": ["a", "b"]})
        page = httpx.get(f"{server.root}/metrics").text
    told = {
        name: float(value) for name, value in re.findall(r"^(\w+(?:{[^}]*})?) (\S+)$", page, re.MULTILINE)
    }
    answered = told["te_request_success_total"]
    assert told['te_request_count_total{method="tei"}'] == 1
    assert told['te_request_failure_total{err="invalid_value"}'] == 1
    assert told['te_request_count_total{method="openai"}'] == answered  # one refused, one of TEI's
    for name in ("queue", "inference", "tokenization"):
        assert told[f"te_request_{name}_duration_count"] == answered
    assert told["te_request_duration_sum"] >= told["te_request_inference_duration_sum"]
    assert told["te_request_inference_duration_sum"] > told["te_request_queue_duration_sum"] > 0
    assert told["te_batch_next_size_sum"] == told["te_request_input_count_sum"]
    assert told["te_batch_next_tokens_sum"] == told["te_request_input_tokens_sum"]
    assert 0 < told["te_batch_next_size_count"] <= answered
    assert told["te_queue_size"] == 0
