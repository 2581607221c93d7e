"""Several embedders and data sets in one plan: a folder for each pair, resumed, compared with tests that are right."""

import json
import tomllib

import numpy as np
import pytest

import toolkit
from tests.sweeps import TIMING, names_set
from tests.test_doctor import command
from toolkit.data.sets import RetrievalSet
from toolkit.decide.compare import Comparison, groups
from toolkit.embedding.static import StaticEmbedder
from toolkit.errors import PlanError, ResultsError, ServerError
from toolkit.experiment.several import names_several, resolve_several
from toolkit.space import EmbeddingSpace
from toolkit.vectors import normalize

QUICK = {"dims": [64], "k": 10, "timing": TIMING, "max_unlabelled": 0, "progress": False}


class Chance:
    """Vectors that mean nothing."""

    def __init__(self, name="chance"):
        self.space = EmbeddingSpace(name, "1", "test", "float32", "mean", 0, 128, 32)
        self.asked = 0

    def encode(self, texts):
        self.asked += len(texts)
        seeds = [int.from_bytes(text.encode()[-8:], "little") for text in texts]
        return normalize(np.array([np.random.default_rng(one).standard_normal(128) for one in seeds]))


def other_set():
    one = names_set("story")
    return RetrievalSet("stories", one.doc_ids, one.docs, one.query_ids, one.queries, one.qrels)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    out = tmp_path_factory.mktemp("several") / "out"
    embedders = [StaticEmbedder(), Chance(), Chance("luck")]
    view = toolkit.sweep_several(embedders=embedders, data=[names_set(), other_set()], out=out, **QUICK)
    return out, view, embedders


def test_each_pair_is_a_results_folder_of_its_own(swept):
    out, view, _ = swept
    folders = json.loads((out / "comparison.json").read_text())["folders"]
    assert len(folders) == len(set(folders)) == 6
    for folder in folders:
        one = toolkit.load_results(out / folder)
        assert (out / folder / "report.html").is_file()
        assert set(one.frame()["dim"]) >= {64}
    frame = toolkit.compare(out).frame()
    assert set(frame["folder"]) == set(folders)
    assert set(frame["dataset"]) == {"names", "stories"}
    assert len(frame["model"].unique()) == 3
    assert len(view.results) == 6
    with pytest.raises(ResultsError, match="several sweeps"):
        toolkit.load_results(out)


def test_models_are_ranked_and_what_cannot_be_told_apart_shares_a_letter(swept):
    _, view, _ = swept
    ranks = view.ranks()
    assert list(dict.fromkeys(ranks["dataset"])) == ["names", "stories", "mean of all sets"]
    for _, rows in ranks.groupby("dataset"):
        best = rows.iloc[0]
        assert best["model"].startswith("wordllama")
        assert (best["groups"], best["best_rank"], best["worst_rank"]) == ("a", 1, 1)
        assert list(rows["groups"][1:]) == ["b", "b"]
        assert list(rows["best_rank"][1:]) == [2, 2]
        assert list(rows["worst_rank"][1:]) == [3, 3]
        assert (rows["p"][1:] <= 0.05).all()
        assert (rows["difference"][1:] < 0).all()
    names = ranks[ranks["dataset"] == "names"].iloc[1]
    assert names["low"] < names["difference"] < names["high"] < 0
    assert "every other model is told apart" in view.headline
    means = view.comparison.means()
    grid = view.grid()
    top = grid[(grid["model"] == "chance") & (grid["dim"] == 128)]["quality"]
    assert means[(means["model"] == "chance") & (means["dim"] == 128)]["quality"].iloc[0] == pytest.approx(
        top.mean()
    )


def test_the_page_and_the_notebook_show_ranks_front_and_grid(swept):
    out, view, _ = swept
    page = (out / "comparison.html").read_text()
    assert view.headline in page
    assert "<svg" in page
    assert page.count('/report.html"') == 6
    assert "names: nDCG@10 by dimension" in page
    assert "2 to 3" in page
    assert "never beaten" in view.plot().get_suptitle()
    assert view.headline in view._repr_html_()
    assert len((out / "comparison.csv").read_text().splitlines()) == len(view.grid()) + 1


def test_the_same_again_measures_nothing_and_leaves_the_other_folders_in(swept):
    out, view, embedders = swept
    before = embedders[1].asked
    again = toolkit.sweep_several(embedders=embedders[1:2], data=[names_set()], out=out, **QUICK)
    assert embedders[1].asked == before
    assert len(again.results) == len(view.results)


def test_a_sweep_that_fails_does_not_stop_the_others(tmp_path):
    class Down(Chance):
        def encode(self, texts):
            raise ServerError("http://host does not answer")

    with pytest.raises(ResultsError, match=r"1 of 2 sweeps .* does not answer"):
        toolkit.sweep_several(embedders=[Down("down"), Chance()], data=[names_set()], out=tmp_path, **QUICK)
    found = toolkit.compare(tmp_path)
    assert [one.results.measurements["model"].iloc[0] for one in found.results] == ["chance"]
    assert any("down-names" in note for note in found.comparison.notes)


def test_a_plan_names_lists_and_is_checked_whole_before_a_model_loads(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text('embedders = ["static", "local:my/model"]\ndata = ["builtin"]\ndims = [64]')
    assert names_several(path)
    several = resolve_several(path, embedders=None, data=None, fields={"k": 20})
    pairs = several.pairs()
    assert [pair.folder for pair in pairs] == ["static-builtin", "model-builtin"]
    assert pairs[1].plan(several.fields).embedder == "local:my/model"
    assert pairs[1].plan(several.fields).k == 20
    twins = resolve_several(None, embedders=["local:a/m", "local:b/m"], data=None, fields={})
    assert [pair.folder for pair in twins.pairs()] == ["m-builtin-1", "m-builtin-2"]
    with pytest.raises(PlanError, match="several embedders"):
        toolkit.sweep(path, out=tmp_path / "one")
    for given, message in (
        ({"embedders": ["static", "static"]}, "more than once"),
        ({"embedders": []}, "empty list"),
        ({"embedders": ["statik"]}, "unknown embedder"),
        ({"data": ["builtin", "csv:x.csv"], "fields": {"clusters": "c.tsv"}}, "belongs to one data set"),
    ):
        with pytest.raises(PlanError, match=message):
            resolve_several(None, **({"embedders": None, "data": None, "fields": {}} | given))
    asked = Chance()
    with pytest.raises(PlanError, match="chance-names"):
        toolkit.sweep_several(
            embedders=[asked], data=[names_set()], out=tmp_path / "two", **(QUICK | {"dims": [4_096]})
        )
    assert asked.asked == 0
    assert not (tmp_path / "two").exists()


def test_the_command_takes_lists(tmp_path):
    rows = "query,document\n" + "\n".join(f"what is thing {i}?,a page about thing {i}" for i in range(20))
    for name in ("one", "two"):
        (tmp_path / f"{name}.csv").write_text(rows.replace("thing", name))
    sets = [word for name in ("one", "two") for word in ("--data", f"csv:{tmp_path / name}.csv")]
    out = tmp_path / "out"
    code, said, err = command(
        "sweep",
        "--embedder",
        "static",
        *sets,
        "--dims",
        "64",
        "--k",
        "10",
        "--max-unlabelled",
        "0",
        "--out",
        str(out),
    )
    assert code == 0, err
    assert f"report: {out / 'comparison.html'}" in said
    assert tomllib.loads((out / "static-one.csv" / "plan.toml").read_text())["embedder"] == "static"
    assert "alone was measured" in said


def test_groups_are_the_largest_sets_that_no_test_tells_apart():
    apart = np.zeros((4, 4), dtype=bool)
    for i, j in ((0, 2), (0, 3), (1, 3)):
        apart[i, j] = apart[j, i] = True
    assert groups(apart) == ["a", "ab", "bc", "c"]
    assert groups(np.zeros((2, 2), dtype=bool)) == ["a", "a"]
    assert groups(~np.eye(3, dtype=bool)) == ["a", "b", "c"]


def test_sweeps_that_measured_different_queries_are_not_paired(swept, tmp_path):
    _, view, _ = swept
    other = names_set("chapter")
    one = toolkit.sweep(embedder=Chance(), data=other, out=tmp_path / "other", **QUICK)
    with pytest.raises(ResultsError, match="different queries"):
        Comparison([*(each.results for each in view.results), one.results])
