"""Judging as a session goes: what is asked, what is kept, what survives, and what the answers come to."""

import itertools
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from toolkit.errors import PlanError, ResultsError, ToolkitWarning
from toolkit.judge.design import begin, first_documents, load_rounds
from toolkit.judge.journal import JOURNAL, Answer, Journal
from toolkit.judge.judged import judged_of, load_judged
from toolkit.judge.questions import documents_to_judge, next_document
from toolkit.judge.session import Session
from toolkit.judge.simulated import answer_all, judged_from
from toolkit.measure.agreement import most_ndcg_lost
from toolkit.measure.quality import evaluate
from toolkit.search.neighbours import Neighbours

QUERIES, DOCUMENTS, K = 40, 60, 12
DOC_IDS = [f"d{i}" for i in range(DOCUMENTS)]
QUERY_IDS = [f"q{i}" for i in range(QUERIES)]
TEXTS = {"queries": {i: f"text of {i}" for i in QUERY_IDS}, "documents": {i: f"text of {i}" for i in DOC_IDS}}


def searched(noise, seed=1):
    """What a search finds that adds noise to the same similarities; equal scores among them."""
    exact = np.random.default_rng(0).random((QUERIES, DOCUMENTS))
    scores = exact + noise * np.random.default_rng(seed).standard_normal(exact.shape)
    scores = np.round(scores, 2).astype(np.float32)
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :K]
    return Neighbours(rows, np.take_along_axis(scores, rows, axis=1))


FOUND = {"full": searched(0.0), "near": searched(0.004), "far": searched(0.3, seed=2)}


def a_round(*, metric="ndcg@10", seed=4, most_gain=3, settings=("far", "near"), number=1):
    bounds = np.stack([most_ndcg_lost(FOUND[one], FOUND["full"], DOC_IDS, k=10) for one in settings], axis=1)
    found = {key: FOUND[key] for key in ("full", *settings)}
    return begin(
        number=number,
        settings=settings,
        reference="full",
        metric=metric,
        keep=0.99,
        seed=seed,
        most_gain=most_gain,
        data_hash="0123",
        query_ids=QUERY_IDS,
        bounds=bounds,
        rankings=lambda rows: first_documents(
            found, DOC_IDS, {row: QUERY_IDS[row] for row in rows}, depth=10
        ),
    )


def some_qrels(seed=9):
    """Gains for half of what the full search finds; nothing at all for the last two queries."""
    rng = np.random.default_rng(seed)
    return {
        query_id: {
            DOC_IDS[row]: int(gain) for row, gain in zip(rows, rng.choice([0, 0, 0, 1, 2, 3], K), strict=True)
        }
        for query_id, rows in zip(QUERY_IDS[:-2], FOUND["full"].rows[:-2], strict=True)
    }


def a_session(folder, *, most=6, design=None, judge="ada"):
    folder, design = Path(folder), design or a_round()
    if not load_rounds(folder):
        design.save(folder)
    return Session(load_rounds(folder)[-1], Journal(folder / JOURNAL), most=most, judge=judge, **TEXTS)


def test_documents_that_all_find_alike_come_last_and_the_order_tells_no_setting():
    found = {"a": ["1", "2", "3", "4"], "b": ["1", "3", "2", "5"], "c": ["1", "2", "3", "4"]}
    orders = {documents_to_judge(found, query_id="q", seed=seed) for seed in range(60)}
    assert {order[-1] for order in orders} == {"1"}
    assert {frozenset(order) for order in orders} == {frozenset("12345")}
    assert {order[0] for order in orders} == set("2345")
    assert documents_to_judge(dict(reversed(found.items())), query_id="q", seed=3) == documents_to_judge(
        found, query_id="q", seed=3
    )


def test_mrr_asks_nothing_behind_the_first_relevant_document_of_every_ranking():
    found = {"a": ["1", "2", "3"], "b": ["2", "1", "4"]}
    order = ("3", "1", "4", "2")
    assert next_document(order, found, {}, metric="mrr@3") == "3"
    assert next_document(order, found, {"1": 1}, metric="mrr@3") == "2"
    assert next_document(order, found, {"1": 1, "2": 0}, metric="mrr@3") is None
    assert next_document(order, found, {"1": 1, "2": 0}, metric="ndcg@3") == "3"


@pytest.mark.parametrize("metric", ["ndcg@10", "recall@5", "mrr@10", "map@10"])
def test_values_are_those_of_trec_eval_on_what_was_judged(tmp_path, metric):
    design, qrels = a_round(metric=metric), some_qrels()
    session = a_session(tmp_path, design=design, most=25)
    answer_all(session, qrels)
    found = load_judged(tmp_path)[0]
    assert len(found.query_ids) == 25
    assert found.query_ids[:25] == tuple(QUERY_IDS[i] for i in design.draws[:25])
    assert found.probabilities[:25] == pytest.approx(design.probabilities[design.draws[:25]])
    asked = {i: {d: qrels.get(i, {}).get(d, 0) for d in design.documents(i)} for i in set(found.query_ids)}
    places = [QUERY_IDS.index(query_id) for query_id in found.query_ids]
    assert list(found.values.columns) == ["full", "far", "near"]
    for setting in found.values:
        truth = evaluate(FOUND[setting], DOC_IDS, QUERY_IDS, asked, metrics=[metric])[metric]
        assert found.values[setting].to_numpy() == pytest.approx(truth[places])
    assert found.values.to_numpy().std() > 0.1


def test_weighted_draws_estimate_the_mean_of_the_whole_pool():
    design, qrels = a_round(settings=("near",)), some_qrels()
    everything = judged_from(design, qrels, draws=1_000)
    whole = everything.values.assign(query=everything.query_ids).drop_duplicates("query").set_index("query")
    assert len(whole) == QUERIES
    loss = (everything.values["full"] - everything.values["near"]).to_numpy() * everything.weights
    truth = float((whole["full"] - whole["near"]).mean())
    error = loss.std() / np.sqrt(len(loss))
    assert abs(loss.mean() - truth) < 4 * error
    bounds = most_ndcg_lost(FOUND["near"], FOUND["full"], DOC_IDS, k=10)
    drawn = bounds[[QUERY_IDS.index(query_id) for query_id in everything.query_ids]]
    assert (drawn * everything.weights).mean() == pytest.approx(bounds.mean(), rel=0.05)
    assert drawn.mean() > 1.3 * bounds.mean(), "what can lose much is drawn more often"


def test_only_whole_draws_up_to_the_first_gap_count(tmp_path):
    session = a_session(tmp_path, most=8)
    answer_all(session, some_qrels())
    design, gains = session.design, session.journal.gains
    whole = judged_of(design, gains)
    assert len(whole.query_ids) >= 8
    drawn = [QUERY_IDS[i] for i in design.draws]
    third = drawn[2]
    assert drawn.index(third) == 2
    missing = {query_id: dict(of_query) for query_id, of_query in gains.items()}
    missing[third].popitem()
    assert judged_of(design, missing).query_ids == tuple(drawn[:2])
    assert len(judged_of(design, missing).values) == 2


def test_a_query_drawn_again_counts_again_and_is_asked_once(tmp_path):
    design = a_round()
    drawn = [QUERY_IDS[i] for i in design.draws[:60]]
    assert len(set(drawn)) < 60
    session = a_session(tmp_path, design=design, most=60)
    assert session.queries_to_judge == len(set(drawn))
    asked = answer_all(session, some_qrels())
    assert asked == sum(len(design.documents(query_id)) for query_id in set(drawn))
    assert load_judged(tmp_path)[0].query_ids[:60] == tuple(drawn)
    assert session.queries_judged == len(set(drawn))


def test_what_another_round_asks_more_of_a_query_does_not_change_its_value(tmp_path):
    answer_all(a_session(tmp_path, most=10, design=a_round(settings=("near",))), some_qrels())
    before = load_judged(tmp_path)[0]
    later = a_round(number=2, seed=5)
    later.save(tmp_path)
    answer_all(a_session(tmp_path, most=10), some_qrels())
    rounds = load_judged(tmp_path)
    assert [one.design.number for one in rounds] == [1, 2]
    # What the second round asked may finish further draws of the first, never change one.
    assert rounds[0].query_ids[: len(before.query_ids)] == before.query_ids
    assert rounds[0].values.iloc[: len(before.values)].equals(before.values)


def test_a_saved_round_reads_back_as_it_was(tmp_path):
    design = a_round()
    design.save(tmp_path)
    (there,) = load_rounds(tmp_path)
    assert there.query_ids == design.query_ids
    assert there.probabilities.tolist() == design.probabilities.tolist()
    assert there.rankings == design.rankings
    assert there.draws == design.draws
    plain = (
        "number",
        "settings",
        "reference",
        "metric",
        "keep",
        "seed",
        "most_gain",
        "data_hash",
        "begun_utc",
    )
    assert [getattr(there, name) for name in plain] == [getattr(design, name) for name in plain]
    (tmp_path / "pool-1.parquet").write_bytes(b"no table")
    with pytest.raises(ResultsError, match=r"round 1 .* is damaged"):
        load_rounds(tmp_path)


def test_rounds_that_cannot_work_are_refused():
    with pytest.raises(PlanError, match="recall@100 cannot be judged"):
        a_round(metric="recall@100")
    with pytest.raises(PlanError, match="overlap@10 cannot be judged"):
        a_round(metric="overlap@10")
    with pytest.raises(PlanError, match="at least one other"):
        a_round(settings=("full",))
    with pytest.raises(PlanError, match="gains up to 5"):
        a_round(most_gain=5)


def test_undo_asks_the_same_document_again_back_to_the_first(tmp_path):
    session = a_session(tmp_path)
    asked = []
    for _ in range(20):
        asked.append(session.question)
        assert session.answer(session.question, 2)
    assert len({one.query_id for one in asked}) > 1
    for before in reversed(asked):
        assert session.undo()
        assert session.question == before
    assert not session.undo()
    assert session.journal.gains == {}
    session.answer(session.question, 1)
    again = Journal(tmp_path / JOURNAL)
    assert again.gains == {asked[0].query_id: {asked[0].doc_id: 1}}
    assert len(again.answers) == 41, "nothing is ever removed from the file"


def test_unsure_counts_as_not_relevant_and_is_noted(tmp_path):
    session = a_session(tmp_path)
    question = session.question
    session.answer(question, 0, unsure=True)
    assert session.journal.gains[question.query_id][question.doc_id] == 0
    assert Journal(tmp_path / JOURNAL).answers[0].note == "unsure"
    with pytest.raises(PlanError, match="gain 4 is not one of"):
        session.answer(session.question, 4)


def test_two_sessions_at_once_never_lose_or_repeat_an_answer(tmp_path):
    one, other = a_session(tmp_path), a_session(tmp_path, judge="ben")
    first = one.question
    assert one.answer(first, 3)
    assert other.question == first, "it has not looked yet"
    assert not other.answer(other.question, 0)
    assert other.question != first
    assert other.answer(other.question, 1)
    assert [answer.judge for answer in Journal(tmp_path / JOURNAL).answers] == ["ada", "ben"]


def test_any_id_survives_the_file(tmp_path):
    journal = Journal(tmp_path / "deep" / JOURNAL)
    answers = [
        Answer(1, i, name, name[::-1], i, "", "2026-01-01T00:00:00+00:00", 1 / 3, name)
        for i, name in enumerate(["a\tb", "line\nbreak\r", "back\\slash\\t", "\ud800", "", "中文"])
    ]
    assert all(journal.add(answer) for answer in answers)
    assert Journal(journal.path).answers == answers


def test_a_line_cut_short_is_left_out_and_the_next_answer_removes_it(tmp_path):
    session = a_session(tmp_path)
    for _ in range(3):
        session.answer(session.question, 1)
    path = tmp_path / JOURNAL
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for cut in range(1, len(lines[-1])):
        path.write_bytes(whole[:-cut])
        with pytest.warns(ToolkitWarning, match="cut short"):
            assert len(Journal(path).answers) == 2
    with pytest.warns(ToolkitWarning):
        again = Session(session.design, Journal(path), most=6, judge="ada", **TEXTS)
    again.answer(again.question, 2)
    assert [answer.gain for answer in Journal(path).answers] == [1, 1, 2]


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    session = a_session(tmp_path)
    for _ in range(3):
        session.answer(session.question, 1)
    path = tmp_path / JOURNAL
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"scribble\n", *lines[2:]]))
    with pytest.raises(ResultsError, match=r"judgements.tsv:3 is damaged \(1 columns instead of 9\)"):
        Journal(path)


def test_a_killed_session_goes_on_where_it_was(tmp_path):
    a_round().save(tmp_path)
    program = textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from test_judge import a_session
        session = a_session(Path({str(tmp_path)!r}))
        while True:
            session.answer(session.question, 1)
            print(session.question.doc_id, flush=True)
    """)
    run = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    seen = [run.stdout.readline() for _ in range(9)]
    run.send_signal(signal.SIGKILL)
    run.wait()
    session = a_session(tmp_path)
    kept = sum(map(len, session.journal.gains.values()))
    assert kept >= len([line for line in seen if line.strip()]) == 9
    asked = [answer.doc_id for answer in session.journal.answers]
    whole = [
        doc for i in dict.fromkeys(session.design.draws) for doc in session.design.documents(QUERY_IDS[i])
    ]
    assert asked == whole[:kept]
    assert session.question.doc_id == whole[kept]


def test_a_design_made_for_a_simulation_takes_other_seeds():
    design = replace(a_round(), seed=77)
    assert design.draws != a_round().draws
    assert len(judged_from(design, some_qrels(), draws=12).query_ids) == 12


def expected(design, gains, draws, *, longest=7):
    """The estimate's mean over every sequence of draws there can be, and the truth; exact, no sampling."""
    pool = len(design.query_ids)
    truth = judged_of(drawn_as(design, list(range(pool))), gains).values["far"].mean()
    total = 0.0
    for sequence in itertools.product(range(pool), repeat=longest):
        first = set(sequence[:draws])  # what a person judges: nothing is known of the others
        known = {design.query_ids[place]: gains[design.query_ids[place]] for place in first}
        found = judged_of(drawn_as(design, list(sequence)), known, draws=draws if design.keep else None)
        estimate = (found.values["far"] * found.weights).mean()
        total += np.prod(design.probabilities[list(sequence)]) * estimate
    return total, truth


def drawn_as(design, sequence):
    copy = replace(design)
    copy.__dict__["draws"] = sequence
    return copy


def test_the_number_of_draws_is_fixed_so_the_estimate_is_unbiased():
    """Draws behind the last one asked count only where they repeat a judged query; they would count often-drawn
    queries too often."""
    whole, qrels = a_round(settings=("far",)), some_qrels()
    pool = [0, 3, 7]
    small = replace(
        whole,
        query_ids=[QUERY_IDS[place] for place in pool],
        probabilities=np.array([0.7, 0.2, 0.1]),
        rankings={
            QUERY_IDS[place]: {
                key: tuple(DOC_IDS[row] for row in FOUND[key].rows[place][:10]) for key in ("full", "far")
            }
            for place in pool
        },
    )
    gains = {
        one: {doc: qrels.get(one, {}).get(doc, 0) for doc in small.documents(one)} for one in small.query_ids
    }
    estimate, truth = expected(small, gains, 2)
    assert estimate == pytest.approx(truth, abs=1e-12)
    without_limit, _ = expected(replace(small, keep=0.0), gains, 2)
    assert abs(without_limit - truth) > 0.01, "the test can fail"


def test_the_journal_says_how_many_draws_are_to_be_judged(tmp_path):
    design, qrels = a_round(), some_qrels()
    number = next(n for n in range(2, 900) if design.draws[n] in design.draws[:n])
    answer_all(a_session(tmp_path, design=design, most=number), qrels)
    assert Journal(tmp_path / JOURNAL).asked == {1: number}
    assert len(load_judged(tmp_path)[0].query_ids) == number
    answer_all(a_session(tmp_path, most=1), qrels)
    assert len(load_judged(tmp_path)[0].query_ids) == number, "a shorter session takes nothing back"
    more = number + 5
    answer_all(a_session(tmp_path, most=more), qrels)
    assert len(load_judged(tmp_path)[0].query_ids) == more
    lines = (tmp_path / JOURNAL).read_bytes().splitlines(keepends=True)
    (tmp_path / JOURNAL).write_bytes(b"".join(line for line in lines if b"\tasked\t" not in line))
    assert len(load_judged(tmp_path)[0].query_ids) >= more, "a journal of before says no number"
