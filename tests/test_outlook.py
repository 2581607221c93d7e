"""Before a long run: what its queries can prove, about how long it takes, and a question where a person is there."""

from __future__ import annotations

import time

import pytest
import typer
from sweeps import names_set, sweep_into

from toolkit.cli import confirm
from toolkit.embedding.cache import VectorCache
from toolkit.embedding.static import StaticEmbedder
from toolkit.experiment.outlook import Outlook, duration, encode_seconds
from toolkit.experiment.plan import make_plan
from toolkit.experiment.sweep import run_sweep
from toolkit.measure.noninferiority import strictest_keep
from toolkit.space import Role

pytestmark = pytest.mark.filterwarnings("ignore::toolkit.errors.DimensionWarning")


class Slow(StaticEmbedder):
    """Takes a millisecond for each text."""

    def encode(self, texts):
        time.sleep(0.001 * len(texts))
        return super().encode(texts)


def test_encoding_is_estimated_from_a_second_of_it_and_the_cache_is_left_out(tmp_path):
    texts = [f"text number {i}" for i in range(20_000)]
    cache = VectorCache(tmp_path)
    with Slow() as engine:
        assert encode_seconds(engine, texts, cache) == pytest.approx(20.0, rel=0.35)
    names = names_set()
    with StaticEmbedder() as engine:
        sweep_into(tmp_path / "out", tmp_path, data=names)
        rendered = [engine.space.render(text, Role.DOCUMENT) for text in names.docs]
        assert encode_seconds(engine, rendered, cache) == 0.0
        assert encode_seconds(engine, rendered) > 0.0


def test_a_sweep_says_what_it_can_prove_before_it_begins_and_can_be_stopped(tmp_path):
    told = []

    def stop(outlook):
        told.append(outlook)
        raise typer.Exit(1)

    data = names_set()
    plan = make_plan(dims=[64], k=10, max_unlabelled=0, timing={"queries": 3, "rounds": 1, "threads": [1]})
    arguments = {
        "out": tmp_path / "out",
        "data": data,
        "cache": VectorCache(tmp_path / "cache"),
        "progress": False,
    }
    with pytest.raises(typer.Exit):
        run_sweep(plan, **arguments, before=stop)
    [outlook] = told
    assert not (tmp_path / "cache").exists() or not list((tmp_path / "cache").rglob("*.safetensors"))
    assert (outlook.labelled, outlook.unlabelled, outlook.settings, outlook.searched) == (
        len(data.queries),
        0,
        2,
        0,
    )
    assert outlook.strictest_keep == strictest_keep(len(data.queries))
    assert f"{len(data.queries)} labelled queries can prove at best that " in str(outlook)
    run_sweep(plan, **arguments)
    run_sweep(plan, **arguments, before=told.append)
    assert told[-1].searched == 2
    assert told[-1].encode_s == 0.0


def test_what_is_said_is_no_more_than_can_be_proven():
    outlook = Outlook(300, 0, 10, 0, 1.0, 1.0)
    said = float(str(outlook).split("at best that ")[1].split()[0])
    assert 0 <= outlook.strictest_keep - said < 0.001
    assert "none of them judged" in str(Outlook(0, 40, 10, 0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 second"), (75, "75 seconds"), (700, "12 minutes"), (9_000, "2.5 hours")]
)
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text


def test_only_long_runs_ask_and_only_a_person(monkeypatch, capsys):
    asked = []

    def answer(question, **_):
        asked.append(question)
        return False

    monkeypatch.setattr(typer, "confirm", answer)
    confirm.go_on("something long", 601.0, yes=False)
    assert asked == [], "nobody is there"
    for stream in ("stdin", "stderr"):
        monkeypatch.setattr(getattr(confirm.sys, stream), "isatty", lambda: True, raising=False)
    confirm.go_on("something short", 599.0, yes=False)
    confirm.go_on("something long", 601.0, yes=True)
    assert asked == []
    with pytest.raises(typer.Exit):
        confirm.go_on("something long", 601.0, yes=False)
    assert len(asked) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "something long"
