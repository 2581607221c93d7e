"""What instructions are worth: models that heed them and models that do not, paired, with clusters and pools."""

import json

import numpy as np
import pandas as pd
import pytest

import toolkit
from toolkit.data.facets import load_faceted
from toolkit.data.sets import RetrievalSet
from toolkit.embedding.cache import VectorCache
from toolkit.errors import DataError, PlanError
from toolkit.space import QWEN3_PROMPTS, EmbeddingSpace, Prompts
from toolkit.vectors import normalize

_COLOURS = ("red", "green", "blue", "black", "white")
_SHAPES = ("ball", "box", "cone", "ring", "disc")


class Heeding:
    """Words as vectors; a task that names a facet leaves only that facet's words."""

    def __init__(self, *, heed=True, prompts=QWEN3_PROMPTS):
        self.space = EmbeddingSpace(
            f"heeding-{heed}", "1", "test", "float32", "mean", 0, 256, 32, prompts=prompts
        )
        self._heed = heed

    def encode(self, texts):
        rows = np.zeros((len(texts), 256))
        for row, text in zip(rows, texts, strict=True):
            task, mark, asked = text.rpartition("Query:")
            words = asked.split()
            if self._heed and "colour" in task:
                words = [word for word in words if word in _COLOURS]
            if self._heed and "shape" in task:
                words = [word for word in words if word in _SHAPES]
            for word in words if self._heed or not mark else task.split() + words:
                rng = np.random.default_rng(int.from_bytes(word.encode()[:8], "little"))
                row += rng.standard_normal(256)
        return normalize(rows)


@pytest.fixture
def facets():
    """The same things asked for by colour and by shape: two queries of one text, one cluster."""
    things = [(colour, shape) for colour in _COLOURS for shape in _SHAPES]
    ids, texts, qrels, clusters = [], [], {}, {}
    for i, (colour, shape) in enumerate(things):
        for facet in ("colour", "shape"):
            ids.append(f"{i}_{facet}")
            texts.append(f"{colour} {shape}")
            wanted = [
                f"d{j}"
                for j, one in enumerate(things)
                if one[facet == "shape"] == (colour, shape)[facet == "shape"]
            ]
            qrels[ids[-1]] = dict.fromkeys(wanted, 1)
            clusters[ids[-1]] = f"thing {i}"
    docs = [f"{colour} {shape}" for colour, shape in things]
    return RetrievalSet("facets", [f"d{i}" for i in range(25)], docs, ids, texts, qrels, clusters=clusters)


@pytest.fixture
def by_facet(facets):
    task = {one: f"find things of the same {one}" for one in ("colour", "shape")}
    other = {"colour": "shape", "shape": "colour"}
    return {
        "none": "none",
        "own facet": {one: task[one.split("_")[1]] for one in facets.query_ids},
        "other facet": {one: task[other[one.split("_")[1]]] for one in facets.query_ids},
    }


def test_one_text_under_two_facets_shows_who_heeds_the_instruction(facets, by_facet, tmp_path):
    cache = VectorCache(tmp_path)
    found = toolkit.compare_instructions(Heeding(), facets, by_facet, dims=[128], cache=cache, progress=False)
    frame = found.frame().set_index(["instruction", "dim"])
    assert frame.index.tolist() == [(name, dim) for name in by_facet for dim in (128, 256)]
    own, other = frame.loc[("own facet", 256)], frame.loc[("other facet", 256)]
    assert own["difference"] > 0 > other["difference"]
    assert own["differs"]
    assert other["differs"]
    assert own["low"] <= own["difference"] <= own["high"]
    assert (own["queries"], own["clusters"]) == (50, 25)
    assert pd.isna(frame.loc[("none", 256), "p"])
    assert "'own facet' helps" in found.headline
    assert "1 of 2 harm" in found.headline
    table = found.per_query()
    assert (table.loc["0_colour", "own facet"], table.shape) == (1.0, (50, 3))
    assert "own facet" in found._repr_html_()
    deaf = toolkit.compare_instructions(
        Heeding(heed=False), facets, by_facet, cache=cache, progress=False
    ).frame()
    assert "helps" not in deaf.query("instruction == 'own facet'")
    assert not (deaf["differs"] & (deaf["difference"] > 0)).any()


def test_a_model_without_instructions_says_so(facets, tmp_path):
    found = toolkit.compare_instructions(
        Heeding(prompts=Prompts()),
        facets,
        ["none", "colour Query:"],
        cache=VectorCache(tmp_path),
        progress=False,
    )
    assert not found.trained
    assert "not trained on instructions" in found._repr_html_()


def test_only_the_pool_of_a_query_is_ranked(facets, tmp_path):
    pools = {one: [*facets.qrels[one], "d24"] for one in facets.query_ids}
    of_pool, of_all = (
        toolkit.compare_instructions(
            Heeding(), facets, ["none"], pools=given, cache=VectorCache(tmp_path), progress=False
        ).frame()["quality"][0]
        for given in (pools, None)
    )
    assert of_pool > of_all
    with pytest.raises(PlanError, match="'d99', which is not in the corpus"):
        toolkit.compare_instructions(Heeding(), facets, ["none"], pools={"0_colour": ["d99"]}, progress=False)


def test_what_makes_no_comparison_is_refused(facets):
    with pytest.raises(PlanError, match="no text for query '0_colour'"):
        toolkit.compare_instructions(Heeding(), facets, {"one": {"1_shape": "x"}}, progress=False)
    with pytest.raises(PlanError, match="must be a list of texts"):
        toolkit.compare_instructions(Heeding(), facets, "none", progress=False)
    with pytest.raises(PlanError, match="no judgements"):
        toolkit.compare_instructions(Heeding(), ["a red ball", "a blue box"], ["none"], progress=False)
    with pytest.raises(PlanError, match="set of pairs"):
        toolkit.compare_instructions(
            Heeding(), toolkit.pair_set(["a"], ["b"], [1.0]), ["none"], progress=False
        )


def test_the_recommendation_and_the_report_compare_instructions_by_cluster(facets, tmp_path):
    results = toolkit.sweep(
        embedder=Heeding(),
        data=facets,
        dims=[128],
        k=10,
        instructions=["none", "find the colour", "find the shape"],
        max_unlabelled=0,
        timing={"queries": 3, "rounds": 1, "threads": [1]},
        cache=VectorCache(tmp_path / "cache"),
        out=tmp_path / "out",
        progress=False,
    )
    best, *others = results.recommend().instructions
    assert best.clusters == 25
    # A colour for half of the queries and against the other half: within a cluster it cancels out.
    for one in others:
        alone = (
            toolkit.compare_instructions(
                Heeding(),
                facets,
                [best.label, one.label],
                cache=VectorCache(tmp_path / "cache"),
                progress=False,
            )
            .frame()
            .iloc[-1]
        )
        assert one.difference == pytest.approx(alone["difference"])
        assert one.low == pytest.approx(alone["low"])
    page = (tmp_path / "out" / "report.html").read_text()
    assert '<section id="instructions">' in page
    assert "the 25 clusters of queries are the independent units" in page
    assert ("not told apart" in page) == any(one.p > 0.05 for one in others)


def test_a_folder_names_the_facet_and_the_pool_of_each_query(tmp_path):
    def lines(name, rows):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("\n".join(rows))

    lines("corpus.jsonl", [json.dumps({"_id": f"d{i}", "text": f"text {i}"}) for i in range(3)])
    lines("queries.jsonl", [json.dumps({"_id": f"p_{one}", "text": "a paper"}) for one in ("goal", "result")])
    lines("qrels/test.tsv", ["query-id\tcorpus-id\tscore", "p_goal\td0\t1", "p_result\td1\t1"])
    rows = ["query-id\tfacet\tinstruction", "p_goal\tgoal\tFind goals", "p_result\tresult\tFind results"]
    lines("instructions.tsv", rows)
    found = load_faceted(tmp_path)
    assert found.pools is None
    assert found.instructions == {
        "none": "none",
        "its own facet": {"p_goal": "Find goals", "p_result": "Find results"},
        "another facet": {"p_goal": "Find results", "p_result": "Find goals"},
    }
    lines("pools.tsv", ["query-id\tcorpus-id", "p_goal\td0", "p_goal\td2", "p_result\td1"])
    assert load_faceted(tmp_path).pools == {"p_goal": ["d0", "d2"], "p_result": ["d1"]}
    lines("instructions.tsv", [rows[0], "p_goal\tgoal\tFind goals", "x\tresult\tFind results"])
    with pytest.raises(DataError, match="no instruction for query 'p_result'"):
        load_faceted(tmp_path)
    lines("instructions.tsv", ["query\tfacet\tinstruction", *rows[1:]])
    with pytest.raises(DataError, match="query-id, facet, instruction between tabs"):
        load_faceted(tmp_path)
