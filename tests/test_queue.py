"""The queue of an engine: who works, whose texts go together, what waits, and how jobs end.

Nothing here sleeps or is timed. `Gated` waits where a test says so, and says what it was given.
"""

import os
import subprocess
import sys
import textwrap
import threading
import weakref
from concurrent.futures import CancelledError, Future, wait
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.embedding_server import hash_vector
from toolkit.embedding.adapt import as_engine
from toolkit.embedding.engine import Engine
from toolkit.embedding.jobs import BLOCKS_AHEAD
from toolkit.embedding.owner import OwnerQueue
from toolkit.embedding.protocol import Embedder
from toolkit.errors import EngineClosedError, PlanError, QueueFullError, VectorError
from toolkit.space import EmbeddingSpace

DIM = 8
ROOM = 100  # characters that callers share
LONG = [f"{i} " + "x" * ROOM for i in range(12)]  # too long to share a run


def rows_of(texts):
    rows = np.stack([hash_vector(text, DIM) for text in texts])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class Gated(Engine):
    """Gives a text at a time, once `gate` is open.

    runs : the texts of each run; computed : texts in the order they were worked on; threads : by whom.
    before : called with a text before it is worked on.
    """

    space = EmbeddingSpace("gated", "1", "test", "float32", "none", 0, DIM, DIM)

    def __init__(self, *, places=512, before=lambda text: None, ahead=1):
        super().__init__(
            OwnerQueue(self._begin, ahead=ahead, shared_characters=self._shared_characters, places=places)
        )
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()
        self.runs, self.computed, self.threads, self.released = [], [], set(), 0
        self.before = before

    def _shared_characters(self):
        return ROOM

    def _blocks(self, texts):
        self.runs.append(list(texts))
        for place, text in enumerate(texts):
            self.entered.set()
            assert self.gate.wait(60)
            self.threads.add(threading.current_thread().name)
            self.computed.append(text)
            self.before(text)
            yield np.array([place]), rows_of([text])

    def _release(self):
        self.released += 1

    def held(self):
        """Close the gate and let a text of nobody's stand at it; everything else has to wait."""
        self.gate.clear()
        self.entered.clear()
        first = self.submit(["first"])
        assert self.entered.wait(60)
        return first


@pytest.fixture
def engine():
    engine = Gated()
    yield engine
    engine.gate.set()
    engine.close(cancel=True)


def elsewhere(work):
    """Run `work()` on a thread of its own; its outcome as a future."""
    done = Future()

    def go():
        try:
            done.set_result(work())
        except (Exception, CancelledError) as error:  # noqa: BLE001 - raised again by whoever asks
            done.set_exception(error)

    threading.Thread(target=go, daemon=True).start()
    return done


# -- who works --------------------------------------------------------------------------------------------


def test_an_uncontended_encode_and_stream_run_on_their_callers_thread(engine):
    np.testing.assert_array_equal(engine.encode(["a", "b"]), rows_of(["a", "b"]))
    assert [positions.tolist() for positions, _ in engine.stream(["a", "b"])] == [[0], [1]]
    assert engine.threads == {threading.current_thread().name}


def test_one_text_does_not_even_queue_and_leaves_the_engine_to_who_comes_meanwhile(engine):
    meanwhile = []

    def comes(text):
        if text == "query":
            meanwhile.append(engine.submit(["comes", "meanwhile"]))

    engine.before = comes
    np.testing.assert_array_equal(engine.encode(["query"]), rows_of(["query"]))
    np.testing.assert_array_equal(meanwhile[0].result(60), rows_of(["comes", "meanwhile"]))
    engine.before = interrupt_once(engine)
    with pytest.raises(KeyboardInterrupt):
        engine.encode(["query"])
    np.testing.assert_array_equal(engine.encode(["query"]), rows_of(["query"]))
    assert engine.threads == {threading.current_thread().name, "engine-owner"}


def test_all_other_threads_are_served_by_one(engine):
    engine.encode(["mine"])
    engine.threads.clear()
    for text in "abc":
        np.testing.assert_array_equal(
            elsewhere(lambda text=text: engine.encode([text])).result(60), rows_of([text])
        )
    engine.submit(["d"]).result(60)
    assert engine.threads == {"engine-owner"}


def test_a_thread_that_has_ended_leaves_its_place_to_the_next(engine):
    first = threading.Thread(target=engine.encode, args=(["a"],), name="first")
    first.start()
    first.join()
    engine.encode(["b"])
    assert engine.threads == {"first", threading.current_thread().name}


def test_a_callback_may_call_the_engine(engine):
    seen = Future()
    held = engine.held()
    held.add_done_callback(lambda _done: seen.set_result(engine.encode(["from within"])))
    engine.gate.set()
    np.testing.assert_array_equal(seen.result(60), rows_of(["from within"]))


def test_an_engine_goes_with_its_last_reference():
    engine = Gated()
    engine.encode(["a"])
    next(engine.stream(["b", "c"]))
    gone = weakref.ref(engine)
    del engine
    assert gone() is None


# -- whose texts go together ------------------------------------------------------------------------------


def test_texts_of_callers_that_wait_are_worked_on_together(engine):
    held = engine.held()
    waiting = [engine.submit([f"text {i}", f"other {i}"]) for i in range(4)]
    engine.gate.set()
    for i, future in enumerate([*waiting]):
        np.testing.assert_array_equal(future.result(60), rows_of([f"text {i}", f"other {i}"]))
    held.result(60)
    assert engine.runs == [["first"], [text for i in range(4) for text in (f"text {i}", f"other {i}")]]


def test_together_means_at_most_so_many_characters(engine):
    engine.held()
    waiting = [engine.submit(["y" * 39]) for _ in range(5)] + [engine.submit(LONG)]
    engine.gate.set()
    wait(waiting)
    assert sorted(len(run) for run in engine.runs) == [1, 1, 2, 2, len(LONG)]


def test_a_short_request_does_not_wait_for_a_long_ones_end(engine):
    short = []

    def come_in_between(text):
        if text == LONG[2]:
            short.append(engine.submit(["short"]))

    engine.before = come_in_between
    np.testing.assert_array_equal(engine.encode(LONG), rows_of(LONG))
    short[0].result(60)
    assert engine.computed.index("short") <= 4
    assert sorted(engine.computed) == sorted([*LONG, "short"])


def test_short_requests_that_keep_coming_do_not_hold_up_a_long_one(engine):
    shorts = []

    def another_comes(text):  # as soon as one is worked on, so that one always waits
        if text == LONG[0] or (text not in LONG and len(shorts) < 60):
            shorts.append(engine.submit([f"short {len(shorts)}"]))

    engine.before = another_comes
    engine.encode(LONG)
    wait(shorts)
    places = [place for place, text in enumerate(engine.computed) if text in LONG]
    assert max(np.diff(places)) <= 2


def test_a_reader_that_pauses_holds_up_nobody_and_gets_few_blocks_ahead(engine):
    stream = engine.stream(LONG)
    next(stream)
    for i in range(5):
        np.testing.assert_array_equal(engine.submit([f"{i}"]).result(60), rows_of([f"{i}"]))
    assert sum(text in LONG for text in engine.computed) <= 1 + BLOCKS_AHEAD
    assert sorted(positions.item() for positions, _ in stream) == list(range(1, len(LONG)))


# -- the bound ----------------------------------------------------------------------------------------------


def test_a_full_queue_refuses_who_will_not_wait_and_lets_in_who_will():
    with Gated(places=2) as engine:
        engine.held()
        second = engine.submit(["second"])
        with pytest.raises(QueueFullError, match=r"full \(2 requests"):
            engine.submit(["third"], timeout_s=0)
        with pytest.raises(QueueFullError):
            engine.submit(["third"], timeout_s=0.01)
        third = elsewhere(lambda: engine.encode(["third"]))
        assert not third.done()
        engine.gate.set()
        np.testing.assert_array_equal(third.result(60), rows_of(["third"]))
        np.testing.assert_array_equal(second.result(60), rows_of(["second"]))


def test_a_callback_is_refused_where_waiting_would_be_for_itself():
    with Gated(places=2) as engine:
        seen = Future()
        held = engine.held()

        def fill_up(_done):
            engine.submit(["one more"])
            try:
                engine.submit(["too many"])
            except QueueFullError as error:
                seen.set_result(error)

        engine.submit(["second"])
        held.add_done_callback(fill_up)
        engine.gate.set()
        assert "full" in str(seen.result(60))


# -- cancelling ---------------------------------------------------------------------------------------------


def test_a_cancelled_future_gives_its_place_back_and_is_never_computed():
    with Gated(places=2) as engine:
        engine.held()
        second = engine.submit(["second"])
        assert second.cancel()
        assert wait([second], timeout=60).done == {second}
        third = engine.submit(["third"], timeout_s=0)
        engine.gate.set()
        third.result(60)
        assert "second" not in engine.computed


def test_a_long_request_is_cancelled_in_the_middle(engine):
    futures = []

    def cancel(text):
        if text == LONG[3]:
            assert futures[0].cancel()

    engine.before = cancel
    engine.gate.clear()
    futures.append(engine.submit(LONG))
    engine.gate.set()
    with pytest.raises(CancelledError):
        futures[0].result(60)
    engine.encode(["next"])
    assert engine.computed == [*LONG[:4], "next"]


@pytest.mark.parametrize("ahead", [1, 3])
def test_a_stream_that_is_left_starts_nothing_more(ahead):
    with Gated(ahead=ahead, places=1) as engine:
        stream = engine.stream(LONG)
        next(stream)
        stream.close()
        engine.submit(["next"], timeout_s=0).result(60)
        assert engine.computed == [*LONG[:ahead], "next"]


# -- errors -------------------------------------------------------------------------------------------------


def refuse(text):
    if "bad" in text:
        raise ValueError(f"cannot do {text!r}")


def test_an_error_is_its_callers_alone(engine):
    engine.before = refuse
    engine.held()
    good, bad, late = (engine.submit([text, text + "!"]) for text in ("good", "bad", "late"))
    engine.gate.set()
    for future, texts in ((good, ["good", "good!"]), (late, ["late", "late!"])):
        np.testing.assert_array_equal(future.result(60), rows_of(texts))
    with pytest.raises(ValueError, match="cannot do 'bad'"):
        bad.result(60)
    assert engine.computed.count("good") == 1, "what was done before the error is kept"
    np.testing.assert_array_equal(engine.encode(["after"]), rows_of(["after"]))


def test_what_a_stream_got_before_its_error_is_kept(engine):
    engine.before = refuse
    got = []
    with pytest.raises(ValueError, match="cannot do"):
        got.extend(positions.item() for positions, _ in engine.stream(["a", "b", "bad", "c"]))
    assert got == [0, 1]


def test_an_interruption_takes_its_own_caller_only(engine):
    others = []

    def interrupt(text):
        if text == LONG[2]:
            others.append(engine.submit(["of another", "caller"]))
        if text == LONG[4]:
            engine.before = lambda text: None
            raise KeyboardInterrupt

    engine.before = interrupt
    with pytest.raises(KeyboardInterrupt):
        engine.encode(LONG)
    np.testing.assert_array_equal(others[0].result(60), rows_of(["of another", "caller"]))
    np.testing.assert_array_equal(engine.encode(LONG), rows_of(LONG))


def test_a_stream_goes_on_after_another_call_was_interrupted(engine):
    stream = engine.stream(LONG)
    got = [next(stream)[0].item()]
    engine.before = interrupt_once(engine)
    with pytest.raises(KeyboardInterrupt):
        engine.encode(["a"])
    got += [positions.item() for positions, _ in stream]
    assert sorted(got) == list(range(len(LONG)))


def interrupt_once(engine):
    def interrupt(_text):
        engine.before = lambda text: None
        raise KeyboardInterrupt

    return interrupt


# -- closing ------------------------------------------------------------------------------------------------


def test_closing_finishes_what_was_submitted_and_refuses_what_comes_after():
    engine = Gated()
    engine.held()
    futures = [engine.submit(LONG), engine.submit(["short"])]
    closing = elsewhere(engine.close)
    engine.gate.set()
    closing.result(60)
    np.testing.assert_array_equal(futures[0].result(0), rows_of(LONG))
    np.testing.assert_array_equal(futures[1].result(0), rows_of(["short"]))
    for call in (engine.encode, engine.submit, lambda texts: next(engine.stream(texts))):
        with pytest.raises(EngineClosedError, match="is closed; open it again"):
            call(["late"])
    engine.close()
    assert engine.released == 1


def test_closing_ends_open_streams():
    engine = Gated()
    stream = engine.stream(LONG)
    next(stream)
    engine.close()
    with pytest.raises(EngineClosedError, match="while its stream was read"):
        list(stream)


def test_leaving_with_an_error_cancels():
    def fail():
        with Gated() as engine:
            engine.held()
            futures.append(engine.submit(LONG))
            engine.gate.set()
            raise KeyError("of the caller")

    futures = []
    with pytest.raises(KeyError, match="of the caller"):
        fail()
    assert futures[0].cancelled() or futures[0].done()


def test_whoever_waits_hears_that_the_engine_was_closed(engine):
    engine.held()
    waiting = elsewhere(lambda: engine.encode(["waits"]))
    while engine._queue.pending < 2:
        pass
    closing = elsewhere(partial(engine.close, cancel=True))
    with pytest.raises(EngineClosedError, match="closed while it encoded"):
        waiting.result(60)
    engine.gate.set()
    closing.result(60)
    assert "waits" not in engine.computed


PROGRAM = """
    import os, sys
    from toolkit.embedding.static import StaticEmbedder
    from toolkit.errors import EngineClosedError
    engine = StaticEmbedder()
    engine.submit(["in a thread"]).result()
"""


def run_program(rest):
    program = textwrap.dedent(PROGRAM) + textwrap.dedent(rest)
    # From Python 3.12 on, a fork beside threads warns; that it works all the same is what is tested.
    quiet = ["-W", "ignore::DeprecationWarning"]
    done = subprocess.run(
        [sys.executable, *quiet, "-c", program], capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_is_refused_instead_of_hanging():
    code, said, error = run_program("""
        if os.fork() == 0:
            try:
                engine.encode(["in the child"])
            except EngineClosedError as error:
                print(error, flush=True)
            engine.close()
            os._exit(0)
        os.wait()
        engine.encode(["in the parent"])
    """)
    assert (code, error) == (0, "")
    assert "is a fork; open an engine in the process that uses it" in said


def test_no_thread_keeps_the_interpreter_from_exiting():
    code, _, error = run_program("for i in range(50): engine.submit(['unfinished ' * 100] * 200)")
    assert (code, error) == (0, "")


# -- any object as an engine --------------------------------------------------------------------------------


class Bare:
    """Has just what is needed, and is not safe from threads."""

    space = Gated.space

    def __init__(self):
        self.inside, self.closed, self.overlapped = 0, 0, False

    def close(self):
        self.closed += 1

    def rows(self, texts):
        self.inside += 1
        self.overlapped |= self.inside > 1
        rows = rows_of(texts)
        self.inside -= 1
        return rows


class Encodes(Bare):
    def encode(self, texts):
        return self.rows(texts)


class Streams(Bare):
    def stream(self, texts):
        for place in reversed(range(len(texts))):
            yield np.array([place]), self.rows([texts[place]])


@pytest.mark.parametrize("kind", [Encodes, Streams])
def test_an_object_with_space_and_encode_or_stream_becomes_an_engine(kind):
    inner = kind()
    with as_engine(inner) as engine:
        assert isinstance(engine, Embedder)
        assert engine.space is inner.space
        texts = [[f"{caller} {i}" for i in range(20)] for caller in range(4)]
        for own, future in [(own, elsewhere(partial(engine.encode, own))) for own in texts]:
            np.testing.assert_array_equal(future.result(60), rows_of(own))
        assert engine.encode([]).shape == (0, DIM)
    assert not inner.overlapped
    assert inner.closed == 1


def test_an_engine_stays_what_it_is_and_others_are_refused(engine):
    assert as_engine(engine) is engine
    with pytest.raises(PlanError, match=r"^int is not an embedder; give a spec"):
        as_engine(3)
    with pytest.raises(PlanError, match="Bare is not an embedder"):
        as_engine(Bare())


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (lambda texts: rows_of(texts)[:, :4], r"shape \(2, 4\) for 2 texts; .*\(2, 8\)"),
        (lambda texts: rows_of(texts)[:1], r"shape \(1, 8\) for 2 texts"),
    ],
)
def test_an_object_that_returns_other_rows_is_refused(rows, said):
    inner = Encodes()
    inner.encode = rows
    with as_engine(inner) as engine:
        with pytest.raises(VectorError, match=said):
            engine.encode(["a", "b"])
        inner.encode = lambda texts: rows_of(texts)[:, :4]
        with pytest.raises(VectorError, match=r"shape \(1, 4\) for 1 texts"):
            engine.encode(["a"])


def test_an_object_that_forgets_a_text_is_refused():
    inner = Streams()
    inner.stream = lambda texts: iter([(np.array([0]), rows_of(texts[:1]))])
    with as_engine(inner) as engine, pytest.raises(VectorError, match="no vector for text 1 of 2"):
        engine.encode(["a", "b"])


# -- anything at all ----------------------------------------------------------------------------------------

JOBS = st.lists(
    st.tuples(
        st.lists(st.sampled_from(["a", "bb", "y" * 30, "x" * 2 * ROOM, "bad"]), min_size=1, max_size=5),
        st.sampled_from(["submit", "cancel", "stream", "leave"]),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(jobs=JOBS, ahead=st.integers(1, 3))
def test_everybody_gets_their_own_rows_or_their_own_error(jobs, ahead):
    with Gated(before=refuse, ahead=ahead) as engine:
        asked = [(["first"], "submit", engine.held())]
        for number, (texts, way) in enumerate(jobs):
            own = [f"{text} {number} {i}" for i, text in enumerate(texts)]
            if way in ("submit", "cancel"):
                asked.append((own, way, engine.submit(own)))
                if way == "cancel":
                    assert asked[-1][2].cancel()
            else:
                asked.append((own, way, elsewhere(partial(read, engine, own, way))))
        engine.gate.set()
        for own, way, future in asked:
            if way == "cancel":
                assert future.cancelled()
            elif way == "leave":
                assert future.exception(60) is None or "bad" in own[0]
            elif any("bad" in text for text in own):
                with pytest.raises(ValueError, match="cannot do"):
                    future.result(60)
            else:
                np.testing.assert_array_equal(future.result(60), rows_of(own))
    assert not {text for own, way, _ in asked if way == "cancel" for text in own} & set(engine.computed)
    for run in engine.runs[1:]:
        callers = {text.split()[-2] for text in run}
        assert len(callers) == 1 or sum(map(len, run)) <= ROOM


def read(engine, texts, way):
    rows = np.full((len(texts), DIM), np.nan)
    for positions, block in engine.stream(texts):
        rows[positions] = block
        if way == "leave":
            break
    return rows
