"""A server is known by its vectors: restarted with other weights, it never meets the vectors of the old ones."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from tests.embedding_server import MODEL, EmbeddingServer
from toolkit.embedding.cache import VectorCache
from toolkit.embedding.config import RemoteConfig
from toolkit.embedding.pipeline import embed_texts
from toolkit.embedding.remote import RemoteEmbedder
from toolkit.embedding.server_identity import PROBES, SAME_COSINE, agree, identify
from toolkit.errors import ServerChangedError
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
    assert [request["input"] for request in server.requests] == [list(PROBES)]


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
