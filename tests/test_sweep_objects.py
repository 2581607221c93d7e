"""A sweep over objects: an open embedder or a set in memory instead of what the plan names."""

import pytest
from typer.testing import CliRunner

from toolkit.cli import app
from toolkit.data.sets import PairSet, RetrievalSet
from toolkit.embedding.static import StaticEmbedder
from toolkit.errors import PlanError, ResultsError
from toolkit.experiment.plan import make_plan, read_plan
from toolkit.experiment.results import Results
from toolkit.experiment.sweep import run_sweep

QUICK = {"dims": [64], "k": 10, "timing": {"queries": 3, "rounds": 1, "threads": [1]}}


class Watched(StaticEmbedder):
    """The static engine, and how often it was closed."""

    closed = 0

    def close(self):
        self.closed += 1
        super().close()


@pytest.fixture(scope="module")
def colors():
    names = ["red", "green", "blue", "black", "white", "yellow", "brown", "pink", "gray", "violet", "orange"]
    return RetrievalSet(
        "colors",
        [f"d{i}" for i in range(len(names))],
        [f"a page about {name} things" for name in names],
        [f"q{i}" for i in range(len(names))],
        [f"what is {name}?" for name in names],
        {f"q{i}": {f"d{i}": 1} for i in range(len(names))},
    )


def test_an_open_embedder_and_a_set_in_memory_are_swept_and_recorded_by_name(colors, tmp_path):
    engine = Watched()
    results = run_sweep(make_plan(**QUICK), out=tmp_path / "o", embedder=engine, data=colors, progress=False)
    assert engine.closed == 0, "an embedder that was given stays open"
    assert set(results.measurements["dim"]) == {64, 256}
    again = Results.load(tmp_path / "o")
    assert again.plan.embedder == f"object:{engine.space.model}"
    assert again.plan.data == "object:colors"


def test_an_embedder_opened_by_the_sweep_is_closed_by_it(colors, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(
        "toolkit.experiment.sweep.open_embedder", lambda spec, **_: opened.append(Watched()) or opened[-1]
    )
    run_sweep(make_plan(**QUICK), out=tmp_path / "o", data=colors, progress=False)
    pairs = PairSet("pairs", colors.docs, colors.queries)
    run_sweep(make_plan(dims=[64]), out=tmp_path / "p", data=pairs, progress=False)
    assert [engine.closed for engine in opened] == [1, 1]


class Encodes:
    """Somebody's own embedder: no engine, just what is needed."""

    def __init__(self):
        self._inner = StaticEmbedder()
        self.space = self._inner.space
        self.encode = self._inner.encode


def test_an_object_that_only_encodes_is_swept_like_an_engine(colors, tmp_path):
    plan = make_plan(**QUICK)
    own = run_sweep(plan, out=tmp_path / "a", embedder=Encodes(), data=colors, progress=False)
    engine = run_sweep(plan, out=tmp_path / "b", embedder=StaticEmbedder(), data=colors, progress=False)
    assert own.measurements["ndcg@10"].tolist() == engine.measurements["ndcg@10"].tolist()


def test_a_recorded_object_cannot_be_opened_again_and_the_error_says_what_to_pass(colors, tmp_path):
    run_sweep(make_plan(**QUICK), out=tmp_path / "o", embedder=StaticEmbedder(), data=colors, progress=False)
    plan = read_plan(tmp_path / "o" / "plan.toml")
    with pytest.raises(PlanError, match=r"embedder 'object:wordllama.* pass it as embedder="):
        run_sweep(plan, out=tmp_path / "p", data=colors, progress=False)
    with pytest.raises(PlanError, match=r"data 'object:colors' .* pass it as data="):
        run_sweep(plan, out=tmp_path / "p", embedder=StaticEmbedder(), progress=False)


def test_the_command_line_says_the_notes_and_replaces_on_request(tmp_path):
    out = tmp_path / "o"
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text(
        "a\tb\n" + "\n".join(f"the {one}\tthis is {one}" for one in ("cat", "dog", "cow", "hen"))
    )
    command = ["sweep", "--data", f"pairs:{pairs}", "--dims", "64", "--out", str(out)]
    (tmp_path / "plan.toml").write_text("max_queries = 3\n")
    done = CliRunner().invoke(app, [*command, str(tmp_path / "plan.toml")])
    assert done.exit_code == 0, done.output
    assert "note: 3 of 4 pairs were measured" in done.output
    with pytest.raises(ResultsError, match="overwrite=True"):
        CliRunner().invoke(app, command, catch_exceptions=False)
    done = CliRunner().invoke(app, [*command, "--overwrite"])
    assert done.exit_code == 0, done.output
    assert "note" not in done.output
