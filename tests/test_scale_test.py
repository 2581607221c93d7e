"""A corpus padded to another size, and a setting measured there."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sweeps import names_set, sweep_into

import toolkit
from toolkit.at_scale.distractors import Distractors
from toolkit.at_scale.measure import check_room, measure
from toolkit.at_scale.padded import pad
from toolkit.embedding.cache import VectorCache
from toolkit.embedding.static import StaticEmbedder
from toolkit.errors import DataError, PlanError
from toolkit.experiment.setting import Setting
from toolkit.vectors import Vectors, normalize


def clustered(rows, dim=32, *, seed=0):
    """Unit rows about 40 centres that do not depend on the seed."""
    centres = np.random.default_rng(99).standard_normal((40, dim))
    rng = np.random.default_rng(seed)
    scale = np.linspace(1.0, 0.1, dim)
    return normalize(
        (centres[rng.integers(0, 40, rows)] + rng.standard_normal((rows, dim)) * scale).astype(np.float32)
    )


def nearest(corpus, rows):
    return (rows @ corpus.T).max(axis=1)


def test_distractors_are_as_near_as_further_documents_of_the_source():
    corpus, further = clustered(1_500), clustered(1_500, seed=1)
    drawn = Distractors(corpus).block(0, 1_500)
    at = [5, 25, 50, 75, 95]
    wanted = np.percentile(nearest(corpus, further), at)
    assert np.percentile(nearest(corpus, drawn), at) == pytest.approx(wanted, abs=0.02)
    gaussian = normalize(np.random.default_rng(0).standard_normal((1_500, 32)).astype(np.float32))
    assert np.abs(np.percentile(nearest(corpus, gaussian), at) - wanted).max() > 0.2, "the test can fail"
    spectra = [np.sort(np.linalg.eigvalsh(np.cov(rows.T)))[::-1] for rows in (further, drawn)]
    shares = [spectrum[:8].sum() / spectrum.sum() for spectrum in spectra]
    assert shares[0] == pytest.approx(shares[1], abs=0.05)


def test_copies_and_empty_documents_do_no_harm():
    corpus = np.concatenate([clustered(50), clustered(1).repeat(100, axis=0), np.zeros((5, 32), np.float32)])
    drawn = Distractors(corpus).block(0, 300)
    assert np.einsum("ij,ij->i", drawn, drawn) == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(DataError, match="give three"):
        Distractors(np.zeros((5, 32), np.float32))


def test_distractors_are_drawn_after_the_documents_that_they_are_to_be_like(tmp_path):
    here, there = clustered(200), clustered(200, seed=3)
    here[:, :16], there[:, 16:] = 0.0, 0.0
    rows = pad(normalize(here), 500, tmp_path / "rows.npy", like=normalize(there), progress=False).rows
    assert (rows[:200] == normalize(here)).all()
    assert np.abs(rows[200:, 16:]).max() < 1e-6


def test_padding_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    from toolkit.at_scale import padded

    corpus, others = clustered(200), clustered(30, seed=5)
    monkeypatch.setattr(padded, "BLOCK_ROWS", 100)
    whole = pad(corpus, 700, tmp_path / "whole.npy", others=others, progress=False).rows
    assert (whole[:200] == corpus).all()
    assert (whole[200:230] == others).all()
    drawn = []
    block = Distractors.block

    def stopped(self, number, rows):
        drawn.append(number)
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return block(self, number, rows)

    monkeypatch.setattr(Distractors, "block", stopped)
    with pytest.raises(KeyboardInterrupt):
        pad(corpus, 700, tmp_path / "part.npy", others=others, progress=False)
    again = pad(corpus, 700, tmp_path / "part.npy", others=others, progress=False).rows
    assert drawn == [0, 1, 2, 2, 3, 4]
    assert (again == whole).all()


def test_an_exact_scan_finds_all_and_a_coarse_one_less():
    vectors, queries = Vectors(clustered(2_000)), clustered(40, seed=7)
    exact = measure(vectors, queries, Setting(32))
    assert (exact.recall, exact.agreement) == (1.0, 1.0)
    short = measure(vectors, queries, Setting(16))
    assert short.recall == 1.0
    assert short.agreement < 0.95
    coarse = measure(vectors, queries, Setting(32, index="IVF64", search_args={"nprobe": 1}))
    assert coarse.recall < 0.95
    rescored = measure(vectors, queries, Setting(32, "binary", rescore=[(32, 400)]))
    assert rescored.recall > measure(vectors, queries, Setting(32, "binary")).recall
    assert 0 < exact.p50_ms <= exact.p95_ms <= exact.p99_ms
    assert exact.index_bytes >= 2_000 * 32 * 4


def test_what_does_not_fit_is_refused_with_the_numbers(tmp_path):
    with pytest.raises(
        PlanError, match=r"needs about [\d,]+\.\d GB of memory, .* GB are free; choose up to about"
    ):
        check_room(Setting(256), 10**11, 256, index_bytes=10**11 * 1024.0, folder=tmp_path)
    check_room(Setting(256), 1_000, 256, index_bytes=1_024_000.0, folder=tmp_path)


def test_a_folder_keeps_what_was_measured_at_scale(tmp_path):
    data = names_set()
    results = sweep_into(tmp_path / "out", tmp_path / "cache", data=data)
    given = {
        "data": data,
        "embedder": StaticEmbedder(),
        "cache": VectorCache(tmp_path / "cache"),
        "progress": False,
    }
    documents = len(data.docs)
    found = toolkit.scale_test(
        results, 400, setting="64 float32 HNSW8 efSearch=16", distractors=["a page about a ship"] * 3, **given
    )
    assert (found.corpus, found.others, found.drawn) == (documents, 3, 400 - documents - 3)
    assert found.found.documents == 400
    assert found.found.setting == "64 float32 HNSW8 efSearch=32"
    assert "400 documents" in str(found)
    assert found.found.recall > 0.8
    toolkit.scale_test(results, 400, setting="64 float32 Flat", **given)
    toolkit.scale_test(results, 400, setting="64 float32 Flat", **given)
    kept = json.loads((tmp_path / "out" / "scale_test.json").read_text())
    assert [one["measured_as"] for one in kept] == ["64 float32 HNSW8 efSearch=16", "64 float32 Flat"]
    assert not (tmp_path / "out" / "scale").exists()
    with pytest.raises(PlanError, match="choose more"):
        toolkit.scale_test(results, 10, **given)
    with pytest.raises(PlanError, match="did you mean '64 float32 Flat'"):
        toolkit.scale_test(results, 400, setting="64 float32 Flatt", **given)
