"""A plan is laid out whole and checked by its backends before a model loads."""

from __future__ import annotations

import json
import warnings

import pytest

import toolkit
from toolkit.errors import PlanError, ToolkitWarning
from toolkit.experiment.grid import check_grid, labels_of, lay_out, same_instructions, smaller_sizes
from toolkit.experiment.plan import SweepPlan, make_plan, resolve_plan
from toolkit.experiment.setting import Setting
from toolkit.space import EmbeddingSpace, Prompts

pytest.importorskip("faiss", reason="the plans here name FAISS's indexes (extra cpu)")


def settings_of(full_dim=64, dims=(32, 64), **fields):
    return [setting for build in lay_out(make_plan(**fields), dims, full_dim) for setting in build.settings]


def check(documents=1_000, full_dim=64, dims=(64,), **fields):
    plan = make_plan(**fields)
    check_grid(plan, lay_out(plan, dims, full_dim), documents=documents)


@pytest.mark.parametrize(
    ("index", "curve"),
    [
        ("Flat", [{}]),
        ("HNSW32", [{"efSearch": width} for width in (16, 32, 64, 128)]),
        ("IVF256", [{"nprobe": probed} for probed in (1, 4, 16, 64)]),
        ("IVF8", [{"nprobe": 1}, {"nprobe": 4}]),
        # The graph of an IVF index finds lists; what is read is decided by nprobe.
        ("IVF256_HNSW32", [{"nprobe": probed} for probed in (1, 4, 16, 64)]),
        ("OPQ16,IVF64_HNSW32,PQ16x8", [{"nprobe": probed} for probed in (1, 4, 16, 64)]),
    ],
)
def test_an_index_without_search_arguments_gets_its_curve(index, curve):
    found = [dict(one.search_args) for one in settings_of(dims=[64], indexes=[index]) if one.index == index]
    assert found == curve


def test_what_a_plan_names_twice_is_there_once():
    once = settings_of(indexes=["Flat", "HNSW32"], instructions=["none"])
    twice = settings_of(
        indexes=["Flat", "HNSW32", "Flat", {"factory": "HNSW32", "search": [{"efSearch": 16}]}],
        instructions=["none", "", "none"],
    )
    assert twice == once
    assert len(set(twice)) == len(twice)
    both = settings_of(
        indexes=["HNSW32", {"factory": "HNSW32", "search": [{"efSearch": 500}, {"efSearch": 500}]}]
    )
    assert [dict(s.search_args)["efSearch"] for s in both if s.index != "Flat" and s.dim == 32] == [
        16,
        32,
        64,
        128,
        500,
    ]


def test_the_exact_reference_is_always_there():
    assert settings_of(indexes=["HNSW32"], precisions=["int8"])[-1] == Setting(64)
    assert settings_of().count(Setting(64)) == 1
    assert Setting(64, instruction="none") in settings_of(indexes=["IVF4"], instructions=["none", "default"])


def test_candidates_of_a_stage_do_not_depend_on_k_and_are_swept():
    stages = [{"dim": 32, "candidates": [200, 800]}, {"dim": "full", "candidates": [100, 400]}]
    for k in (10, 50):
        found = settings_of(dims=[16], k=k, rescore=[stages])
        assert [s.columns["rescore"] for s in found if s.dim == 16] == [
            "",
            "32@200>64@100",
            "32@800>64@100",
            "32@800>64@400",
        ]


def test_instructions_with_the_same_text_are_measured_once():
    plain = EmbeddingSpace("m", "1", "e", "float32", "mean", 0, 8, 8)
    prompted = plain.with_prompts(Prompts(instructed="{instruction}: {text}", default_instruction="find it"))
    plan = make_plan(instructions=["none", "default", "find it", "other"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert labels_of(plan) == ["none", "default", "find it", "other"]
        assert labels_of(plan, plain) == ["none", "find it", "other"]
        assert labels_of(plan, prompted) == ["none", "default", "other"]
    assert same_instructions(plan, prompted) == [
        "instructions 'default' and 'find it' give m the same queries; they are measured once, as 'default'"
    ]
    assert same_instructions(make_plan(instructions=["none", "other"]), plain) == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"k": 1_001},
            r"^k 1001 is more than the corpus's 1000 documents; choose 10\.\.1000, or leave it out$",
        ),
        ({"documents": 2}, r"^the corpus holds 2 documents; .* needs as many at least$"),
        (
            {"rescore": [{"candidates": 4}]},
            r"^rescore\[0\]\.candidates = 4 is below k = 100: .* counted multiples of k: 4 there is 400 now",
        ),
        (
            {"rescore": [{}, [{"dim": 32, "candidates": 100}, {"candidates": 200}]]},
            r"^rescore\[1\]\[1\]\.candidates = 200 is more than the 100 of the stage before it",
        ),
        ({"indexes": ["Flat", "IVF2000"]}, r"^indexes\[1\]: index 'IVF2000,Flat' has 2000 lists"),
        (
            {"indexes": ["IVF500"], "timing": {"fractions": [0.7, 0.3]}},
            r"^timing\.fractions\[1\] = 0\.3 leaves 300 documents: indexes\[0\]: .* 500 lists",
        ),
        (
            {"precisions": ["pq"], "timing": {"fractions": [0.2]}},
            r"^timing\.fractions\[0\] = 0\.2 leaves 200 documents: indexes\[0\]: .* needs 256 documents",
        ),
        (
            {"indexes": [{"factory": "IVF8", "search": [{"nprobe": 2}, {"efSearch": 3, "nprobe": 0}]}]},
            r"^indexes\[0\]\.search\[1\]: index 'IVF8,Flat' has no efSearch",
        ),
        (
            {"indexes": [{"factory": "Flat", "build": {"niter": 3}}]},
            r"^indexes\[0\]: index 'Flat' has no niter",
        ),
        ({"indexes": ["HNSW0"]}, r"^indexes\[0\]: index 'HNSW0': 0 links of a node"),
    ],
)
def test_what_cannot_work_is_named_with_its_place_in_the_plan(fields, message):
    with pytest.raises(PlanError, match=message):
        check(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dims": [0]}, "dims[0]: Input should be greater than or equal to 1 (got 0)"),
        ({"dims": [64, "x"]}, "dims[1]: "),
        (
            {"indexes": ["Flat", {"factory": "IVF8", "search": [{"nprobe": "many"}]}]},
            "indexes[1].search[0].nprobe: ",
        ),
        ({"rescore": [{"dim": 0}]}, "rescore[0].dim: "),
        ({"rescore": [{"candidates": [10, -1]}]}, "rescore[0].candidates[1]: "),
        ({"timing": {"threads": [-1]}}, "timing.threads[0]: "),
        ({"timing": {"round": 3}}, "unknown key 'timing.round'"),
        ({"rescore": [[{}, {"dim": 0}]]}, "rescore[0][1].dim: "),
        (
            {"indexes": ["two words"]},
            "indexes[0]: an index is one word, <backend>:<index> or <backend>@<uri>:<index> (got 'two words')",
        ),
    ],
)
def test_a_wrong_type_is_named_by_its_place_in_words(fields, message):
    with pytest.raises(PlanError) as caught:
        make_plan(**fields)
    assert str(caught.value).startswith(message)
    assert "constrained" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_k_that_nobody_chose_is_no_larger_than_the_corpus():
    assert SweepPlan().for_corpus(60).k == 60
    assert SweepPlan().for_corpus(5_000).k == 100
    assert SweepPlan().for_corpus(3).k == 100, "too few to measure anything; check_grid says so"
    assert make_plan(k=100).for_corpus(60).k == 100
    assert resolve_plan(SweepPlan(), seed=3).for_corpus(60).k == 60, "a field replaced leaves k unchosen"


def test_parts_of_the_corpus_hold_k_documents_at_least():
    plan = make_plan(k=20, timing={"fractions": [0.5, 0.001]})
    assert smaller_sizes(plan, 1_000) == [500, 20]


@pytest.fixture
def letters(tmp_path):
    folder = tmp_path / "letters"
    (folder / "qrels").mkdir(parents=True)
    docs = [
        {"_id": f"d{i}", "text": f"document {i} about topic {i * 7 % 13} and {i * 3 % 11}"} for i in range(60)
    ]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, docs)))
    queries = [{"_id": f"q{i}", "text": f"topic {i * 7 % 13} number {i}"} for i in range(12)]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    judged = "\n".join(f"q{i}\td{i}\t1" for i in range(12))
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    return f"beir:{folder}"


def test_a_grid_is_timed_over_parts_of_the_corpus_too(letters, tmp_path):
    """Fractions are measured on smaller indexes, each with its own documents, searches and bytes."""
    out = tmp_path / "out"
    results = toolkit.sweep(
        data=letters,
        dims=[64],
        indexes=["Flat", "IVF4"],
        timing={"queries": 5, "rounds": 2, "threads": [1, 1], "fractions": [0.5, 0.75]},
        k=10,
        out=out,
        progress=False,
    ).results
    scaling = results.scaling
    assert sorted(set(scaling["documents"])) == [30, 45, 60]
    keys = set(results.measurements["setting"])
    assert set(scaling["setting"]) == keys
    assert len(scaling) == 3 * len(keys)
    assert (scaling[["p50_ms", "p95_ms", "qps"]] > 0).all(axis=None)
    flat = scaling[scaling["setting"] == "64 float32 Flat"].set_index("documents")["index_bytes"]
    assert flat[60] - flat[45] == flat[45] - flat[30] == 15 * 64 * 4
    whole = results.measurements.set_index("setting")
    for key in keys:
        at_whole = scaling[(scaling["setting"] == key) & (scaling["documents"] == 60)].iloc[0]
        assert at_whole["p95_ms"] == whole.loc[key, "p95_ms"]


def test_an_unchosen_k_is_clamped_and_said(letters, tmp_path):
    timing = {"queries": 3, "rounds": 1, "threads": [1]}
    swept = {"data": letters, "dims": [64], "timing": timing, "progress": False}
    results = toolkit.sweep(**swept, out=tmp_path / "out").results
    assert results.plan.k == 60
    assert any(note.startswith("k is 60, as the corpus holds no more documents") for note in results.notes)
    with pytest.raises(PlanError, match="k 100 is more than the corpus's 60 documents"):
        toolkit.sweep(**swept, k=100, out=tmp_path / "other")


def test_equal_instructions_are_swept_once_with_a_warning(letters, tmp_path):
    with pytest.warns(ToolkitWarning, match="'none' and 'default' give .* measured once, as 'none'"):
        results = toolkit.sweep(
            data=letters,
            dims=[64],
            k=10,
            instructions=["none", "", "default"],
            timing={"queries": 3, "rounds": 1, "threads": [1]},
            out=tmp_path / "out",
            progress=False,
        ).results
    assert set(results.measurements["instruction"]) == {"none"}
