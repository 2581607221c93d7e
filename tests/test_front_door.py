"""The public functions take what a program holds: sets, frames, open embedders, objects of one's own."""

from __future__ import annotations

import inspect

import numpy as np
import pandas as pd
import pytest
from sentence_transformers import SentenceTransformer

import toolkit
from tests.models import make_sentence_transformer
from toolkit.embedding.static import StaticEmbedder
from toolkit.errors import DataError, PlanError
from toolkit.space import EmbeddingSpace
from toolkit.vectors import normalize

COLOURS = ("red", "green", "blue", "white", "black", "grey", "brown", "pink", "gold", "teal", "navy", "lime")
DOCS = [f"the colour {name}" for name in COLOURS]
QUERIES = [doc.removeprefix("the ") for doc in DOCS]
QRELS = {i: [i] for i in range(len(DOCS))}
QUICK = {"dims": (64, 128), "k": 10, "timing": {"queries": 4, "rounds": 1}, "progress": False}


def colours():
    return toolkit.retrieval_set(DOCS, QUERIES, QRELS, name="colours")


def test_lists_dictionaries_and_frames_make_the_same_set():
    docs, queries = ({str(i): text for i, text in enumerate(texts)} for texts in (DOCS, QUERIES))
    rows = pd.DataFrame({"query_id": list(queries), "document_id": list(docs), "score": 1})
    frames = [pd.DataFrame({"id": list(texts), "text": list(texts.values())}) for texts in (docs, queries)]
    sets = [
        colours(),
        toolkit.retrieval_set(docs, queries, {i: {i: 1} for i in docs}, name="colours"),
        toolkit.retrieval_set(DOCS, QUERIES, [(i, i) for i in range(len(DOCS))], name="colours"),
        toolkit.retrieval_set(*frames, rows, name="colours"),
        toolkit.retrieval_set(DOCS, QUERIES, rows.drop(columns="score"), name="colours"),
    ]
    assert len({one.content_hash for one in sets}) == 1


class PolarsLike:
    """What a polars frame answers, without the package."""

    def __init__(self, columns):
        self._columns = columns

    columns = property(lambda self: list(self._columns))

    def to_dict(self, *, as_series=True):
        assert not as_series
        return self._columns


def test_polars_frames_are_read_by_their_own_method():
    docs = PolarsLike({"id": [str(i) for i in range(len(DOCS))], "text": DOCS})
    assert toolkit.retrieval_set(docs, QUERIES, QRELS, name="colours").content_hash == colours().content_hash


@pytest.mark.parametrize(
    ("docs", "queries", "qrels", "message"),
    [
        (["a", None], ["q"], {0: [0]}, r"docs\[1\] is NoneType None"),
        ("a", ["q"], {0: [0]}, "docs must be a list of texts"),
        (["a"], ["q"], {5: [0]}, "qrels judge query '?5'?, which is not among the 1 queries"),
        (["a"], ["q"], {0: [3]}, "names? document '3'"),
        (["a"], ["q"], {0: {0: 0.5}}, "gain 0.5 is not a whole number"),
        (["a"], ["q"], [(0,)], r"qrels\[0\] is \(0,\); write \(query id, document id\)"),
        (pd.DataFrame({"body": ["a"]}), ["q"], {0: [0]}, "takes the columns id, text; found body"),
        (pd.DataFrame({"id": [1, 1], "text": ["a", "b"]}), ["q"], {0: [1]}, "id '1' stands more than once"),
    ],
)
def test_what_does_not_fit_is_named(docs, queries, qrels, message):
    with pytest.raises(DataError, match=message):
        toolkit.retrieval_set(docs, queries, qrels)


def test_pair_sets_from_lists_and_frames():
    frame = pd.DataFrame({"sentence1": ["a", "b"], "sentence2": ["c", "d"], "score": [1, 2.5]})
    assert (
        toolkit.pair_set(frame).content_hash
        == toolkit.pair_set(["a", "b"], ["c", "d"], [1, 2.5]).content_hash
    )
    assert toolkit.pair_set(["a"], ["c"]).kind == "bitext"
    with pytest.raises(DataError, match="pair 1: score 'x' is not a number"):
        toolkit.pair_set(["a", "b"], ["c", "d"], [1, "x"])


def test_a_sweep_takes_a_set_and_an_open_embedder_and_leaves_it_open(tmp_path):
    embedder = StaticEmbedder()
    results = toolkit.sweep(embedder=embedder, data=colours(), out=tmp_path / "out", **QUICK)
    assert set(results.frame()["dim"]) == {64, 128, 256}
    assert embedder.encode(["still open"]).shape == (1, 256)


class MyEmbedder:
    """The least an object of one's own must have."""

    space = EmbeddingSpace("mine", "1", "hash", "float32", "none", 0, 16, 16)

    def encode(self, texts):
        rows = [np.random.default_rng(abs(hash(text)) % 2**32).normal(size=16) for text in texts]
        return normalize(np.array(rows))


def test_a_sweep_takes_any_object_with_space_and_encode(tmp_path):
    with pytest.warns(toolkit.ToolkitWarning, match="trained for 16 only"):
        results = toolkit.sweep(
            embedder=MyEmbedder(), data=colours(), out=tmp_path / "out", **QUICK | {"dims": [8]}
        )
    assert set(results.frame()["dim"]) == {8, 16}


def test_a_loaded_sentence_transformer_gives_its_own_vectors_whatever_cut_it_is_set_to(tmp_path):
    folder = make_sentence_transformer(tmp_path / "m", prompts={"query": "rain tree: "})
    model = SentenceTransformer(str(folder), device="cpu", truncate_dim=8)
    embedder = toolkit.open_embedder(model)
    assert embedder.space.full_dim == 32
    rows = toolkit.embed(embedder, ["cat dog", "sun"], role="query", progress=False)
    with model.truncate_embeddings(None):
        own = model.encode(["cat dog", "sun"], prompt_name="query", normalize_embeddings=True)
    np.testing.assert_allclose(rows, own, atol=1e-6)
    assert model.truncate_dim == 8
    other = SentenceTransformer(str(make_sentence_transformer(tmp_path / "n")), device="cpu")
    next(other.parameters()).data.mul_(1.5)
    assert toolkit.open_embedder(other).space.fingerprint != embedder.space.fingerprint


def test_the_signature_of_sweep_names_every_field_of_a_plan():
    named = inspect.signature(toolkit.sweep).parameters
    assert set(toolkit.SweepPlan.model_fields) <= set(named)
    assert not [one for one in named.values() if one.kind is inspect.Parameter.VAR_KEYWORD]


def test_what_is_no_embedder_no_set_or_no_text_is_said_in_one_line(tmp_path):
    with pytest.raises(PlanError, match=r"toolkit\.retrieval_set"):
        toolkit.load_dataset(pd.DataFrame({"text": ["a"]}))
    with pytest.raises(PlanError, match="int is not an embedder"):
        toolkit.sweep(embedder=3, data=colours(), out=tmp_path / "out")
    with pytest.raises(PlanError, match=r"texts\[1\] is None, not a string"):
        toolkit.embed("static", ["a", None])
    with pytest.raises(PlanError, match="has no effect on documents"):
        toolkit.embed("static", ["a"], instruction="Find colours")
