"""Claims: each verdict on data made so that the right one is known; the command, its files, and a real server."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tests.test_doctor import command
from toolkit.claims import Claims, measure_claims, run, server, speed
from toolkit.claims.bench import Bench
from toolkit.claims.claim import FAILS, HOLDS, OPEN
from toolkit.claims.meaning import by_cluster
from toolkit.claims.run import ALL
from toolkit.errors import PlanError, ResultsError
from toolkit.space import QWEN3_PROMPTS, EmbeddingSpace
from toolkit.vectors import normalize

SMALL = {"most": 60, "repeats": 10, "progress": False}


@pytest.fixture(autouse=True)
def _short_rest(monkeypatch):
    monkeypatch.setattr(run, "_REST_S", 0.01)


class Words:
    """Vectors of the words in a text; with a task in front, only words after `Query:` count."""

    def __init__(self, full_dim=2560, *, noise=0.0, prompts=QWEN3_PROMPTS, heed=True):
        self.space = EmbeddingSpace(
            f"words-{noise}-{heed}", "1", "test", "float32", "mean", 0, full_dim, 32, prompts=prompts
        )
        self._noise, self._heed = noise, heed

    def encode(self, texts):
        rows = np.zeros((len(texts), self.space.full_dim))
        for row, text in zip(rows, texts, strict=True):
            asked = text.rpartition("Query:")[2]
            for word in (asked if self._heed else text).split():
                rng = np.random.default_rng(int.from_bytes(word.encode()[:8], "little"))
                row += rng.standard_normal(self.space.full_dim)
        return normalize(rows)


def verdict(key, embedder="static", **options):
    return measure_claims(embedder, only=[key], **(SMALL | options))[key]


def write_beir(folder, docs, queries, gains):
    (folder / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", docs), ("queries", queries)):
        lines = [json.dumps({"_id": i, "text": text}) for i, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    lines = ["query-id\tcorpus-id\tscore", *(f"{q}\t{d}\t{gain}" for q, d, gain in gains)]
    (folder / "qrels" / "test.tsv").write_text("\n".join(lines))


def test_the_command_decides_what_it_can_and_says_what_would_decide_the_rest(tmp_path):
    code, out, err = command("claims", "--most", "40", "--repeats", "10", "--out", str(tmp_path))
    assert code == 0, err
    entries = json.loads((tmp_path / "claims.json").read_text())["claims"]
    assert [one["key"] for one in entries] == [claim.key for claim in ALL]
    for one in entries:
        assert one["verdict"] in (HOLDS, FAILS, OPEN)
        assert one["command"].startswith(f"toolkit claims --only {one['key']}")
        assert one["figure"] or one["why"]
        if one["verdict"] == OPEN:
            assert one["why"]
    found = {one["key"]: one["verdict"] for one in entries}
    assert found["storage-saved"] == found["sdk-instruction"] == found["not-truncation"] == FAILS
    assert found["unit-norm"] == HOLDS
    assert found["p99-at-128"] == found["cross-lingual"] == OPEN
    page = (tmp_path / "claims.html").read_text()
    assert all(f'id="{one["key"]}"' in page for one in entries)
    assert f"page: {tmp_path / 'claims.html'}" in out


def test_range_and_default_of_the_claimed_model():
    assert verdict("dimension-range", Words(2560)).verdict == HOLDS
    found = verdict("default-dimension", Words(2560))
    assert (found.verdict, found.figure) == (FAILS, "2,560 numbers")
    assert verdict("default-dimension", Words(128)).verdict == OPEN


def test_storage_is_that_of_the_bytes():
    saved = verdict("storage-saved").measured["saved_percent_against_1024"]
    assert saved == {32: 96.875, 128: 87.5, 1024: 0.0, 2048: -100.0}


def test_another_cut_than_the_prefix_is_found(monkeypatch):
    from toolkit.claims import vectors

    def shifted(bench, texts, dims):
        rows = bench.rows(texts).rows
        return {dim: normalize(rows[:, 1 : dim + 1]) for dim in dims}, "a cut that skips a number"

    assert verdict("not-truncation").verdict == FAILS
    monkeypatch.setattr(vectors, "_cut_elsewhere", shifted)
    assert verdict("not-truncation").verdict == HOLDS


@pytest.mark.parametrize("dependent", [False, True])
def test_a_latency_that_depends_on_the_dimension_is_found(monkeypatch, dependent):
    def latency(embedder, dims, *, count):
        rng = np.random.default_rng(0)
        return {dim: tuple(20 + (dim > 32) * 9 * dependent + rng.random(count)) for dim in dims}

    monkeypatch.setattr(speed, "measure_latency", latency)
    found = verdict("dimension-latency", Words(2560))
    assert found.verdict == (FAILS if dependent else HOLDS)
    assert found.interval[0] < found.interval[1]
    other = verdict("dimension-latency", Words(64))
    assert other.verdict == OPEN
    assert other.figure


def test_translations_are_ranked_and_bare_cosines_stand_beside(tmp_path):
    (tmp_path / "tatoeba").mkdir()
    lines = [f"w{i} x{i} common\tw{i} y{i} common" for i in range(60)]
    (tmp_path / "tatoeba" / "deu-eng.tsv").write_text("\n".join(["deu\teng", *lines]))
    assert verdict("cross-lingual", Words(256), data=tmp_path).verdict == OPEN
    found = verdict("cross-lingual", Words(2560), data=tmp_path)
    full = found.measured["2560"]
    assert full["accuracy"] == 1.0
    assert full["cosine_of_translations"] > full["cosine_of_strangers"] > 0
    assert found.measured["32"]["accuracy"] < 1.0
    assert found.verdict != OPEN or found.command.endswith("--most 0")


def test_a_data_set_of_products_is_ranked_among_its_rated_ones(tmp_path):
    docs = {f"d{i}": f"w{i} w{i} type{i % 5}" for i in range(60)}
    queries = {f"q{i}": f"w{i}" for i in range(60)}
    gains = [(f"q{i}", f"d{j % 60}", 3 if i == j else 0) for i in range(60) for j in range(i, i + 6)]
    write_beir(tmp_path / "icecat_chorus", docs, queries, gains)
    found = verdict("scenario-products", Words(2560), data=tmp_path)
    assert "icecat_chorus" in found.figure
    # Six rated products each, told apart by any dimension: far fewer than 256 keep the quality.
    assert set(found.measured["icecat_chorus"]) == {"32", "64", "128", "256", "512", "1024", "2048"}
    assert found.measured["icecat_chorus"]["128"]["kept"] > 0.99
    assert verdict("scenario-products").verdict == OPEN


def test_the_lift_of_an_instruction_is_paired_and_needs_a_model_that_takes_one(tmp_path):
    docs = {f"d{i}": f"w{i} law" for i in range(60)}
    queries = {f"q{i}": f"w{i}" for i in range(60)}
    write_beir(tmp_path / "stard_goldpool", docs, queries, [(f"q{i}", f"d{i}", 1) for i in range(60)])
    untrained = verdict("instruction-lift", data=tmp_path)
    assert untrained.verdict == OPEN
    assert "recall@10" in untrained.figure
    heeds = verdict("instruction-lift", Words(2560), data=tmp_path)
    assert heeds.verdict == FAILS
    assert heeds.measured["stard_goldpool"]["lift"] == 0.0
    drowned = verdict("instruction-lift", Words(32, heed=False), data=tmp_path)
    assert drowned.measured["stard_goldpool"]["lift"] < 0


def test_queries_of_one_cluster_are_one_unit():
    values = np.array([1.0, 0.0, 1.0, 1.0])
    means = by_cluster(values, ["a", "b", "c", "d"], {"a": "p", "b": "p"})
    assert means.tolist() == [0.5, 1.0, 1.0]


def test_unknown_keys_and_folders_are_named(tmp_path):
    with pytest.raises(PlanError, match="did you mean storage-saved"):
        measure_claims(only=["storage-save"], **SMALL)
    with pytest.raises(PlanError, match="is not a folder"):
        measure_claims(data=tmp_path / "none", **SMALL)
    with pytest.raises(PlanError, match="is not a server"):
        measure_claims(server="static", **SMALL)


def test_the_claimed_model_is_known_by_dimension_and_template():
    assert Bench("x", Words(2560)).is_subject
    other = Words(2560)
    other.space = replace(other.space, prompts=type(QWEN3_PROMPTS)())
    assert not Bench("x", other).is_subject


def test_the_page_escapes_what_others_wrote(tmp_path):
    embedder = Words(64)
    embedder.space = replace(embedder.space, model="<script>alert(1)</script>")
    claims = measure_claims(embedder, only=["default-dimension"], out=tmp_path, **SMALL)
    for html in ((tmp_path / "claims.html").read_text(), claims._repr_html_()):
        assert "<script>alert" not in html
    assert claims.frame().loc["default-dimension", "verdict"] == OPEN


def test_what_is_claimed_of_servers_is_measured_on_one_of_this_package(monkeypatch):
    monkeypatch.setattr(server, "_ROUNDS", 2)
    keys = ["dimension-range", "default-dimension", "dimension-latency", "batch-spread", "p99-at-128"]
    claims = measure_claims(Words(64), serve=True, only=[*keys, "server-interfaces"], **SMALL)
    assert claims["dimension-range"].figure == "33 of 33 whole numbers 32..64 give unit vectors"
    assert claims["default-dimension"].figure == "64 numbers"
    for key in keys:
        assert claims[key].verdict == OPEN, key  # another model than the one the claims are about
        assert "toolkit serve with words" in claims[key].sample
        assert "--embedder local:Qwen/Qwen3-Embedding-4B" in claims[key].command
    load = claims["p99-at-128"].measured
    assert load["clients"] == 128
    assert load["requests"] == 128 * 16
    assert claims["p99-at-128"].interval[0] <= load["p99_ms"] <= claims["p99-at-128"].interval[1]
    assert claims["batch-spread"].measured["p50_ms_of_64_texts"] > 0
    assert "says that it is another" in claims["server-interfaces"].why


def test_a_server_of_the_claimed_dimension_decides(monkeypatch):
    monkeypatch.setattr(server, "_ROUNDS", 3)
    claims = measure_claims(Words(2560), serve=True, only=["default-dimension", "batch-spread"], **SMALL)
    assert claims["default-dimension"].verdict == FAILS
    assert claims["batch-spread"].verdict == FAILS  # 64 texts one after another take far longer than one
    with pytest.raises(PlanError, match="two servers"):
        measure_claims(serve=True, server="http://127.0.0.1:1/v1#m", **SMALL)


def test_a_later_run_of_some_claims_leaves_the_others(tmp_path):
    measure_claims(Words(64), only=["storage-saved", "unit-norm"], out=tmp_path, **SMALL)
    measure_claims(Words(128), only=["unit-norm", "default-dimension"], out=tmp_path, **SMALL)
    found = Claims.load(tmp_path / "claims.json")
    assert [one.key for one in found.outcomes] == ["default-dimension", "unit-norm", "storage-saved"]
    assert found["default-dimension"].figure == "128 numbers"
    assert set(found.runs) == {one.measured_at for one in found.outcomes}
    page = (tmp_path / "claims.html").read_text()
    assert all(f'id="{one.key}"' in page for one in found.outcomes)
    (tmp_path / "claims.json").write_text("[]")
    with pytest.raises(ResultsError, match="no claims of this version"):
        measure_claims(Words(64), only=["unit-norm"], out=tmp_path, **SMALL)


def test_figures_timed_on_a_busy_machine_are_marked_with_one_command_for_all(tmp_path, monkeypatch):
    class Busy:
        def facts(self):
            return {"cores_used_by_others": 99.0}

    with monkeypatch.context() as patched:
        patched.setattr(run, "HostLoad", Busy)
        keys = ["dimension-latency", "batch-spread", "unit-norm"]
        claims = measure_claims("static", only=keys, out=tmp_path, **SMALL)
    assert [one.run_again for one in claims.outcomes] == [False, True, True]
    assert claims.again == (
        f"toolkit claims --only dimension-latency,batch-spread --embedder static --out {tmp_path}"
    )
    assert claims.again in str(claims)
    assert "to be run again: others used 99.0 cores" in (tmp_path / "claims.html").read_text()
    assert json.loads((tmp_path / "claims.json").read_text())["run_again"] == claims.again
    # On an idle machine the mark goes.
    monkeypatch.setattr(run, "usable_cores", lambda: 1e9)
    again = measure_claims("static", only=["dimension-latency", "batch-spread"], out=tmp_path, **SMALL)
    assert again.again == ""


def test_names_are_looked_for_in_the_source_of_sglang(tmp_path, monkeypatch):
    assert verdict("sglang-names").verdict == OPEN
    (tmp_path / "sglang" / "srt").mkdir(parents=True)
    (tmp_path / "sglang" / "__init__.py").write_text("raise RuntimeError('is not to be run')")
    source = tmp_path / "sglang" / "srt" / "server.py"
    source.write_text("is_matryoshka = True")
    monkeypatch.syspath_prepend(tmp_path)
    assert verdict("sglang-names").verdict == FAILS
    source.write_text("SGLANG_ENABLE_CUSTOM_DIM = custom_dim_range")
    assert verdict("sglang-names").verdict == HOLDS
