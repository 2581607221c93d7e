"""Engines and data readers of other packages, found by their entry points as they lie on the path."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import toolkit
from toolkit.embedding.config import parse_spec
from toolkit.errors import PlanError

MODULE = """
import numpy as np
import toolkit
from toolkit.space import EmbeddingSpace
from toolkit.vectors import normalize

def read(place, split):
    return toolkit.retrieval_set([place, "other"], ["query"], {0: [0]}, name=f"{place}@{split}")

class Counting:
    def __init__(self, place):
        self.space = EmbeddingSpace("letters-" + place, "1", "letters", "float32", "none", 0, 26, 26)

    def encode(self, texts):
        counts = np.array([[1 + text.count(chr(97 + i)) for i in range(26)] for text in texts], dtype=np.float32)
        return normalize(counts)
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A distribution as pip lays it out: a module, and a folder of metadata that names its entry points."""
    (tmp_path / "letters_plugin.py").write_text(MODULE)
    about = tmp_path / "letters_plugin-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: letters-plugin\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[toolkit.data]\nletters = letters_plugin:read\n\n[toolkit.embedders]\nletters = letters_plugin:Counting\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("letters_plugin", None)


def test_a_plugin_is_loaded_when_its_spec_is_opened(installed):
    config = parse_spec("letters:a@b")
    assert "letters_plugin" not in sys.modules
    embedder = toolkit.open_embedder(config)
    assert embedder.space.model == "letters-a@b"
    assert toolkit.embed(embedder, ["abba"], progress=False).shape == (1, 26)
    data = toolkit.load_dataset("letters:place@dev")
    assert (data.name, data.docs[0]) == ("place@dev", "place")


def test_a_whole_sweep_runs_on_plugins(installed, tmp_path):
    docs = ["".join(chr(97 + (i * j) % 26) for j in range(9)) for i in range(1, 13)]
    data = toolkit.retrieval_set(docs, docs, {i: [i] for i in range(12)})
    results = toolkit.sweep(
        embedder="letters:x",
        data=data,
        k=10,
        dims="auto",
        timing={"queries": 2, "rounds": 1},
        out=tmp_path / "o",
        progress=False,
    )
    assert np.isclose(results.frame()["recall@1"].iloc[0], 1.0)


def test_names_of_plugins_are_suggested(installed):
    with pytest.raises(PlanError, match="did you mean 'letters:x'"):
        parse_spec("leters:x")
    with pytest.raises(PlanError, match="did you mean letters:"):
        toolkit.load_dataset("leters:x")


def test_a_plugin_that_is_gone_is_named(installed, monkeypatch):
    config = parse_spec("letters:x")
    monkeypatch.setattr("toolkit.embedding.open.entry_points", lambda group: ())
    with pytest.raises(PlanError, match="needs the package that brings the entry point 'letters'"):
        toolkit.open_embedder(config)
