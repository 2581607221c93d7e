"""Each of the engines shared by threads: right rows, shared work, the bound, cancelling, errors, closing.

`test_queue` has the rules of the queue in detail. Nothing here sleeps: what an engine does first is made to
wait at a gate, so that the order of events is certain.
"""

from __future__ import annotations

import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from tests.embedding_server import DIM, MODEL, EmbeddingServer, status
from tests.models import make_bert, make_qwen3
from toolkit.embedding.open import open_embedder
from toolkit.errors import EngineClosedError, QueueFullError, ServerError

KINDS = ["static", "sentence-transformers", "packed", "remote"]


def opened(kind, folder, server, **settings):
    match kind:
        case "static":
            return open_embedder("static")
        case "sentence-transformers":
            return open_embedder(f"local:{make_bert(folder / 'bert')}", batch_tokens=256, dtype="float32")
        case "packed":
            # In float32, so that a row does not depend on what shares its pack, on a GPU too.
            return open_embedder(f"local:{make_qwen3(folder / 'qwen3')}", batch_tokens=512, dtype="float32")
    return open_embedder(
        f"{server.url}#{MODEL}", full_dim=DIM, **{"batch_size": 5, "concurrency": 3, **settings}
    )


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


def test_several_engines_work_at_once(tmp_path, server):
    engines = [opened(kind, tmp_path / f"{i}", server) for i, kind in enumerate([*KINDS, "packed"])]
    alone = [engine.encode(texts_of(0)) for engine in engines]

    def call(number):
        for _ in range(4):
            engine = engines[number % len(engines)]
            np.testing.assert_allclose(engine.encode(texts_of(0)), alone[number % len(engines)], atol=3e-6)

    in_threads(call, 2 * len(engines))
    for engine in engines:
        engine.close()


class Watched:
    """What goes through an engine, a batch at a time; the first one waits until `gate` is open.

    batches : how many texts each had.
    """

    def __init__(self, kind, engine, server, monkeypatch):
        self.batches, self.texts = [], []
        self.gate, self.entered = threading.Event(), threading.Event()
        match kind:
            case "static":
                place, name, count = engine._model, "embed", len
            case "sentence-transformers":
                place, name, count = engine, "_forward", lambda features: len(features["input_ids"])
            case "packed":
                place, name, count = engine._runner, "_submit", lambda pack: len(pack.lengths)
            case _:
                place, name, count = server, "_answer", lambda request: len(request["input"])
        inner = getattr(place, name)

        def watched(work, **settings):
            self.batches.append(count(work))
            self.entered.set()
            assert self.gate.wait(60)
            return inner(work, **settings)

        monkeypatch.setattr(place, name, watched)


@pytest.fixture(params=KINDS)
def held(request, tmp_path, server, monkeypatch):
    """An engine with one request at a time, where a first text stands at the gate."""
    settings = {"concurrency": 1, "batch_size": 64} if request.param == "remote" else {}
    with opened(request.param, tmp_path, server, **settings) as engine:
        engine.encode(["a static model is loaded with the first text"])
        watched = Watched(request.param, engine, server, monkeypatch)
        first = engine.submit(["first"])
        assert watched.entered.wait(60)
        yield engine, watched
        watched.gate.set()
        first.result(60)


def test_waiting_texts_of_several_callers_go_together(held):
    engine, watched = held
    waiting = [engine.submit([f"a {caller}", f"b {caller}"]) for caller in range(3)]
    watched.gate.set()
    rows = [future.result(60) for future in waiting]
    assert watched.batches == [1, 6]
    for caller, own in enumerate(rows):
        np.testing.assert_allclose(own, engine.encode([f"a {caller}", f"b {caller}"]), atol=3e-6)


def test_a_full_queue_refuses_and_a_cancelled_future_makes_room(held):
    engine, watched = held
    engine._queue._places = 2
    second = engine.submit(["second"])
    with pytest.raises(QueueFullError, match="try again later"):
        engine.submit(["third"], timeout_s=0)
    assert second.cancel()
    third = engine.submit(["third", "and more"], timeout_s=0)
    watched.gate.set()
    assert third.result(60).shape == (2, engine.space.full_dim)
    assert watched.batches == [1, 2]


def test_closing_finishes_what_waits_and_refuses_the_rest(held):
    engine, watched = held
    waiting = engine.submit(["a", "b"])
    closing = threading.Thread(target=engine.close)
    closing.start()
    watched.gate.set()
    closing.join(60)
    assert waiting.result(0).shape == (2, engine.space.full_dim)
    with pytest.raises(EngineClosedError):
        engine.encode(["late"])


def test_a_stream_that_is_left_asks_for_no_more(held):
    engine, watched = held
    stream = engine.stream(texts_of(0, 3_000))
    watched.gate.set()
    next(stream)
    stream.close()
    engine.encode(["next"])
    assert sum(watched.batches) < 3_000
    assert engine._queue.pending == 0


def test_a_text_that_a_server_refuses_fails_its_caller_alone(server):
    def refuse_bad(request):
        return status(400, {"message": "refused"})(request) if "bad" in request["input"] else None

    def hold(request):
        entered.set()
        assert gate.wait(60)

    gate, entered = threading.Event(), threading.Event()
    with opened("remote", None, server, concurrency=1, batch_size=64) as engine:
        server.once.append(hold)
        first = engine.submit(["first"])
        assert entered.wait(60)
        server.always = refuse_bad
        good, bad = engine.submit(["good"]), engine.submit(["bad", "x"])
        gate.set()
        np.testing.assert_allclose(good.result(60), engine.encode(["good"]), atol=1e-6)
        with pytest.raises(ServerError, match="refused"):
            bad.result(60)
        first.result(60)
    server.always = None


@pytest.mark.parametrize("kind", KINDS)
def test_an_engine_that_is_dropped_frees_its_model(kind, tmp_path, server):
    engine = opened(kind, tmp_path, server)
    engine.encode(["a", "b"])
    gone = weakref.ref(engine)
    del engine
    for thread in threading.enumerate():
        if thread.name == "embed-request":  # about to end
            thread.join(60)
    assert gone() is None


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
