"""What each precision stores and finds, against references that do not use FAISS."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.search.faiss.backend import build_index
from toolkit.search.faiss.index import pack_signs, threads
from toolkit.vectors import Vectors, normalize, truncate

faiss = pytest.importorskip("faiss", reason="these tests need FAISS (extra cpu)")

DIM, K = 32, 10


def decaying(rows, dim, seed=0):
    generator = np.random.default_rng(seed)
    return normalize(generator.standard_normal((rows, dim)) * (1.0 + np.arange(dim)) ** -0.4)


CORPUS = Vectors(decaying(800, 48))
CUT = truncate(CORPUS.rows, DIM)
QUERIES = truncate(decaying(25, 48, seed=1), DIM)


@pytest.fixture(autouse=True)
def one_thread():
    """Training on a few hundred rows is all waiting for each other with more threads."""
    with threads(1):
        yield


def scalar_codes(rows, levels):
    """Uniform codes between each dimension's least and greatest number, and the numbers they stand for.

    FAISS's decoder returns the middle of a code's interval.
    """
    low, high = rows.min(axis=0), rows.max(axis=0)
    codes = np.floor(np.clip((rows - low) / (high - low), 0, 1) * levels)
    return codes, low + (codes + 0.5) / levels * (high - low)


def assert_same_search(found, similarity, tolerance):
    """Scores equal the reference's best, and so does the similarity of the rows returned."""
    best = -np.sort(-similarity, axis=1)[:, :K]
    np.testing.assert_allclose(found.scores, best, atol=tolerance)
    np.testing.assert_allclose(np.take_along_axis(similarity, found.rows, axis=1), best, atol=tolerance)


@pytest.mark.parametrize(("precision", "levels"), [("int8", 255), ("uint4", 15)])
def test_scalar_codes_by_hand(precision, levels):
    found = build_index(CORPUS, DIM, precision=precision).search(QUERIES, K)
    _, decoded = scalar_codes(CUT, levels)
    assert_same_search(found, QUERIES @ decoded.T, 1e-5)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_by_hand(precision):
    torch = pytest.importorskip("torch")
    stored = torch.from_numpy(CUT).to(getattr(torch, precision)).float().numpy()
    found = build_index(CORPUS, DIM, precision=precision).search(QUERIES, K)
    assert_same_search(found, QUERIES @ stored.T, 1e-5)


def test_binary_by_hand():
    found = build_index(CORPUS, DIM, precision="binary").search(QUERIES, K)
    hamming = ((QUERIES > 0)[:, None] != (CUT > 0)[None]).sum(axis=2)
    assert_same_search(found, -hamming.astype(np.float32), 0)


def test_binary_and_int8_codes_equal_those_of_sentence_transformers():
    quantization = pytest.importorskip("sentence_transformers.quantization")
    quantize_embeddings = getattr(quantization, "quantize_embeddings")  # noqa: B009
    np.testing.assert_array_equal(pack_signs(CUT), quantize_embeddings(CUT, precision="ubinary"))

    index = build_index(CORPUS, DIM, precision="int8").index
    codes = faiss.vector_to_array(index.codes).reshape(len(CUT), -1).astype(int)
    theirs = quantize_embeddings(CUT, precision="uint8", calibration_embeddings=CUT).astype(int)
    # The same per-dimension range in 255 steps; only numbers on a step's border round differently.
    assert np.abs(codes - theirs).max() <= 1
    assert (codes == theirs).mean() > 0.99


def test_product_codes_by_hand():
    built = build_index(CORPUS, DIM, precision="pq")
    pq = built.index.pq
    centroids = faiss.vector_to_array(pq.centroids).reshape(pq.M, pq.ksub, pq.dsub)
    parts = CUT.reshape(len(CUT), pq.M, pq.dsub)
    distances = ((parts[:, :, None] - centroids[None]) ** 2).sum(axis=3)
    decoded = np.take_along_axis(centroids[None], distances.argmin(axis=2)[:, :, None, None], axis=2)
    assert_same_search(built.search(QUERIES, K), QUERIES @ decoded.reshape(len(CUT), -1).T, 1e-4)


@pytest.mark.parametrize(
    ("precision", "bytes_per_vector"),
    [
        ("float32", 128),
        ("float16", 64),
        ("bfloat16", 64),
        ("int8", 32),
        ("uint4", 16),
        ("binary", 4),
        ("pq", 8),
    ],
)
def test_stored_bytes_are_real(precision, bytes_per_vector):
    few, many = (
        build_index(Vectors(decaying(rows, DIM)), DIM, precision=precision).index_bytes for rows in (300, 700)
    )
    assert (many - few) / 400 == bytes_per_vector


@pytest.mark.parametrize("precision", ["opq", "rabitq"])
def test_rotated_codes_find_most_neighbours(precision):
    built = build_index(CORPUS, DIM, precision=precision)
    found = built.search(QUERIES, 50)
    exact = np.argsort(-(QUERIES @ CUT.T), axis=1)[:, :K]
    hits = np.mean([len(set(a) & set(b)) / K for a, b in zip(found.rows, exact, strict=True)])
    assert hits > 0.8


def test_a_zero_row_does_no_harm():
    rows = CORPUS.rows.copy()
    rows[5] = 0
    for precision in ("int8", "binary", "float16"):
        found = build_index(Vectors(rows), DIM, precision=precision).search(QUERIES, K)
        assert np.isfinite(found.scores).all()
