"""The results folder: what may be continued or replaced, what belongs together, how old ones are read."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.sweeps import INDEXES, TIMING, names_set, quality_of, scored_pairs, sweep_into, translated_pairs
from toolkit.cli.words import as_options
from toolkit.errors import PlanError, ResultsError, ToolkitWarning
from toolkit.experiment import environment as environment_module
from toolkit.experiment.folder import SCHEMA, ResultsFolder, read_manifest
from toolkit.experiment.older import plan_of_today
from toolkit.experiment.plan import make_plan, read_plan
from toolkit.experiment.results import Results
from toolkit.experiment.setting import Setting
from toolkit.experiment.sweep import run_sweep

RECORDED = sorted(Path(__file__).parents[1].glob("results/*/measurements.parquet"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def _finished(tmp_path_factory, cache):
    out = tmp_path_factory.mktemp("results") / "names"
    sweep_into(out, cache)
    return out


@pytest.fixture
def finished(_finished, tmp_path):
    """A finished sweep of 64 and 256 dimensions, to be changed at will."""
    return Path(shutil.copytree(_finished, tmp_path / "names"))


def raw_files(out, kind="*"):
    return {path.name: path.stat().st_mtime_ns for path in (out / "raw").glob(f"*.{kind}.*")}


def timed_queries(out):
    """{number of queries: files of timing samples with that many}."""
    counts = [np.load(path)["single_ms_0"].shape[1] for path in (out / "raw").glob("*.timing.npz")]
    return {count: counts.count(count) for count in set(counts)}


# What a folder says of itself


def test_a_finished_folder_says_its_version_kind_and_identity(finished):
    manifest = read_manifest(finished)
    assert (manifest.schema, manifest.kind, manifest.finished) == (SCHEMA, "retrieval", True)
    assert set(manifest.sweep) == {"embedding space", "queries", "data", "k", "seed"}
    assert not (finished / "raw" / "lock").exists()
    assert not (finished / "raw" / "corpus.npy").exists()


def test_every_raw_file_carries_all_that_it_depends_on(finished):
    for path in (finished / "raw").glob("*.timing.npz"):
        identity = json.loads(str(np.load(path)["identity"]))
        assert identity["timing"] == {"queries": 3, "threads": [1]}
        assert identity["conditions"]["hardware"]["cores"] >= 1
        assert identity["versions"]["faiss-cpu"]
        assert identity["sweep"]["data"] == names_set().content_hash
    path = next((finished / "raw").glob("*.neighbours.npz"))
    assert "conditions" not in json.loads(str(np.load(path)["identity"])), "neighbours suit any machine"


# What may be continued


def test_the_same_plan_continues_by_itself_and_says_so(finished, cache):
    before = raw_files(finished)
    results = sweep_into(finished, cache)
    assert raw_files(finished) == before, "nothing is measured twice"
    assert any(note.startswith("continued: 10 of 10 settings") for note in results.notes)


def test_another_plan_needs_to_be_told(finished, cache):
    with pytest.raises(ResultsError, match=r"another plan .* resume=True"):
        sweep_into(finished, cache, dims=[64, 128])
    before = raw_files(finished)
    results = sweep_into(finished, cache, dims=[64, 128], resume=True)
    assert set(results.measurements["dim"]) == {64, 128, 256}
    assert before.items() <= raw_files(finished).items(), "what was there is not measured again"


def test_continuing_never_drops_rows(finished, cache):
    before = (finished / "measurements.csv").read_bytes()
    with pytest.raises(ResultsError, match=r"holds 8 settings that this plan does not measure .*HNSW8"):
        sweep_into(finished, cache, indexes=["Flat"], resume=True)
    assert (finished / "measurements.csv").read_bytes() == before
    assert Results.load(finished).plan.indexes[1].factory == "HNSW8"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"k": 11}, r"another k \(10, now 11\)"),
        ({"seed": 1}, r"another seed \(0, now 1\)"),
        ({"max_queries": 20}, r"another queries \(36, now 20\)"),
        ({"data": names_set(topic="tale")}, "another data"),
    ],
    ids=["k", "seed", "max_queries", "data"],
)
def test_another_sweep_is_never_mixed_in(finished, cache, changed, message):
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    with pytest.raises(ResultsError, match=message):
        sweep_into(finished, cache, resume=True, **changed)
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("resume", [False, True])
def test_a_sweep_of_another_kind_is_refused(finished, cache, tmp_path, resume):
    with pytest.raises(ResultsError, match="holds a retrieval sweep and this is a pairs sweep"):
        sweep_into(finished, cache, data=scored_pairs(), indexes=["Flat"], resume=resume)
    assert len(Results.load(finished).measurements) == 10
    sweep_into(tmp_path / "pairs", cache, data=scored_pairs(), indexes=["Flat"])
    with pytest.raises(ResultsError, match="holds a pairs sweep and this is a retrieval sweep"):
        sweep_into(tmp_path / "pairs", cache, resume=resume)


@pytest.mark.parametrize("resume", [False, True])
def test_a_finished_folder_without_its_raw_files_is_kept(finished, cache, resume):
    shutil.rmtree(finished / "raw")
    with pytest.raises(ResultsError, match="without its raw files"):
        sweep_into(finished, cache, resume=resume)
    assert len(Results.load(finished).measurements) == 10
    assert len(sweep_into(finished, cache, overwrite=True).measurements) == 10


def test_overwriting_measures_anew_and_leaves_what_is_not_the_sweeps(finished, cache):
    before = raw_files(finished)
    mine = {"charts/photo.png", "mine.txt", "raw/mine.npz"}
    (finished / "charts").mkdir()
    for name in ("charts/dimension.png", "charts/dimension.svg", "report.html", *mine):
        (finished / name).write_text("x")
    results = sweep_into(finished, cache, indexes=["Flat"], overwrite=True)
    assert len(results.measurements) == 2
    assert not any(written in before.values() for written in raw_files(finished).values())
    kept = [path for path in finished.rglob("*") if path.is_file() and path.read_bytes() == b"x"]
    assert {str(path.relative_to(finished)) for path in kept} == mine


def test_charts_of_earlier_tables_go_when_the_tables_change(finished, cache):
    (finished / "charts").mkdir()
    for name in ("charts/cost.png", "charts/cost.svg", "report.html"):
        (finished / name).write_text("drawn from fewer rows")
    sweep_into(finished, cache, dims=[64, 128], resume=True)
    assert not (finished / "report.html").exists()
    assert not list((finished / "charts").iterdir())


def test_a_folder_is_left_as_it_was_found_when_nothing_begins(tmp_path, cache):
    out = tmp_path / "a" / "b"
    with pytest.raises(ResultsError, match="is being written by process"), ResultsFolder.opened(out):
        sweep_into(out, cache)
    assert not (tmp_path / "a").exists()


# Samples of different conditions


def test_other_numbers_of_queries_and_threads_are_timed_apart(finished, cache):
    sweep_into(finished, cache, timing=TIMING | {"queries": 5}, resume=True)
    assert timed_queries(finished) == {3: 10, 5: 10}
    results = sweep_into(finished, cache, timing=TIMING | {"threads": [1, 2], "rounds": 2}, resume=True)
    assert timed_queries(finished) == {3: 20, 5: 10}
    assert "10 of 10 searches had been timed under other conditions" in " ".join(results.notes)


def test_further_rounds_are_added_to_those_there_are(finished, cache):
    before = {path.name: np.load(path)["single_ms_0"] for path in (finished / "raw").glob("*.timing.npz")}
    sweep_into(finished, cache, timing=TIMING | {"rounds": 3}, resume=True)
    for name, first in before.items():
        now = np.load(finished / "raw" / name)["single_ms_0"]
        assert now.shape == (3, 3)
        np.testing.assert_array_equal(now[:1], first)


def test_another_machine_times_all_again_keeps_neighbours_and_is_named(finished, cache, monkeypatch):
    neighbours, timings = raw_files(finished, "neighbours"), raw_files(finished, "timing")
    here = environment_module.hardware()
    monkeypatch.setattr(environment_module, "hardware", lambda: here | {"cpu": "Another Processor"})
    results = sweep_into(finished, cache, dims=[64, 128], resume=True)
    assert neighbours.items() <= raw_files(finished, "neighbours").items()
    assert timings.items() <= raw_files(finished, "timing").items()
    assert len(raw_files(finished, "timing")) == 10 + 15, "all 15 of the plan on the new machine"
    assert results.environment["hardware"]["cpu"] == "Another Processor"
    others = results.environment["other_conditions"]
    assert [facts["hardware"]["cpu"] for facts in others.values()] == [here["cpu"]]
    by_setting = results.measurements.set_index("setting")["p50_ms"]
    monkeypatch.undo()
    again = sweep_into(finished, cache, dims=[64, 128], resume=True)
    assert timings.items() <= raw_files(finished, "timing").items(), "back home, the old samples serve"
    assert not (again.measurements.set_index("setting")["p50_ms"] == by_setting).all()


def test_a_quiet_run_does_not_hide_that_the_timed_one_was_disturbed(finished, cache):
    about = json.loads((finished / "environment.json").read_text())
    about["host_load"]["cores_used_by_others"] = 500.0
    (finished / "environment.json").write_text(json.dumps(about))
    results = sweep_into(finished, cache)
    assert results.environment["host_load"]["cores_used_by_others"] == 500.0
    assert any(note.startswith("other programs used 500.0 of") for note in results.notes)


def test_neighbours_of_another_version_are_not_used(finished, cache, monkeypatch):
    monkeypatch.setattr("toolkit.experiment.sweep.search_versions", lambda _: {"faiss-cpu": "99.0"})
    before = raw_files(finished, "neighbours")
    results = sweep_into(finished, cache)
    assert len(raw_files(finished, "neighbours")) == 2 * len(before)
    assert any(note.startswith("continued: 0 of 10") for note in results.notes)


# Pairs go the same way


@pytest.mark.parametrize("pairs", [scored_pairs, translated_pairs])
def test_a_sweep_of_pairs_is_continued_from_its_raw_files(pairs, cache, tmp_path):
    whole = sweep_into(tmp_path / "whole", cache, data=pairs(), indexes=["Flat"], dims=[64, 128])
    sweep_into(tmp_path / "parts", cache, data=pairs(), indexes=["Flat"])
    before = raw_files(tmp_path / "parts", "pairs")
    assert len(before) == 2
    with pytest.raises(ResultsError, match="another plan"):
        sweep_into(tmp_path / "parts", cache, data=pairs(), indexes=["Flat"], dims=[64, 128])
    parts = sweep_into(tmp_path / "parts", cache, data=pairs(), indexes=["Flat"], dims=[64, 128], resume=True)
    assert before.items() <= raw_files(tmp_path / "parts", "pairs").items()
    pd.testing.assert_frame_equal(parts.measurements, whole.measurements)
    pd.testing.assert_frame_equal(parts.per_query, whole.per_query)


def test_pairs_are_checked_before_a_model_is_opened(cache, tmp_path):
    plan = make_plan(embedder="local:/no/such/model", dims=[64], indexes=["HNSW8"])
    with pytest.raises(PlanError, match="set of pairs and has no corpus to index"):
        run_sweep(plan, out=tmp_path / "o", data=scored_pairs(), progress=False)
    assert not (tmp_path / "o").exists()


# What is left out is said


@pytest.mark.parametrize(
    ("data", "what"), [(names_set, "queries"), (scored_pairs, "pairs"), (translated_pairs, "pairs")]
)
def test_fewer_queries_or_pairs_than_there_are_is_said(data, what, cache, tmp_path):
    results = sweep_into(tmp_path / "o", cache, data=data(), indexes=["Flat"], max_queries=20)
    assert results.per_query["query_id"].nunique() == 20
    note = f"20 of 36 {what} were measured, drawn at random with seed 0 (max_queries; 0 measures all)"
    assert note in results.notes
    assert Results.load(tmp_path / "o").notes == results.notes
    everything = sweep_into(tmp_path / "all", cache, data=data(), indexes=["Flat"], max_queries=0)
    assert everything.per_query["query_id"].nunique() == 36
    assert not any("max_queries" in note for note in everything.notes)


def test_one_query_is_too_few():
    with pytest.raises(PlanError, match="choose at least 2, or 0 for all"):
        make_plan(max_queries=1)


# Folders of other versions


@pytest.mark.parametrize("measurements", RECORDED, ids=lambda path: path.parent.name)
def test_recorded_folders_are_read(measurements):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = Results.load(measurements.parent)
    assert len(results.measurements) > 1
    assert results.plan_text == (measurements.parent / "plan.toml").read_text()


@pytest.fixture
def of_an_earlier_version(tmp_path):
    """A recorded sweep as versions wrote it that counted candidates for each neighbour and named no depth of MAP."""
    recorded = Path(__file__).parents[1] / "results" / "grid-static-builtin"
    for name in ("measurements", "per_query", "scaling"):
        table = pd.read_parquet(recorded / f"{name}.parquet").drop(columns="same_ranking", errors="ignore")
        table.columns = [column.replace("map@100", "map") for column in table.columns]
        for column in {"setting", "rescore"} & set(table.columns):
            table[column] = table[column].astype(str).str.replace("@400", "x4")
        table.to_parquet(tmp_path / f"{name}.parquet")
    plan = (recorded / "plan.toml").read_text()
    (tmp_path / "plan.toml").write_text(plan.replace("candidates = 400", "candidates = 4"))
    (tmp_path / "environment.json").write_bytes((recorded / "environment.json").read_bytes())
    return tmp_path


def test_tables_of_an_earlier_version_use_todays_names(of_an_earlier_version):
    folder = of_an_earlier_version
    written = pd.read_parquet(folder / "measurements.parquet")
    results = Results.load(folder)
    frame = results.measurements
    assert set(written["rescore"]) == {"", "256x4"}
    assert set(frame["rescore"]) == {"", "256@400"}, "4 candidates for each of k = 100 neighbours"
    assert [Setting.parse(key).key for key in frame["setting"]] == list(frame["setting"])
    assert frame["setting"].is_unique
    assert set(results.per_query["setting"]) == set(results.scaling["setting"]) == set(frame["setting"])
    assert "map" not in {*frame.columns, *results.per_query.columns}
    np.testing.assert_array_equal(frame["map@100_lo"], written["map_lo"])
    assert results.plan.rescore[0][0].candidates == 400
    by_name = results.per_query.groupby("setting", observed=True)["map@100"].mean()
    np.testing.assert_allclose(by_name[frame["setting"]], frame["map@100"])


@pytest.mark.parametrize(("written", "today"), [(4, 40), (1, 10), (40, 40)])
def test_candidates_per_neighbor_become_a_number_of_their_own(written, today):
    fields = plan_of_today({"k": 10, "rescore": [[{"dim": 64, "candidates": written}]]})
    assert make_plan(**fields).rescore[0][0].candidates == today


@pytest.fixture
def old(finished):
    """A folder as versions before folder.json left it."""
    (finished / "folder.json").unlink()
    (finished / "raw" / "plan.toml").unlink()
    for path in (finished / "raw").glob("*.*.*"):
        path.unlink()
    (finished / "raw" / "identity.json").write_text('{"k": 10}')
    about = json.loads((finished / "environment.json").read_text())
    for later in ("notes", "host_load", "libraries", "other_conditions"):
        del about[later]
    (finished / "environment.json").write_text(json.dumps(about))
    return finished


def test_a_folder_of_an_earlier_version_is_read_and_reported_but_not_continued(old, cache):
    from toolkit.decide.recommend import recommend
    from toolkit.report.write import write_report

    results = Results.load(old)
    assert results.notes == ()
    assert write_report(results).stat().st_size > 10_000
    recommend(results, keep=0.5)
    for resume in (False, True):
        with pytest.raises(ResultsError, match=r"written by an earlier version.*overwrite=True"):
            sweep_into(old, cache, resume=resume)
    sweep_into(old, cache, overwrite=True)
    assert read_manifest(old).finished
    assert not (old / "raw" / "identity.json").exists()


def test_an_unfinished_folder_of_an_earlier_version_is_not_mixed_with(old, cache):
    for name in ("measurements.parquet", "measurements.csv"):
        (old / name).unlink()
    with pytest.raises(ResultsError, match="written by an earlier version"):
        sweep_into(old, cache, resume=True)


def test_keys_of_a_later_version_leave_the_tables_readable(finished):
    from toolkit.report.write import write_report

    plan = finished / "plan.toml"
    later = (
        plan.read_text()
        .replace("seed = 0", 'seed = 0\nflavor = "sweet"')
        .replace("[timing]", "[timing]\njitter = 3")
    )
    plan.write_text(later.replace('{ factory = "HNSW8"', '{ factory = "HNSW8", shards = 2'))
    with pytest.warns(ToolkitWarning, match=r"leaves out: .*flavor"):
        results = Results.load(finished)
    assert results.plan.k == 10
    assert results.plan.timing.queries == 3
    assert [index.factory for index in results.plan.indexes] == ["Flat", "HNSW8"]
    assert "flavor" in write_report(results).read_text(), "the report shows the plan as it was written"


def test_values_of_a_later_version_leave_the_tables_readable(finished):
    plan = finished / "plan.toml"
    plan.write_text(plan.read_text().replace('"float32",', '"float32", "int2",'))
    with pytest.warns(ToolkitWarning, match="leaves out: precisions"):
        assert len(Results.load(finished).measurements) == 10


def test_a_later_format_is_refused_with_the_fix(finished, cache):
    manifest = json.loads((finished / "folder.json").read_text())
    (finished / "folder.json").write_text(json.dumps(manifest | {"schema": SCHEMA + 1}))
    for attempt in (Results.load, lambda out: sweep_into(out, cache, resume=True)):
        with pytest.raises(
            ResultsError, match=rf"version {SCHEMA + 1} of the results format.*pip install --upgrade"
        ):
            attempt(finished)


# Advice


def test_an_unfinished_sweep_is_finished_with_the_command_it_names(cache, tmp_path):
    from toolkit.errors import ServerError

    class Failing:
        def __init__(self, engine):
            self.space, self.stream, self.encode = engine.space, self.fail, self.fail

        def fail(self, texts):
            raise ServerError("gone")

        def close(self):
            pass

    from toolkit.embedding.cache import VectorCache
    from toolkit.embedding.static import StaticEmbedder

    out = tmp_path / "a folder"
    plan = make_plan(dims=[64], k=10, timing=TIMING, indexes=INDEXES)
    with pytest.raises(ServerError):
        run_sweep(
            plan,
            out=out,
            embedder=Failing(StaticEmbedder()),
            data=names_set(),
            cache=VectorCache(tmp_path / "empty"),
            progress=False,
        )
    with pytest.raises(ResultsError, match="is not finished; finish it with: ") as caught:
        Results.load(out)
    call = f"toolkit.sweep('{out}/raw/plan.toml', resume=True, out='{out}')"
    assert str(caught.value).endswith(call)
    command = f"toolkit sweep '{out}/raw/plan.toml' --resume --out '{out}'"
    assert as_options(str(caught.value)).endswith(command)
    assert read_plan(out / "raw" / "plan.toml").indexes == plan.indexes


def test_a_folder_without_a_sweep_gets_no_command_that_would_start_another(tmp_path):
    with pytest.raises(ResultsError, match="holds no finished sweep") as caught:
        Results.load(tmp_path)
    assert "--resume" not in str(caught.value)


def test_quality_of_a_continued_sweep_is_that_of_one_run(finished, cache, tmp_path):
    continued = sweep_into(finished, cache, dims=[64, 128], resume=True)
    whole = sweep_into(tmp_path / "whole", cache, dims=[64, 128])
    pd.testing.assert_frame_equal(quality_of(continued), quality_of(whole))
    names = ("per_query.parquet", "plan.toml")
    assert [(finished / n).read_bytes() for n in names] == [
        (tmp_path / "whole" / n).read_bytes() for n in names
    ]
