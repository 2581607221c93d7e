"""Raw files survive what happens to files: interruption, kill, a full disk, truncation, flipped bits."""

import errno
import io
import json
import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.sweeps import TIMING, quality_of, scored_pairs, sweep_into
from toolkit.errors import ResultsError, ToolkitWarning
from toolkit.experiment import folder as folder_module
from toolkit.experiment import store as store_module
from toolkit.experiment.derive import derive_scaling, latency
from toolkit.experiment.identity import Identity
from toolkit.experiment.results import Results
from toolkit.experiment.setting import Setting
from toolkit.experiment.store import RawStore
from toolkit.search.neighbours import Neighbours

IDENTITY = Identity(
    sweep={"embedding space": "s", "data": "d", "k": 10, "seed": 0},
    versions={"faiss-cpu": "1"},
    conditions={"hardware": {"cpu": "c", "cores": 2}, "threads": {}},
    timing={"queries": 4, "threads": [1, 0]},
)
FOUND = Neighbours(np.arange(30).reshape(3, 10), np.linspace(1, 0, 30, dtype=np.float32).reshape(3, 10))
KILLED = """
import os, signal, sys
from pathlib import Path
from tests.sweeps import sweep_into
from toolkit.experiment import store
written, plain = 0, store.write_atomically
def write(path, payload):
    global written
    if written == int(sys.argv[3]):
        path.with_name(path.name + ".tmp").write_bytes(payload[: len(payload) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    plain(path, payload)
    written += 1
store.write_atomically = write
sweep_into(Path(sys.argv[1]), sys.argv[2])
"""
LIMITED = """
import resource, signal, sys
from pathlib import Path
from tests.sweeps import sweep_into
from toolkit.errors import ResultsError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, 6_000))
try:
    sweep_into(Path(sys.argv[1]), sys.argv[2])
except ResultsError as error:
    print("ResultsError", error)
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cache):
    """A sweep that nothing happened to."""
    return sweep_into(tmp_path_factory.mktemp("results") / "whole", cache)


@pytest.fixture
def out(whole, tmp_path):
    return Path(shutil.copytree(whole.folder, tmp_path / "names"))


@pytest.fixture
def store(tmp_path):
    return RawStore(tmp_path, IDENTITY)


def assert_same_quality(results, whole):
    pd.testing.assert_frame_equal(quality_of(results), quality_of(whole))
    assert (results.folder / "per_query.parquet").read_bytes() == (
        whole.folder / "per_query.parquet"
    ).read_bytes()


# Identity


EVERYTHING = {"neighbours", "build", "durations"}


@pytest.mark.parametrize(
    ("part", "value", "changes"),
    [
        ("sweep", {"embedding space": "other"}, EVERYTHING),
        ("sweep", {"k": 11}, {"neighbours", "durations"}),
        ("sweep", {"seed": 1}, EVERYTHING),
        ("versions", {"faiss-cpu": "2"}, EVERYTHING),
        ("conditions", {"hardware": {"cpu": "c", "cores": 4}}, {"build", "durations"}),
        ("conditions", {"threads": {"OMP_NUM_THREADS": "1"}}, {"build", "durations"}),
        ("timing", {"queries": 5}, {"durations"}),
        ("timing", {"threads": [2, 0]}, {"durations"}),
    ],
)
def test_what_each_kind_of_file_depends_on(part, value, changes):
    other = replace(IDENTITY, **{part: getattr(IDENTITY, part) | value})
    assert {kind for kind in EVERYTHING if differ(kind, other)} == changes
    assert all(differ(kind, IDENTITY.part(100)) for kind in EVERYTHING), (
        "a part of the corpus is another corpus"
    )


def differ(kind, other):
    """Whether a kind of file goes by another name under another identity; name and content say the same."""
    mine, theirs = (getattr(identity, kind)("x") for identity in (IDENTITY, other))
    assert (mine.name != theirs.name) == (mine.text != theirs.text)
    return mine != theirs


def test_samples_of_another_identity_are_neither_used_nor_touched(store):
    search = Setting(64)
    elsewhere = RawStore(store.folder, IDENTITY.part(100))
    elsewhere.add_timing(search, {"single_ms_0": np.ones((1, 4)), "batch_s_0": np.ones(1)})
    elsewhere.save_neighbours(search, FOUND)
    elsewhere.save_build("x", {"factory": "Flat", "build_s": 1.0, "index_bytes": 8})
    assert store.timing(search) is None
    assert store.neighbours(search) is None
    assert store.build("x") is None
    store.add_timing(search, {"single_ms_0": np.zeros((1, 4)), "batch_s_0": np.zeros(1)})
    assert store.timed_otherwise(search) == 1
    assert elsewhere.timing(search)["single_ms_0"].sum() == 4


def test_a_file_under_a_name_that_is_not_its_own_is_not_believed(store):
    setting = Setting(64)
    elsewhere = RawStore(store.folder, IDENTITY.part(100))
    elsewhere.save_neighbours(setting, FOUND)
    moved = next(store.folder.glob("*.npz"))
    store.save_neighbours(setting, FOUND)
    own = next(path for path in store.folder.glob("*.npz") if path != moved)
    moved.replace(own)
    with pytest.warns(ToolkitWarning, match="another identity"):
        assert store.neighbours(setting) is None


def test_row_numbers_survive_whatever_their_size(store):
    huge = Neighbours(np.array([[2**40, -1]]), np.ones((1, 2), dtype=np.float32))
    for setting, found in ((Setting(1), FOUND), (Setting(2), huge)):
        store.save_neighbours(setting, found)
        np.testing.assert_array_equal(store.neighbours(setting).rows, found.rows)
        np.testing.assert_array_equal(store.neighbours(setting).scores, found.scores)


# Damage


def test_every_truncation_and_flipped_byte_is_noticed(store):
    setting = Setting(64)
    store.save_neighbours(setting, FOUND)
    path = next(store.folder.glob("*.npz"))
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [good[:size] for size in range(0, len(good), 23)]
    for place in rng.choice(len(good), 300, replace=False):
        flipped = bytearray(good)
        flipped[place] ^= 1 << rng.integers(8)
        damaged.append(bytes(flipped))
    for content in damaged:
        path.write_bytes(content)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found = store.neighbours(setting)
        if found is None:
            # Beside it there may be what the collector finds of other tests just then.
            ours = [str(one.message) for one in told if issubclass(one.category, ToolkitWarning)]
            assert "is damaged" in ours[0]
            assert not path.exists()
        else:  # a byte of the archive's own that says nothing
            np.testing.assert_array_equal(found.rows, FOUND.rows)
            np.testing.assert_array_equal(found.scores, FOUND.scores)
    path.write_bytes(b"")
    with pytest.warns(ToolkitWarning, match="is damaged"):
        assert store.neighbours(setting) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"identity": 1}', b"\xff\xfe"])
def test_damaged_build_facts_are_made_again(store, content):
    store.save_build("x", {"factory": "Flat", "build_s": 1.0, "index_bytes": 8})
    path = next(store.folder.glob("*.build.json"))
    path.write_bytes(content)
    with pytest.warns(ToolkitWarning, match=r"build\.json is damaged .* and is measured again"):
        assert store.build("x") is None


@pytest.mark.parametrize("cut", [0.0, 0.5])
@pytest.mark.parametrize("kind", ["neighbours.npz", "timing.npz", "build.json"])
def test_a_damaged_raw_file_is_measured_again_with_a_warning(out, whole, cache, kind, cut):
    path = next((out / "raw").glob(f"*.{kind}"))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * cut)])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        results = sweep_into(out, cache)
    damage = [str(one.message) for one in told if "damaged" in str(one.message)]
    assert len(damage) == 1, "it is removed, so it is said once"
    assert damage[0].startswith(f"{path} is damaged")
    assert path.exists()
    assert_same_quality(results, whole)


@pytest.mark.parametrize("name", ["plan.toml", "environment.json", "measurements.parquet"])
@pytest.mark.parametrize("cut", [0.0, 0.6])
def test_a_damaged_table_is_named_with_the_command_that_makes_it_again(out, whole, cache, name, cut):
    path = out / name
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * cut)])
    if name == "plan.toml":
        path.write_bytes(b"k = ")
    with pytest.raises(ResultsError, match=rf"{name} is damaged .*; make it again with: toolkit.sweep\("):
        Results.load(out)
    before = {raw: raw.stat().st_mtime_ns for raw in (out / "raw").glob("*.npz")}
    assert_same_quality(sweep_into(out, cache), whole)
    assert {raw: raw.stat().st_mtime_ns for raw in (out / "raw").glob("*.npz")} == before
    assert len(Results.load(out).measurements) == 10


@pytest.mark.parametrize("name", ["per_query.parquet", "scaling.parquet"])
def test_damage_that_shows_late_is_one_error_too(out, name):
    (out / name).write_bytes(b"PAR1")
    results = Results.load(out)
    with pytest.raises(ResultsError, match=f"{name} is damaged"):
        _ = results.per_query if name.startswith("per") else results.scaling
    (out / name).unlink()
    if name.startswith("per"):
        with pytest.raises(ResultsError, match=f"{name} is missing"):
            _ = Results.load(out).per_query


def test_a_damaged_manifest_is_rebuilt_from_the_raw_files_when_asked(out, whole, cache):
    (out / "folder.json").write_bytes(b"")
    for attempt in (Results.load, lambda folder: sweep_into(folder, cache)):
        with pytest.raises(ResultsError, match=r"folder\.json is damaged .*resume=True rebuilds"):
            attempt(out)
    with pytest.warns(ToolkitWarning, match=r"folder\.json is damaged"):
        results = sweep_into(out, cache, resume=True)
    assert_same_quality(results, whole)
    assert json.loads((out / "folder.json").read_text())["finished"] is True


# Interruption


def test_an_interruption_at_any_write_loses_at_most_that_one(whole, cache, tmp_path, monkeypatch):
    plain = store_module.write_atomically
    written = []

    def interrupted_after(count):
        def write(path, payload):
            if len(written) == count:
                raise KeyboardInterrupt
            plain(path, payload)
            written.append(path.name)

        return write

    total = len([path for path in (whole.folder / "raw").glob("*.*.*") if "conditions" not in path.name])
    assert total == 34, (
        "10 settings found for queries with and without judgements, and timed; 4 indexes built"
    )
    for count in range(total):
        out = tmp_path / str(count)
        written.clear()
        monkeypatch.setattr(store_module, "write_atomically", interrupted_after(count))
        with pytest.raises(KeyboardInterrupt):
            sweep_into(out, cache)
        with pytest.raises(ResultsError, match="not finished; finish it with"):
            Results.load(out)
        kept = {name: (out / "raw" / name).read_bytes() for name in written}
        monkeypatch.setattr(store_module, "write_atomically", interrupted_after(10_000))
        written.clear()
        results = sweep_into(out, cache)
        assert_same_quality(results, whole)
        for name in set(written) & set(kept):
            if name.endswith("timing.npz"):  # all searches of one index are timed in turns: a round more
                first = np.load(io.BytesIO(kept[name]))["single_ms_0"]
                np.testing.assert_array_equal(np.load(out / "raw" / name)["single_ms_0"][: len(first)], first)
            else:  # the index itself may not have been kept; what was found with it was
                assert name.endswith("build.json")


@pytest.mark.parametrize("after", [0, 3, 17])
def test_a_killed_sweep_is_continued_and_its_lock_is_free(whole, cache, tmp_path, after):
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "out"), str(cache), str(after)],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -9, done.stderr
    assert (tmp_path / "out" / "raw" / "lock").exists()
    assert_same_quality(sweep_into(tmp_path / "out", cache), whole)
    assert not (tmp_path / "out" / "raw" / "lock").exists()


def test_tables_half_replaced_are_not_taken_for_whole(out, cache, monkeypatch):
    plain = Path.replace

    def stopped(path, target):
        if path.name == "measurements.csv.new":
            raise KeyboardInterrupt
        return plain(path, target)

    monkeypatch.setattr(Path, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        sweep_into(out, cache, dims=[64, 128], resume=True)
    monkeypatch.undo()
    with pytest.raises(ResultsError, match="not finished; finish it with"):
        Results.load(out)
    assert not list(out.glob("*.new"))
    assert len(sweep_into(out, cache, dims=[64, 128]).measurements) == 15


# A disk that refuses


def refuse(number):
    def write(*_):
        raise OSError(number, os.strerror(number))

    return write


@pytest.mark.parametrize(
    ("number", "advice"), [(errno.ENOSPC, "free some room there"), (errno.EACCES, "check its permissions")]
)
def test_a_refused_raw_file_is_one_error_and_nothing_is_lost(out, cache, monkeypatch, number, advice):
    monkeypatch.setattr(store_module, "write_atomically", refuse(number))
    with pytest.raises(
        ResultsError, match=rf"npz cannot be written .*{advice}.*resume=True continues from it"
    ):
        sweep_into(out, cache, dims=[64, 128], resume=True)
    assert len(Results.load(out).measurements) == 10


def test_a_disk_that_is_full_at_the_end_keeps_the_tables_there_were(out, cache, monkeypatch):
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    plain = folder_module._write_through

    def full(path, payload):
        if path.name == "measurements.csv.new":
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(path, payload)

    monkeypatch.setattr(folder_module, "_write_through", full)
    with pytest.raises(ResultsError, match=r"cannot be written \(No space left on device\); free some"):
        sweep_into(out, cache, dims=[64, 128], resume=True)
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


def test_a_corpus_file_that_does_not_fit_is_refused_before_it_is_mapped(store):
    with pytest.raises(ResultsError, match=r"cannot be written \(.* bytes needed, .* free\); free some room"):
        store.corpus_file(2**62)
    assert store.corpus_file(10).parent == store.folder


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_one_error(cache, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(ResultsError, match=r"cannot be written \(Permission denied\); choose"):
        sweep_into(tmp_path / "locked" / "o", cache)


def test_a_folder_inside_a_file_is_one_error(cache, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match=r"cannot be written .*; choose another \(out=\)"):
        sweep_into(tmp_path / "file" / "o", cache)


def test_a_quota_on_file_size_is_one_error_in_a_real_process(cache, tmp_path):
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "out"), str(cache)],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith("ResultsError"), done.stderr
    assert "File too large" in done.stdout
    assert len(sweep_into(tmp_path / "out", cache).measurements) == 10


# From samples to columns


def test_latency_is_of_the_first_thread_count_and_throughput_of_the_last():
    samples = {f"batch_s_{place}": np.array([float(place + 1)] * 3) for place in range(12)}
    samples |= {f"single_ms_{place}": np.full((3, 8), float(place)) for place in range(12)}
    samples["single_ms_0"] = np.arange(24.0).reshape(3, 8)
    found = latency(samples)
    assert found["p50_ms"] == pytest.approx(11.5)
    assert found["p95_ms"] == pytest.approx(np.percentile(np.arange(24.0), 95))
    assert found["qps_1_thread"] == pytest.approx(8 / 1)
    assert found["qps"] == pytest.approx(8 / 12)
    assert found["first_stage_share"] == 1.0
    stages = np.array([[[1.0, 3.0], [2.0, 6.0], [1.0, 3.0]]])
    assert latency(samples | {"stage_ms": stages})["first_stage_share"] == pytest.approx(0.25)


def test_scaling_has_a_row_per_size_and_setting_from_that_sizes_own_samples(store):
    settings = [Setting(64), Setting(64, instruction="none"), Setting(32, precision="int8")]
    stores = {100: store.part(100), 1_000: store}
    for documents, one in stores.items():
        for setting in {setting.search for setting in settings}:
            ms = documents * setting.dim / 1000
            one.add_timing(
                setting,
                {
                    "single_ms_0": np.full((2, 4), ms),
                    "batch_s_0": np.full(2, ms / 10),
                    "single_ms_1": np.full((2, 4), 9.0),
                    "batch_s_1": np.full(2, ms / 20),
                },
            )
            one.save_build(
                setting.build.slug,
                {"factory": "Flat", "build_s": 1.0, "index_bytes": documents * setting.dim},
            )
    frame = derive_scaling(stores, settings)
    assert list(frame["documents"]) == [100] * 3 + [1_000] * 3
    assert list(frame["setting"]) == [setting.key for setting in settings] * 2
    np.testing.assert_allclose(frame["p50_ms"], [6.4, 6.4, 3.2, 64, 64, 32])
    np.testing.assert_allclose(frame["qps"], 4 / (frame["p50_ms"] / 20))
    assert list(frame["index_bytes"]) == [6_400, 6_400, 3_200, 64_000, 64_000, 32_000]


def test_a_sweep_over_fractions_times_each_size(cache, tmp_path):
    results = sweep_into(tmp_path / "o", cache, indexes=["Flat"], timing=TIMING | {"fractions": [0.5]})
    frame = Results.load(tmp_path / "o").scaling
    assert sorted(set(frame["documents"])) == [18, 36]
    half, whole = (frame[frame["documents"] == size]["index_bytes"].to_numpy() for size in (18, 36))
    assert list(whole - half) == [18 * 64 * 4, 18 * 256 * 4], "an index's own header is in both"
    assert not list((tmp_path / "o" / "raw").rglob("corpus.npy"))
    again = sweep_into(tmp_path / "o", cache, indexes=["Flat"], overwrite=True)
    assert len(again.measurements) == len(results.measurements)
    assert Results.load(tmp_path / "o").scaling is None
    assert not list((tmp_path / "o" / "raw").glob("*-documents"))


def test_pairs_that_are_damaged_are_compared_again(cache, tmp_path):
    first = sweep_into(tmp_path / "o", cache, data=scored_pairs(), indexes=["Flat"])
    for path in (tmp_path / "o" / "raw").glob("*.pairs.npz"):
        path.write_bytes(b"")
    with pytest.warns(ToolkitWarning, match=r"pairs\.npz is damaged"):
        again = sweep_into(tmp_path / "o", cache, data=scored_pairs(), indexes=["Flat"])
    pd.testing.assert_frame_equal(again.measurements, first.measurements)
