"""Engines shared by threads: right rows, shared work, a bounded queue, cancellation, errors, closing.

Nothing here sleeps: an engine that waits at a gate makes every order of events certain.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from tests.embedding_server import DIM, MODEL, EmbeddingServer
from tests.models import make_bert, make_qwen3
from toolkit.embedding.open import open_embedder

KINDS = ["static", "sentence-transformers", "packed", "remote"]


def opened(kind, folder, server):
    match kind:
        case "static":
            return open_embedder("static")
        case "sentence-transformers":
            return open_embedder(f"local:{make_bert(folder / 'bert')}", batch_tokens=256)
        case "packed":
            return open_embedder(f"local:{make_qwen3(folder / 'qwen3')}", batch_tokens=512)
    return open_embedder(f"{server.url}#{MODEL}", full_dim=DIM, batch_size=5, concurrency=3)


@pytest.fixture(scope="module")
def server():
    with EmbeddingServer() as running:
        yield running


@pytest.fixture(scope="module", params=KINDS)
def engine(request, tmp_path_factory, server):
    with opened(request.param, tmp_path_factory.mktemp("models"), server) as engine:
        yield engine


def texts_of(caller, count=23):
    return [f"text {i} of caller {caller} " + "rain " * ((i * 7 + caller) % 9) for i in range(count)]


def in_threads(work, count):
    """Run `work(number)` in threads that begin together; raises what any of them raised."""
    together = threading.Barrier(count)

    def go(number):
        together.wait()
        work(number)

    with ThreadPoolExecutor(count) as pool:
        for done in [pool.submit(go, number) for number in range(count)]:
            done.result()


def test_threads_that_share_an_engine_get_the_rows_of_their_own_texts(engine):
    alone = [engine.encode(texts_of(caller)) for caller in range(4)]

    def call(caller):
        for turn in range(8):
            match turn % 3:
                case 0:
                    rows = engine.encode(texts_of(caller))
                case 1:
                    rows = engine.submit(texts_of(caller)).result()
                case _:
                    rows = np.full_like(alone[caller], np.nan)
                    for positions, block in engine.stream(texts_of(caller)):
                        rows[positions] = block
            np.testing.assert_allclose(rows, alone[caller], atol=3e-6)

    in_threads(call, 4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_threads_that_share_an_engine_on_a_gpu_get_the_rows_of_their_own_texts(tmp_path):
    folder = make_qwen3(tmp_path / "qwen3")
    with open_embedder(f"local:{folder}", device="cuda", batch_tokens=2_048) as engine:
        alone = [engine.encode(texts_of(caller, 40 + caller)) for caller in range(4)]

        def call(caller):
            # A current stream of the thread's own must not matter.
            with torch.cuda.stream(torch.cuda.Stream()):
                for _ in range(30):
                    rows = engine.encode(texts_of(caller, 40 + caller))
                    assert (rows * alone[caller]).sum(axis=1).min() > 0.999

        in_threads(call, 4)
