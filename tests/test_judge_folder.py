"""Judging in a results folder: what a round is about, the texts it needs, and going on with it."""

import io
import shutil
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace

import numpy as np
import pytest

from tests.sweeps import QUICK, names_set, sweep_into
from toolkit.cli import main
from toolkit.data.load import _READERS
from toolkit.data.sets import SENTENCES
from toolkit.decide.judging import judging_session
from toolkit.embedding.cache import VectorCache
from toolkit.embedding.static import StaticEmbedder
from toolkit.errors import PlanError, ResultsError, ToolkitWarning
from toolkit.experiment.plan import make_plan
from toolkit.experiment.queries import given_queries
from toolkit.experiment.results import Results
from toolkit.experiment.sweep import run_sweep
from toolkit.judge.design import FOLDER
from toolkit.judge.draw import draw_probabilities
from toolkit.judge.export import export_qrels
from toolkit.judge.journal import JOURNAL, Journal
from toolkit.judge.judged import load_judged
from toolkit.judge.simulated import answer_all
from toolkit.notebook.views import ResultsView

LABELLED = 12
# By name: which settings are cheaper than the reference is a matter of microseconds on so small a corpus.
ASKED = ["64 float32 Flat", "32 binary Flat"]


def half_labelled():
    """The names, of which most have no judgements."""
    data = names_set()
    return replace(
        data,
        query_ids=data.query_ids[:LABELLED],
        queries=data.queries[:LABELLED],
        qrels={query_id: data.qrels[query_id] for query_id in data.query_ids[:LABELLED]},
        unlabelled_ids=data.query_ids[LABELLED:],
        unlabelled=data.queries[LABELLED:],
    )


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    base = tmp_path_factory.mktemp("judged")
    fields = {"dims": [32, 64, 128], "precisions": ["float32", "binary"], "metrics": ["ndcg@10"]}
    sweep_into(base / "out", base / "cache", data=half_labelled(), **fields)
    return base / "out"


@pytest.fixture
def results(swept, tmp_path):
    """A folder of its own with the sweep in it."""
    shutil.copytree(swept, tmp_path / "out")
    return Results.load(tmp_path / "out")


def test_a_round_is_about_what_the_recommendation_leaves_undecided(results):
    session = judging_session(results, data=half_labelled(), keep=0.99)
    table = ResultsView(results).recommend(keep=0.99).table
    cheaper = table.iloc[: table["setting"].tolist().index("256 float32 Flat")]
    undecided = cheaper.loc[cheaper["verdict"] == "undecided", "setting"].tolist()
    assert undecided
    groups = results.same_ranking("ndcg@10")
    one_each = list({groups[key]: key for key in reversed(undecided) if groups[key] != 0}.values())[::-1]
    assert set(session.design.settings) == set(one_each[:10])
    assert session.design.reference == "256 float32 Flat"
    assert (session.design.metric, session.design.keep) == ("ndcg@10", 0.99)
    assert list(session.design.query_ids) == names_set().query_ids[LABELLED:]


def test_where_computing_makes_all_dear_those_that_need_less_memory_are_in_question(results):
    slow = results.measurements.copy()
    slow.loc[slow["setting"] != "256 float32 Flat", "qps_1_thread"] = 1e-3
    found = judging_session(replace(results, measurements=slow), data=half_labelled(), keep=0.99)
    small = slow.set_index("setting")["bytes_per_vector"]
    assert found.design.settings
    assert (small[list(found.design.settings)] < small["256 float32 Flat"]).all()


def test_the_probabilities_are_those_of_the_folders_bounds(results):
    wanted = ["64 float32 Flat", "32 binary Flat"]
    design = judging_session(results, data=half_labelled(), settings=wanted).design
    frame = results.bounds[~results.bounds["labelled"]].astype({"setting": str})
    by_query = frame.set_index(["query_id", "setting"])["ndcg@10_most_lost"].unstack()
    expected = draw_probabilities(by_query.loc[list(design.query_ids), wanted].to_numpy())
    assert design.probabilities == pytest.approx(expected)
    assert np.ptp(expected) > 0


def test_judgements_give_the_quality_that_the_hidden_ones_give(results):
    truth = names_set().qrels
    session = judging_session(results, data=half_labelled(), most=60, settings=ASKED, keep=0.9)
    answer_all(session, truth)
    (judged,) = load_judged(results.folder / FOLDER)
    full = judged.values["256 float32 Flat"]
    # One document answers each query, and the reference finds nearly all of them.
    assert full.mean() > 0.8
    first_ranks = {
        q: session.design.rankings[q]["256 float32 Flat"].index(q.replace("q", "d")) for q in judged.query_ids
    }
    assert full.to_numpy() == pytest.approx([1 / np.log2(first_ranks[q] + 2) for q in judged.query_ids])


def test_the_same_call_goes_on_and_needs_no_raw_files(results):
    session = judging_session(results, data=half_labelled(), most=5, settings=ASKED, keep=0.9, judge="ada")
    for _ in range(7):
        session.answer(session.question, 1)
    shutil.rmtree(results.folder / "raw")
    again = judging_session(Results.load(results.folder), data=half_labelled(), most=5)
    assert again.question == session.question
    assert again.design.draws == session.design.draws
    assert again.design.keep == 0.9, "what is not said is left to the round"


def test_what_contradicts_the_round_is_refused_and_another_round_serves(results):
    first = judging_session(results, data=half_labelled(), settings=["64 float32 Flat"], most=4)
    answer_all(first, names_set().qrels)
    for given in ({"keep": 0.5}, {"seed": 9}, {"most_gain": 1}, {"settings": ["32 float32 Flat"]}):
        with pytest.raises(PlanError, match="begin another round"):
            judging_session(results, data=half_labelled(), **given)
    second = judging_session(
        results, data=half_labelled(), settings=["32 float32 Flat"], most=20, new_round=True
    )
    assert second.design.number == 2
    assert second.design.seed != first.design.seed
    answered = {(one.query_id, one.doc_id) for one in first.journal.answers}
    answer_all(second, names_set().qrels)
    later = [(one.query_id, one.doc_id) for one in second.journal.answers if one.round == 2]
    assert later
    assert not answered & set(later), "what was judged is not asked again"
    assert len(load_judged(results.folder / FOLDER)) == 2


def test_data_that_is_not_what_was_measured_is_refused(results):
    data = half_labelled()
    changed = replace(data, docs=[*data.docs[:-1], "another text"])
    with pytest.raises(ResultsError, match=r"is not what .* was measured on"):
        judging_session(results, data=changed)
    with pytest.raises(ResultsError, match="an object of a Python program"):
        judging_session(results)
    with pytest.raises(ResultsError, match=r"cannot be read: .* say where they lie now"):
        judging_session(results, data=f"beir:{results.folder}/nowhere")
    assert not (results.folder / FOLDER).exists()


def test_what_cannot_be_judged_is_said(results, tmp_path):
    with pytest.raises(PlanError, match="did you mean '64 float32 Flat'"):
        judging_session(results, data=half_labelled(), settings=["64 float32 Flta"])
    with pytest.raises(PlanError, match=r"choose 1..1,000"):
        judging_session(results, data=half_labelled(), most=0)
    shutil.rmtree(results.folder / "raw")
    with pytest.raises(ResultsError, match=r"lacks what .* found .* toolkit\.sweep"):
        judging_session(results, data=half_labelled())
    everything = sweep_into(tmp_path / "all", tmp_path / "cache", max_unlabelled=0)
    with pytest.raises(ResultsError, match="every query of names has judgements"):
        judging_session(everything, data=names_set())


def test_queries_that_the_sweep_was_handed_are_handed_again(tmp_path):
    data, asked = names_set(), [f"which page has {one}?" for one in ("red", "oak", "cow")]
    swept = run_sweep(
        make_plan(**QUICK | {"metrics": ["ndcg@10"], "dims": [128]}),
        out=tmp_path / "out",
        embedder=StaticEmbedder(),
        data=data,
        unlabelled=given_queries(asked),
        cache=VectorCache(tmp_path / "cache"),
        progress=False,
    )
    with pytest.raises(PlanError, match="pass it as unlabelled="):
        judging_session(swept, data=data, settings=["128 float32 Flat"])
    session = judging_session(swept, data=data, settings=["128 float32 Flat"], unlabelled=asked)
    assert session.question.query in asked


def test_sentences_that_stand_in_for_queries_are_called_so(tmp_path):
    data = replace(half_labelled(), unlabelled_source=SENTENCES)
    swept = sweep_into(tmp_path / "out", tmp_path / "cache", data=data, metrics=["ndcg@10"])
    with pytest.warns(ToolkitWarning, match="sentences of the documents, which only stand in"):
        judging_session(swept, data=data, settings=ASKED[:1], keep=0.9)


def test_exported_qrels_are_the_whole_queries(results, tmp_path):
    session = judging_session(results, data=half_labelled(), most=6, settings=ASKED, keep=0.9)
    with pytest.raises(ResultsError, match="no query that is judged whole"):
        export_qrels(results.folder, tmp_path / "test.tsv")
    first = session.question.query_id
    while session.question.query_id == first:
        session.answer(session.question, 2)
    session.answer(session.question, 3)
    said = export_qrels(results.folder, tmp_path / "test.tsv")
    lines = (tmp_path / "test.tsv").read_text().splitlines()
    assert lines[0] == "query-id\tcorpus-id\tscore"
    assert {line.split("\t")[0] for line in lines[1:]} == {first}
    assert {line.split("\t")[2] for line in lines[1:]} == {"2"}
    assert "1 of queries judged in part" in said


@pytest.fixture
def command(tmp_path, monkeypatch):
    """The command line, in this process, on a folder whose data set it can open; keys in, what it printed out."""
    monkeypatch.setitem(_READERS, "names", lambda place, split: half_labelled())
    monkeypatch.chdir(tmp_path)
    run_sweep(
        make_plan(**QUICK | {"data": "names:here", "metrics": ["ndcg@10"]}),
        out=tmp_path / "out",
        embedder=StaticEmbedder(),
        cache=VectorCache(tmp_path / "cache"),
        progress=False,
    )

    def run(*arguments, keys=""):
        monkeypatch.setattr("sys.stdin", io.StringIO(keys))
        out, err, code = io.StringIO(), io.StringIO(), 0
        with redirect_stdout(out), redirect_stderr(err):
            try:
                main(["judge", "out", *arguments])
            except SystemExit as stop:
                code = stop.code or 0
        return code, out.getvalue(), err.getvalue()

    return run


@pytest.mark.filterwarnings("ignore::toolkit.errors.DimensionWarning")
def test_the_command_judges_goes_on_and_exports(command, tmp_path):
    code, out, err = command("--most", "2", "--keep", "0.9", "--grades", "1", "--name", "ada", keys="1q")
    assert (code, err) == (0, "")
    assert "How well does the document answer the query?" in out
    assert "0 of 2 queries are judged; the same command goes on from here" in out
    code, out, _ = command("--most", "2", keys="0" * 200)
    assert "all 2 queries are judged" in out
    answers = Journal(tmp_path / "out" / FOLDER / JOURNAL).answers
    assert [one.gain for one in answers] == [1] + [0] * (len(answers) - 1)
    assert answers[0].judge == "ada"
    code, out, _ = command("--export", "qrels.tsv")
    assert f"{len(answers)} judgements of 2 queries" in out
    assert len((tmp_path / "qrels.tsv").read_text().splitlines()) == len(answers) + 1
    code, _, err = command("--seed", "3")
    assert code == 2
    assert "was begun with seed 0" in err


def test_the_notebooks_widget_opens_on_the_folder(results):
    widgets = pytest.importorskip("ipywidgets")
    view = ResultsView(results).judge(data=half_labelled(), most=3, settings=ASKED, keep=0.9)
    asked = 0
    while view.session.question is not None:
        view.press("0")
        asked += 1
    assert asked == len(view.session.journal.answers) > 0
    widgets.Widget.close_all()


def test_overwriting_the_sweep_keeps_what_a_person_did(results, tmp_path):
    session = judging_session(results, data=half_labelled(), most=3, settings=ASKED, keep=0.9)
    session.answer(session.question, 1)
    kept = session.journal.path.read_bytes()
    sweep_into(results.folder, tmp_path / "cache", data=names_set(topic="film"), overwrite=True)
    assert session.journal.path.read_bytes() == kept
