import errno
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.embedding import cache as cache_module
from toolkit.embedding.cache import VectorCache, text_keys
from toolkit.embedding.engine import Engine
from toolkit.embedding.pipeline import embed_texts
from toolkit.embedding.static import StaticEmbedder
from toolkit.errors import CacheWarning, PlanError, VectorError
from toolkit.space import EmbeddingSpace, Role
from toolkit.vectors import normalize


class CountingEmbedder(Engine):
    """A real, deterministic engine that remembers what it was asked for and can fail on the way."""

    def __init__(self, *, revision="1", fail_after=None, block=2):
        super().__init__()
        self.seen = []
        self._fail_after = fail_after
        self._block = block
        self._revision = revision

    @property
    def space(self):
        return EmbeddingSpace("counting", self._revision, "test", "float32", "none", 0, 8, 8)

    def _blocks(self, texts):
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        for start in range(0, len(order), self._block):
            if self._fail_after is not None and len(self.seen) >= self._fail_after:
                raise KeyboardInterrupt
            places = np.array(order[start : start + self._block])
            self.seen.extend(texts[i] for i in places)
            seeds = [int.from_bytes(key[:4], "little") for key in text_keys([texts[i] for i in places])]
            yield places, normalize(np.stack([np.random.default_rng(s).normal(size=8) for s in seeds]))


def documents(embedder, texts, cache=None, **more):
    return embed_texts(embedder, texts, role=Role.DOCUMENT, cache=cache, progress=False, **more).rows


@settings(max_examples=30, deadline=None)
@given(texts=st.lists(st.text(max_size=5), max_size=30))
def test_rows_are_the_engines_own_in_input_order_and_each_text_is_encoded_once(tmp_path_factory, texts):
    cache = VectorCache(tmp_path_factory.mktemp("cache"))
    embedder = CountingEmbedder()
    expected = CountingEmbedder().encode(texts)
    np.testing.assert_array_equal(documents(embedder, texts, cache), expected)
    assert sorted(embedder.seen) == sorted(set(texts))
    again = CountingEmbedder()
    np.testing.assert_array_equal(documents(again, texts, cache), expected)
    assert again.seen == []


def test_another_space_never_gets_these_vectors(tmp_path):
    cache = VectorCache(tmp_path)
    documents(CountingEmbedder(revision="1"), ["a"], cache)
    other = CountingEmbedder(revision="2")
    documents(other, ["a"], cache)
    assert other.seen == ["a"]


def test_query_and_document_of_one_rendered_text_share_a_vector(tmp_path):
    cache = VectorCache(tmp_path)
    documents(CountingEmbedder(), ["a"], cache)
    embedder = CountingEmbedder()
    embed_texts(embedder, ["a"], role=Role.QUERY, cache=cache, progress=False)
    assert embedder.seen == []


def test_interrupted_run_keeps_what_it_had(tmp_path):
    cache = VectorCache(tmp_path)
    texts = [f"text {i:02d}" for i in range(20)]
    with pytest.raises(KeyboardInterrupt):
        documents(CountingEmbedder(fail_after=10), texts, cache)
    rest = CountingEmbedder()
    documents(rest, texts, cache)
    assert len(rest.seen) == 10


def _encode_forever(folder):
    class Slow(CountingEmbedder):
        def _blocks(self, texts):
            for block in super()._blocks(texts):
                yield block
                time.sleep(0.01)

    from toolkit.embedding import cache as module

    module._FLUSH_SECONDS = 0.05
    documents(Slow(), [f"text {i:04d}" for i in range(10_000)], VectorCache(folder))


def test_killed_process_leaves_whole_shards_only(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=_encode_forever, args=(tmp_path,))
    process.start()
    deadline = time.monotonic() + 60
    while len(list(tmp_path.rglob("*.safetensors"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    rest = CountingEmbedder()
    texts = [f"text {i:04d}" for i in range(10_000)]
    rows = documents(rest, texts, VectorCache(tmp_path))
    assert 0 < len(rest.seen) < len(texts)
    np.testing.assert_array_equal(rows[:50], CountingEmbedder().encode(texts[:50]))


def _encode_shared(folder, first):
    documents(StaticEmbedder(), [f"shared text {i}" for i in range(first, first + 600)], VectorCache(folder))


def test_two_processes_share_a_folder(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_encode_shared, args=(tmp_path, first)) for first in (0, 300)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    space_cache = VectorCache(tmp_path).for_space(StaticEmbedder().space)
    assert len(space_cache) == 900
    texts = [f"shared text {i}" for i in range(900)]
    np.testing.assert_allclose(
        documents(StaticEmbedder(), texts, VectorCache(tmp_path)), StaticEmbedder().encode(texts), atol=1e-6
    )


@pytest.mark.parametrize("where", ["header", "keys", "rows", "truncated", "empty"])
def test_damaged_shard_is_reported_removed_and_recomputed(tmp_path, where):
    cache = VectorCache(tmp_path)
    expected = documents(CountingEmbedder(), ["a", "b", "c"], cache)
    (shard,) = tmp_path.rglob("*.safetensors")
    payload = bytearray(shard.read_bytes())
    data_start = 8 + int.from_bytes(payload[:8], "little")
    if where == "header":
        payload[0] ^= 0xFF
    elif where == "truncated":
        del payload[-5:]
    elif where == "empty":
        payload.clear()
    else:
        sizes = {"keys": 3 * 16, "rows": 3 * 8 * 4}
        # safetensors lays larger element types first
        offset = data_start + (1 if where == "rows" else sizes["rows"] + 1)
        payload[offset] ^= 0x01
    shard.write_bytes(payload)
    again = CountingEmbedder()
    with pytest.warns(CacheWarning, match="is damaged"):
        rows = documents(again, ["a", "b", "c"], cache)
    np.testing.assert_array_equal(rows, expected)
    assert sorted(again.seen) == ["a", "b", "c"]
    assert not shard.exists()


def test_folder_that_cannot_be_written_says_how_to_choose_another(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(PlanError, match="TOOLKIT_CACHE"):
        documents(CountingEmbedder(), ["a"], VectorCache(blocker))


def test_rows_can_go_to_a_mapped_file(tmp_path):
    rows = documents(CountingEmbedder(), ["a", "b", "a"], out=tmp_path / "rows.npy")
    assert isinstance(rows, np.memmap)
    np.testing.assert_array_equal(np.load(tmp_path / "rows.npy"), CountingEmbedder().encode(["a", "b", "a"]))


class _Broken(CountingEmbedder):
    def __init__(self, change):
        super().__init__()
        self._change = change

    def _blocks(self, texts):
        for places, rows in super()._blocks(texts):
            yield places, self._change(rows)


@pytest.mark.parametrize(
    "change",
    [lambda r: r * 2, lambda r: r[:, :4], lambda r: r.astype(np.float64), lambda r: r * np.nan],
    ids=["norm", "shape", "dtype", "nan"],
)
def test_engine_that_returns_no_embeddings_is_refused_and_nothing_is_cached(tmp_path, change):
    cache = VectorCache(tmp_path)
    with pytest.raises(VectorError):
        documents(_Broken(change), ["a"], cache)
    assert len(cache.for_space(CountingEmbedder().space)) == 0


def fill(folder, count, dim=8):
    """A cache of `count` vectors in several shards; returns the keys."""
    space = replace(CountingEmbedder().space, full_dim=dim)
    keys = text_keys([f"number {i}" for i in range(count)])
    part = VectorCache(folder).for_space(space)
    for start in range(0, count, 3_000):
        some = keys[start : start + 3_000]
        part.add(some, np.full((len(some), dim), start, dtype=np.float32))
        part.flush()
    return space, keys


def test_keys_are_kept_sorted_in_a_file_that_is_made_again_when_it_is_gone_or_broken(tmp_path):
    space, keys = fill(tmp_path, 10_000)
    index = tmp_path / space.fingerprint / "keys.index"
    for content in (None, b"", b"toolkit keys 1\n\n{}", None):
        if content is not None:
            index.write_bytes(content)
        again = VectorCache(tmp_path).for_space(space)
        out = np.zeros((len(keys), 8), dtype=np.float32)
        assert again.read(keys, out, np.arange(len(keys))) == []
        np.testing.assert_array_equal(out[:, 0], np.arange(10_000) // 3_000 * 3_000)
        assert again.read([b"x" * 16, keys[0]], out, [0, 1]) == [0]
        assert index.stat().st_size > 24 * 10_000


def test_an_index_that_names_other_rows_gives_no_wrong_vector(tmp_path):
    space, keys = fill(tmp_path, 6_000)
    VectorCache(tmp_path).for_space(space)
    index = tmp_path / space.fingerprint / "keys.index"
    payload = bytearray(index.read_bytes())
    payload[-8 * 6_000 :] = np.roll(np.frombuffer(payload[-8 * 6_000 :], "<u8"), 1).tobytes()
    index.write_bytes(payload)
    out = np.zeros((len(keys), 8), dtype=np.float32)
    lost = VectorCache(tmp_path).for_space(space).read(keys, out, np.arange(len(keys)))
    kept = np.setdiff1d(np.arange(len(keys)), lost)
    np.testing.assert_array_equal(out[kept, 0], kept // 3_000 * 3_000)
    assert len(lost) > 0


def test_an_index_that_names_shards_that_never_were_gives_nothing(tmp_path):
    space, keys = fill(tmp_path, 6_000)
    VectorCache(tmp_path).for_space(space)
    index = tmp_path / space.fingerprint / "keys.index"
    payload = bytearray(index.read_bytes())
    payload[-8 * 6_000 :] = (np.frombuffer(payload[-8 * 6_000 :], "<u8") + np.uint64(99 << 40)).tobytes()
    index.write_bytes(payload)
    out = np.zeros((len(keys), 8), dtype=np.float32)
    assert len(VectorCache(tmp_path).for_space(space).read(keys, out, np.arange(len(keys)))) == len(keys)


def test_keys_that_share_their_first_half_are_told_apart(tmp_path):
    space = CountingEmbedder().space
    part = VectorCache(tmp_path).for_space(space)
    keys = [b"same8byt" + bytes([i]) * 8 for i in range(5)]
    part.add(keys, np.eye(5, 8, dtype=np.float32))
    part.flush()
    out = np.zeros((4, 8), dtype=np.float32)
    asked = [keys[3], b"same8byt" + b"\xff" * 8, keys[0], keys[4]]
    assert VectorCache(tmp_path).for_space(space).read(asked, out, np.arange(4)) == [1]
    np.testing.assert_array_equal(out.argmax(axis=1)[[0, 2, 3]], [3, 0, 4])


def test_a_folder_named_like_a_shard_is_no_shard(tmp_path):
    cache = VectorCache(tmp_path)
    (tmp_path / CountingEmbedder().space.fingerprint / "x.safetensors").mkdir(parents=True)
    documents(CountingEmbedder(), ["a"], cache)
    assert len(cache.for_space(CountingEmbedder().space)) == 1


def test_a_shard_that_cannot_be_read_now_is_not_removed(tmp_path, monkeypatch):
    cache = VectorCache(tmp_path)
    documents(CountingEmbedder(), ["a"], cache)
    (shard,) = tmp_path.rglob("*.safetensors")
    opens = Path.open

    def stale(path, *arguments, **options):
        if path == shard:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return opens(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", stale)
        again = CountingEmbedder()
        with pytest.warns(CacheWarning, match="cannot be read"):
            documents(again, ["a"], cache)
    assert again.seen == ["a"]
    assert shard.exists()


def test_a_full_disk_costs_the_cache_and_not_the_vectors(tmp_path, monkeypatch):
    cache = VectorCache(tmp_path)

    def full(path, payload):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    documents(CountingEmbedder(), ["before"], cache)
    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "write_atomically", full)
        with pytest.warns(CacheWarning, match="No space left"):
            rows = documents(CountingEmbedder(), ["a", "b"], cache)
    np.testing.assert_array_equal(rows, CountingEmbedder().encode(["a", "b"]))
    assert len(cache.for_space(CountingEmbedder().space)) == 1
