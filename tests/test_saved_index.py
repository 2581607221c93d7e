"""A recommended setting's index, taken along: it finds what the sweep measured, and says what it is."""

from __future__ import annotations

import json
import subprocess
import sys

import faiss
import numpy as np
import pytest
from sweeps import names_set

import toolkit
from toolkit.deploy.saved_index import SavedIndex, save_index
from toolkit.embedding.cache import VectorCache
from toolkit.embedding.static import StaticEmbedder
from toolkit.errors import PlanError, ResultsError
from toolkit.experiment.setting import Setting
from toolkit.judge.sources import neighbours_of

pytestmark = pytest.mark.filterwarnings("ignore::toolkit.errors.DimensionWarning")
TIMING = {"queries": 3, "rounds": 1, "threads": [1]}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    cache = VectorCache(folder / "cache")
    results = toolkit.sweep(
        embedder="static",
        data=names_set(),
        dims=[64],
        precisions=["float32", "int8", "binary"],
        indexes=["Flat", {"factory": "HNSW8", "search": [{"efSearch": 32}]}],
        rescore=[{"dim": 128, "candidates": 15}],
        k=10,
        max_unlabelled=0,
        timing=TIMING,
        out=folder / "out",
        cache=cache,
        progress=False,
    )
    return results, cache


@pytest.mark.parametrize(
    "key",
    [
        "256 float32 Flat",
        "64 int8 HNSW8 efSearch=32",
        "64 binary Flat rescore=128@15",
    ],
)
def test_a_saved_index_finds_what_the_sweep_measured(swept, tmp_path, key):
    results, cache = swept
    data, setting = names_set(), Setting.parse(key)
    path = save_index(results.results, setting, tmp_path / "index", data=data, cache=cache, progress=False)
    found = SavedIndex.load(path).search(data.queries, k=10)
    measured = neighbours_of(results.results, [key], data)[key]
    assert [[one for one, _ in of] for of in found] == [
        [data.doc_ids[row] for row in rows] for rows in measured.rows[:, :10]
    ]
    assert [score for _, score in found[0]] == sorted((score for _, score in found[0]), reverse=True) or (
        "binary" in key and "rescore" not in key
    )
    facts = json.loads((path / "setting.json").read_text())
    assert (facts["setting"], facts["documents"], facts["embedder"]) == (key, len(data.docs), "static")


def test_the_recommendation_saves_its_own_and_the_script_runs(swept, tmp_path):
    results, cache = swept
    found = toolkit.recommend(results, keep=0.5)
    path = found.save_index(tmp_path / "taken", data=names_set(), cache=cache, progress=False)
    assert json.loads((path / "setting.json").read_text())["setting"] == found.advised.setting
    done = subprocess.run(
        [sys.executable, path / "search.py"], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert len(done.stdout.splitlines()) == 10
    with pytest.raises(PlanError, match="not empty"):
        found.save_index(path, data=names_set(), cache=cache)


def test_faiss_reads_the_index_by_itself(swept, tmp_path):
    results, cache = swept
    key = "64 int8 HNSW8 efSearch=32"
    path = save_index(
        results.results, Setting.parse(key), tmp_path / "index", data=names_set(), cache=cache, progress=False
    )
    index = faiss.read_index(str(path / "index"))
    assert (index.ntotal, index.d) == (len(names_set().docs), 64)


def test_nothing_is_encoded_again_and_another_space_is_refused(swept, tmp_path):
    results, cache = swept

    class Counting(StaticEmbedder):
        def encode(self, texts):
            raise AssertionError("the cache has these vectors")

    with Counting() as embedder:
        path = save_index(
            results.results,
            Setting(64),
            tmp_path / "index",
            data=names_set(),
            embedder=embedder,
            cache=cache,
            progress=False,
        )
    facts = json.loads((path / "setting.json").read_text())
    facts["space"]["fingerprint"] = "0" * 8
    (path / "setting.json").write_text(json.dumps(facts))
    with pytest.raises(PlanError, match="was built with"):
        SavedIndex.load(path)
    (path / "index").unlink()
    with pytest.raises(ResultsError):
        SavedIndex.load(path)


def test_rows_are_those_of_the_documents(swept, tmp_path):
    results, cache = swept
    path = save_index(
        results.results,
        Setting(64, "binary", rescore=[(128, 15)]),
        tmp_path / "i",
        data=names_set(),
        cache=cache,
    )
    rows = np.load(path / "stage-128.npy")
    assert rows == pytest.approx(
        toolkit.embed("static", list(names_set().docs), dim=128, progress=False), abs=1e-6
    )
