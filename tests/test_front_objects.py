"""What goes straight into `toolkit.sweep`, what a second call does, and how errors read in Python."""

import numpy as np
import pandas as pd
import pytest

import toolkit
from tests.test_front_door import DOCS, QRELS, QUERIES, QUICK, colours
from toolkit.cli.words import as_options
from toolkit.data.given import as_set
from toolkit.embedding.cache import VectorCache
from toolkit.embedding.given import vectors_of
from toolkit.embedding.static import StaticEmbedder
from toolkit.errors import DataError, Interrupted, PlanError, ResultsError, VectorError
from toolkit.experiment.sweep import NOTHING_LACKED


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows_of(texts):
    return StaticEmbedder().encode(texts)


def test_vectors_that_are_there_measure_what_the_model_behind_them_does(tmp_path):
    given = (3.0 * rows_of(DOCS), rows_of(QUERIES))
    own = toolkit.sweep(embedder="static", data=colours(), out=tmp_path / "own", **QUICK).frame()
    with pytest.warns(toolkit.ToolkitWarning, match="trained for 256 only"):
        found = toolkit.sweep(embedder=given, data=colours(), out=tmp_path / "given", **QUICK).frame()
    assert found["ndcg@10"].tolist() == own["ndcg@10"].tolist()
    named = vectors_of({"docs": given[0], "queries": given[1]}, DOCS, QUERIES)
    assert named.space == vectors_of(given, DOCS, QUERIES).space


def test_vectors_that_do_not_fit_say_how_many_are_needed(tmp_path):
    with pytest.raises(DataError, match=r"documents have shape \(3, 256\) and the set has 12 documents"):
        toolkit.sweep(embedder=(rows_of(DOCS)[:3], rows_of(QUERIES)), data=colours(), out=tmp_path / "o")
    with pytest.raises(DataError, match="256 numbers and those of queries 8"):
        toolkit.sweep(embedder=(rows_of(DOCS), rows_of(QUERIES)[:, :8]), data=colours(), out=tmp_path / "o")
    with pytest.raises(DataError, match="has no given vector; instructions change queries"):
        toolkit.embed(vectors_of((rows_of(DOCS), rows_of(QUERIES)), DOCS, QUERIES), ["another"])


def test_a_function_is_an_embedder_known_by_its_vectors(tmp_path):
    embedder = toolkit.open_embedder(rows_of)
    assert embedder.space.full_dim == 256
    np.testing.assert_allclose(toolkit.embed(rows_of, DOCS, progress=False), rows_of(DOCS), atol=1e-6)
    other = toolkit.open_embedder(lambda texts: rows_of(texts)[:, ::-1])
    assert other.space.fingerprint != embedder.space.fingerprint
    with pytest.raises(VectorError, match=r"returned an array of shape \(2,\) for 4 texts"):
        toolkit.open_embedder(lambda texts: [0.5, 0.5])


def test_frames_and_tuples_are_sets(tmp_path):
    frame = pd.DataFrame({"query": QUERIES, "document": DOCS})
    found = toolkit.sweep(data=frame, out=tmp_path / "frame", **QUICK).frame()
    assert found["ndcg@10"].iloc[-1] == pytest.approx(1.0)
    assert as_set((DOCS, QUERIES, QRELS)).content_hash == as_set(colours()).content_hash
    named = {"docs": DOCS, "queries": QUERIES, "qrels": QRELS}
    assert as_set(named).content_hash == as_set(colours()).content_hash
    with pytest.raises(PlanError, match="data of type int is not an evaluation set; give a spec"):
        toolkit.sweep(data=3, out=tmp_path / "o")
    with pytest.raises(DataError, match="a frame with columns body is not an evaluation set; rename"):
        toolkit.sweep(data=pd.DataFrame({"body": DOCS}), out=tmp_path / "o")


def test_without_a_folder_the_same_call_finds_its_own_and_another_plan_gets_another(in_folder):
    first = toolkit.sweep(data=colours(), **QUICK)
    again = toolkit.sweep(data=colours(), **QUICK)
    other = toolkit.sweep(data=colours(), **QUICK | {"dims": [96]})
    assert first.results.folder == again.results.folder != other.results.folder
    assert again.results.folder.name.startswith("colours-static-")
    assert any(note.startswith("continued: 3 of 3") for note in again.results.notes)
    assert NOTHING_LACKED in again.results.notes


def test_a_sweep_that_was_stopped_while_it_timed_is_not_called_finished(in_folder):
    folder = toolkit.sweep(data=colours(), **QUICK).results.folder
    for path in (folder / "raw").glob("*.timing.npz"):
        path.unlink()
    notes = toolkit.sweep(data=colours(), **QUICK).results.notes
    assert any(note.startswith("continued: 3 of 3") for note in notes)
    assert NOTHING_LACKED not in notes


def test_another_plan_in_the_same_folder_says_what_differs_and_what_to_do(tmp_path):
    toolkit.sweep(data=colours(), out=tmp_path / "o", **QUICK)
    with pytest.raises(ResultsError) as caught:
        toolkit.sweep(data=colours(), out=tmp_path / "o", **QUICK | {"dims": [96]})
    said = str(caught.value)
    assert "(dims [64, 128] there, [96] here); choose another folder (out=)" in said
    assert "--" not in said
    assert "choose another folder (--out), add these settings to those there with --resume" in as_options(
        said
    )
    shown = caught.value._render_traceback_()
    assert len(shown) == 2
    assert "toolkit.sweep(data=colours()" in shown[1]


def test_an_interrupt_says_that_the_same_call_goes_on(tmp_path):
    class Stopping(StaticEmbedder):
        def stream(self, texts):
            raise KeyboardInterrupt

    nothing = VectorCache(tmp_path / "cache")
    with pytest.raises(KeyboardInterrupt) as caught:
        toolkit.sweep(embedder=Stopping(), data=colours(), out=tmp_path / "o", cache=nothing, **QUICK)
    assert isinstance(caught.value, Interrupted)
    assert "kept. Run the same again to go on" in caught.value._render_traceback_()[0]
    assert (
        len(toolkit.sweep(embedder=StaticEmbedder(), data=colours(), out=tmp_path / "o", **QUICK).frame())
        == 3
    )


@pytest.mark.parametrize(
    ("python", "command"),
    [
        ("pass it as embedder=, or name it", "pass it as --embedder, or name it"),
        ("max_queries=; indexes=, precisions=", "--max-queries; --index, --precision"),
        (
            "with: toolkit.sweep('a b/plan.toml', resume=True, out='x')",
            "with: toolkit sweep 'a b/plan.toml' --resume --out x",
        ),
        ("with another data (a=b) and efSearch=64", "with another data (a=b) and efSearch=64"),
        ("toolkit.retrieval_set(docs=.., queries=..)", "toolkit.retrieval_set(docs=.., queries=..)"),
    ],
)
def test_a_message_in_pythons_words_becomes_one_of_options(python, command):
    assert as_options(python) == command
