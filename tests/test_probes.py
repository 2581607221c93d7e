"""A server is known by its vectors: restarted with other weights, it never meets the vectors of the old ones."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from tests.embedding_server import MODEL, EmbeddingServer, status
from toolkit.embedding.cache import SpaceCache, VectorCache
from toolkit.embedding.config import RemoteConfig
from toolkit.embedding.pipeline import embed_texts
from toolkit.embedding.remote import RemoteEmbedder
from toolkit.embedding.server_identity import PROBES, SAME_COSINE, agree, identify
from toolkit.errors import ServerChangedError, ServerError
from toolkit.space import Role
from toolkit.vectors import normalize


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "toolkit-cache"))


@pytest.fixture
def server():
    with EmbeddingServer() as running:
        yield running


def opened(server):
    return RemoteEmbedder(RemoteConfig(base_url=server.url, model=MODEL, batch_size=2, concurrency=1))


def documents(embedder, texts, cache):
    return embed_texts(embedder, texts, role=Role.DOCUMENT, cache=cache, progress=False).rows


def changed(rule):
    """Answers whose vectors went through `rule`."""

    def edit(entries):
        for entry in entries:
            vector = np.frombuffer(base64.b64decode(entry["embedding"]), "<f4")
            entry["embedding"] = base64.b64encode(rule(vector).astype("<f4").tobytes()).decode()
        return entries

    return edit


OTHER_WEIGHTS = changed(lambda vector: vector[::-1])


def test_a_server_restarted_with_other_weights_never_meets_the_old_vectors(server):
    cache = VectorCache()
    old = documents(opened(server), ["hello"], cache)
    server.edit = OTHER_WEIGHTS
    new = documents(opened(server), ["hello", "new"], cache)
    np.testing.assert_allclose(new[0], old[0][::-1], atol=1e-6)
    server.edit = lambda entries: entries
    server.requests.clear()
    np.testing.assert_array_equal(documents(opened(server), ["hello"], cache), old)
    assert [request["input"] for request in server.requests] == [list(PROBES), [PROBES[0]]]


def test_rounding_of_16_bits_is_the_same_model(server):
    first = opened(server).space
    noise = np.random.default_rng(0)
    server.edit = changed(lambda v: v * (1 + noise.normal(0, 2**-8, len(v))))
    assert opened(server).space.fingerprint == first.fingerprint


def test_a_model_exchanged_during_a_run_is_an_error_and_nothing_of_the_run_is_kept(server):
    cache = VectorCache()
    embedder = opened(server)
    documents(embedder, ["kept"], cache)
    kept = len(cache.for_space(embedder.space))

    def exchanged(request):
        if "c" in request["input"]:
            server.edit = OTHER_WEIGHTS

    server.always = exchanged
    with pytest.raises(ServerChangedError, match="other vectors than when it was opened"):
        documents(embedder, ["a", "b", "c", "d", "e"], cache)
    assert len(cache.for_space(embedder.space)) == kept == 1


REFUSED = status(400, {"error": {"message": "refused for good"}})
# The longest are sent first, two a request; "bad" comes in the last.
IN_THREE_REQUESTS = ["longest 1", "longest 2", "other 1", "other 2", "bad", "odd"]


def test_a_run_that_fails_after_the_model_was_exchanged_keeps_nothing_of_the_new_one(server):
    cache = VectorCache()
    embedder = opened(server)

    def exchanged_then_refused(request):
        if "other 1" in request["input"]:
            server.edit = OTHER_WEIGHTS
        return REFUSED(request) if "bad" in request["input"] else None

    server.always = exchanged_then_refused
    with pytest.raises(ServerError, match="refused for good"):
        documents(embedder, IN_THREE_REQUESTS, cache)
    assert len(cache.for_space(embedder.space)) == 0


def test_a_run_that_fails_beside_an_unchanged_model_keeps_what_was_encoded(server):
    cache = VectorCache()
    embedder = opened(server)
    server.always = lambda request: REFUSED(request) if "bad" in request["input"] else None
    with pytest.raises(ServerError, match="refused for good"):
        documents(embedder, IN_THREE_REQUESTS, cache)
    assert len(cache.for_space(embedder.space)) == 4


def test_a_server_that_is_gone_vouches_for_nothing_and_is_not_waited_for(server):
    cache = VectorCache()
    embedder = RemoteEmbedder(
        RemoteConfig(base_url=server.url, model=MODEL, batch_size=2, concurrency=1, retries=0)
    )

    def gone(request):
        failing = "bad" in request["input"] or request["input"] == list(PROBES)
        return status(500)(request) if failing else None

    server.always = gone
    with pytest.raises(ServerError, match="HTTP 500"):
        documents(embedder, IN_THREE_REQUESTS, cache)
    assert len(cache.for_space(embedder.space)) == 0
    probed = [request for request in server.requests if request["input"] == list(PROBES)]
    assert len(probed) == 2  # on opening, and once more


def test_a_kill_leaves_only_vectors_that_the_server_vouched_for(server, monkeypatch):
    """What is on disk at any moment was confirmed: the probes are asked before each shard is written."""
    monkeypatch.setattr("toolkit.embedding.cache._FLUSH_SECONDS", -1.0)
    asked = []  # how often the probes had been asked for when a shard was there
    original = SpaceCache.flush

    def watched(self):
        before = len(self)
        original(self)
        if len(self) > before:
            asked.append(sum(request["input"] == list(PROBES) for request in list(server.requests)))

    monkeypatch.setattr(SpaceCache, "flush", watched)
    documents(opened(server), ["a", "b", "c", "d", "e"], VectorCache())
    assert asked == [2, 3, 4]  # once on opening, and anew for each shard


def test_what_is_all_in_the_cache_asks_the_server_nothing(server):
    cache = VectorCache()
    embedder = opened(server)
    documents(embedder, ["a"], cache)
    server.requests.clear()
    documents(embedder, ["a"], cache)
    assert server.requests == []


def test_identity_survives_a_damaged_memory_and_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    rows = normalize(np.random.default_rng(0).standard_normal((len(PROBES), 8)).astype(np.float32))
    name = identify("http://a/v1", "m", rows)
    (stored,) = (tmp_path / "toolkit-cache" / "servers").rglob("*.npy")
    stored.write_bytes(stored.read_bytes()[:40])
    assert identify("http://a/v1", "m", rows) == name
    blocker = tmp_path / "file"
    blocker.write_text("")
    monkeypatch.setenv("TOOLKIT_CACHE", str(blocker))
    assert identify("http://a/v1", "m", rows) == name


def test_one_probe_that_moved_is_another_model():
    rows = np.eye(4, 8, dtype=np.float32)
    other = rows.copy()
    other[2] = [0, 0, SAME_COSINE - 0.001, (1 - (SAME_COSINE - 0.001) ** 2) ** 0.5, 0, 0, 0, 0]
    assert agree(rows, rows)
    assert not agree(rows, other)
    assert not agree(rows, rows[:, :4])
