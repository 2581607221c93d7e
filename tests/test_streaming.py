"""Corpora that stream: bounded windows, the same rows as from a list, whatever is known of the length."""

from __future__ import annotations

import weakref

import numpy as np
import pytest

from tests.test_cache import CountingEmbedder
from toolkit.embedding import pipeline
from toolkit.embedding.cache import VectorCache
from toolkit.embedding.pipeline import embed_texts
from toolkit.errors import VectorError
from toolkit.space import Role

TEXTS = [f"text {i % 23:02d}" for i in range(100)]


@pytest.fixture(autouse=True)
def short_windows(monkeypatch):
    monkeypatch.setattr(pipeline, "_WINDOW_TEXTS", 7)


def embedded(texts, **options):
    return embed_texts(CountingEmbedder(), texts, role=Role.DOCUMENT, progress=False, **options).rows


@pytest.mark.parametrize("known", [True, False], ids=["list", "stream"])
@pytest.mark.parametrize("mapped", [True, False], ids=["file", "memory"])
@pytest.mark.parametrize("cached", [True, False], ids=["cache", "no cache"])
def test_windows_give_the_rows_of_one_list_and_encode_each_text_once(tmp_path, known, mapped, cached):
    embedder = CountingEmbedder()
    rows = embed_texts(
        embedder,
        TEXTS if known else iter(TEXTS),
        role=Role.DOCUMENT,
        cache=VectorCache(tmp_path / "cache") if cached else None,
        out=tmp_path / "rows.npy" if mapped else None,
        progress=False,
    ).rows
    expected = CountingEmbedder().encode(TEXTS)
    np.testing.assert_array_equal(rows, expected)
    assert sorted(embedder.seen) == sorted(set(TEXTS))
    if mapped:
        np.testing.assert_array_equal(np.load(tmp_path / "rows.npy"), expected)


def test_no_texts_give_no_rows():
    assert embedded(iter(())).shape == embedded([]).shape == (0, 8)


class _Text(str):
    """Strings have no weak references, their subclasses do."""


def test_of_a_stream_only_a_window_is_held():
    living = weakref.WeakSet()
    most = 0

    def stream():
        nonlocal most
        for i in range(200):
            text = _Text(f"text {i}")
            living.add(text)
            most = max(most, len(living))
            yield text
            del text

    assert len(embedded(stream())) == 200
    assert most <= 3 * 7


def test_an_interrupted_stream_keeps_what_was_encoded(tmp_path):
    cache = VectorCache(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        embed_texts(
            CountingEmbedder(fail_after=10), iter(TEXTS), role=Role.DOCUMENT, cache=cache, progress=False
        )
    assert len(cache.for_space(CountingEmbedder().space)) >= 10


class _Short(list):
    def __len__(self):
        return super().__len__() + 1


def test_a_length_that_does_not_hold_is_an_error():
    with pytest.raises(VectorError, match="101 texts were announced and 100 came"):
        embedded(_Short(TEXTS))
