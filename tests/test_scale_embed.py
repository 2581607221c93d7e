"""A corpus of any size becomes shards: every text once, nothing twice, and a sweep takes them as they are."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

import toolkit
from toolkit.data.corpus_parts import corpus_parts, part_texts
from toolkit.embedding.cache import VectorCache, text_keys
from toolkit.embedding.fill import Filler
from toolkit.embedding.pipeline import embed_texts
from toolkit.errors import CacheWarning, DataError, PlanError, ResultsError
from toolkit.scale.corpus import embed_corpus
from toolkit.space import Role

DOCUMENTS = [
    {"_id": str(i), "title": f"Title {i}", "text": f"about topic {i * 7 % 101}\u2028 and {i}"}
    for i in range(200)
]
TEXTS = [f"{one['title']} {one['text']}" for one in DOCUMENTS]


@pytest.fixture(scope="module")
def engine():
    with toolkit.open_embedder("static") as opened:
        yield opened


def written(folder, kind):
    frame = pd.DataFrame(DOCUMENTS)
    lines = "".join(json.dumps(one) + "\n" for one in DOCUMENTS)
    if kind == "beir":
        (folder / "corpus.jsonl").write_text(lines)
        return folder
    path = folder / f"docs.{kind}"
    if kind == "jsonl.gz":
        path.write_bytes(gzip.compress(lines.encode()))
    elif kind == "jsonl":
        path.write_bytes(b"\xef\xbb\xbf" + lines.replace("\n", "\r\n").encode().removesuffix(b"\r\n"))
    elif kind == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, row_group_size=30)
    return path


@pytest.mark.parametrize("kind", ["beir", "jsonl", "jsonl.gz", "csv", "parquet"])
@pytest.mark.parametrize("part_bytes", [64, 1_000, 10**9])
def test_parts_hold_every_text_once_and_in_order(tmp_path, kind, part_bytes):
    parts = corpus_parts(written(tmp_path, kind), part_bytes=part_bytes)
    assert [text for part in parts for text in part_texts(part)] == TEXTS
    assert len(parts) > 1 or part_bytes == 10**9 or kind in ("csv", "jsonl.gz")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "x"}\n{"txt": "y"}\n', "byte 14"),
        ("a.csv", "id,body\n1,x\n", "needs text"),
        ("a.parquet", "no parquet", "cannot be read as parquet"),
    ],
)
def test_a_corpus_that_cannot_be_read_says_where(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        [list(part_texts(part)) for part in corpus_parts(tmp_path / name)]


def test_shards_are_what_a_sweep_would_have_kept(tmp_path, engine):
    done = embed_corpus(engine, written(tmp_path, "beir"), tmp_path / "out", progress=False)
    assert (done.texts, done.encoded) == (200, 200)

    class Closed:
        space = engine.space

        def stream(self, texts):
            raise AssertionError(f"{len(texts)} texts were encoded again")

    cache = VectorCache(tmp_path / "out")
    found = embed_texts(Closed(), TEXTS, role=Role.DOCUMENT, cache=cache, progress=False)
    assert np.array_equal(found.rows, toolkit.embed(engine, TEXTS, progress=False))
    again = embed_corpus(engine, tmp_path, tmp_path / "out", progress=False)
    assert (again.texts, again.encoded) == (200, 0)


def test_a_shard_cut_short_behind_the_index_of_keys_is_made_again(tmp_path, engine):
    corpus, out = written(tmp_path, "jsonl"), tmp_path / "out"
    texts = [f"text {i}" for i in range(5_000)]  # enough for an index of keys on disk
    corpus.write_text("".join(json.dumps({"_id": text, "text": text}) + "\n" for text in texts))
    embed_corpus(engine, corpus, out, progress=False)
    [shard] = out.glob("*/*.safetensors")
    VectorCache(out).for_space(engine.space)
    assert (shard.parent / "keys.index").is_file()
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.warns(CacheWarning, match="damaged"):
        done = embed_corpus(engine, corpus, out, progress=False)
    assert done.encoded == len(texts)
    rows = np.zeros((len(texts), 256), np.float32)
    there = VectorCache(out).for_space(engine.space)
    assert there.read(text_keys(texts), rows, np.arange(len(texts))) == []


def test_what_an_engine_made_before_it_failed_is_kept(tmp_path, engine):
    class Breaks:
        space = engine.space

        def stream(self, texts):
            yield np.arange(50), engine.encode(texts[:50])
            raise RuntimeError("the device fell off")

    with pytest.raises(RuntimeError, match="fell off"):
        Filler(Breaks(), VectorCache(tmp_path)).fill(TEXTS)
    done = Filler(engine, VectorCache(tmp_path)).fill(TEXTS + TEXTS)
    assert (done.texts, done.encoded) == (400, 150)


def test_a_folder_that_refuses_shards_is_an_error_and_not_a_warning(tmp_path, engine, monkeypatch):
    def refused(path, payload):
        if path.suffix == ".safetensors":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("toolkit.embedding.cache.write_atomically", refused)
    with pytest.raises(ResultsError, match=r"No space left.*finished shards are kept"):
        Filler(engine, VectorCache(tmp_path)).fill(TEXTS)
    with pytest.warns(CacheWarning, match="No space left"):
        embed_texts(engine, TEXTS[:3], role=Role.DOCUMENT, cache=VectorCache(tmp_path), progress=False)


def test_an_instruction_on_documents_is_refused(tmp_path, engine):
    with pytest.raises(PlanError, match="no effect on documents"):
        embed_corpus(
            engine, written(tmp_path, "csv"), tmp_path / "out", instruction="Find code", progress=False
        )


def test_a_killed_run_goes_on_from_its_shards(tmp_path):
    lines = [json.dumps({"text": f"line {i} " + "word " * 40}) for i in range(150_000)]
    (tmp_path / "c.jsonl").write_text("\n".join(lines))
    command = [sys.executable, "-m", "toolkit", "embed", "c.jsonl", "--out", "out"]
    run = subprocess.Popen(command, cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"})
    until = time.monotonic() + 60
    while (
        not list((tmp_path / "out").glob("*/*.safetensors"))
        and time.monotonic() < until
        and run.poll() is None
    ):
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    space = toolkit.open_embedder("static").space
    kept = len(VectorCache(tmp_path / "out").for_space(space))
    assert 0 < kept < 150_000
    # Enough to see it, without encoding all the rest.
    (tmp_path / "c.jsonl").write_text("\n".join([*lines[: kept + 100]]))
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    report = json.loads((tmp_path / "out" / "embedded.json").read_text())
    there = VectorCache(tmp_path / "out").for_space(space)
    assert not there.missing(text_keys([json.loads(line)["text"] for line in lines[: kept + 100]]))
    assert report["encoded"] < kept
    assert f"{kept + 100:,} texts, {report['encoded']:,} of them encoded now" in done.stdout
