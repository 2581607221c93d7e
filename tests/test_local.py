"""Models on this machine: what their files state is what the space says, and bad ones are refused."""

from __future__ import annotations

import shutil
import subprocess
import sys

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

from tests.models import (
    END_TOKEN,
    make_bert,
    make_hub_cache,
    make_qwen3,
    make_sentence_transformer,
    make_static,
)
from toolkit.embedding.checkpoint import find_checkpoint
from toolkit.embedding.config import LocalConfig, parse_spec
from toolkit.embedding.model_families import family_of
from toolkit.embedding.open import open_embedder
from toolkit.errors import ModelError, PlanError
from toolkit.space import QWEN3_DEFAULT_TASK, QWEN3_PROMPTS, Role

SENTENCES = ["the cat and the dog", "sun", "rain on a tree in the sun", "", "dog dog dog"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return make_bert(tmp_path_factory.mktemp("models") / "tiny-bert")


@pytest.fixture(scope="module")
def cls_model(tmp_path_factory):
    return make_sentence_transformer(tmp_path_factory.mktemp("models") / "tiny-cls")


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory):
    return make_qwen3(tmp_path_factory.mktemp("models") / "tiny-qwen3", chat_template=True)


def opened(folder, **settings):
    return open_embedder(LocalConfig(model=str(folder), **settings))


def opened_qwen3(folder, **settings):
    return opened(folder, engine="sentence-transformers", **settings)


def test_vectors_are_sentence_transformers_own(cls_model):
    expected = SentenceTransformer(str(cls_model), device="cpu").encode(SENTENCES, normalize_embeddings=True)
    np.testing.assert_allclose(opened(cls_model).encode(SENTENCES), expected, atol=1e-6)


def test_a_plain_transformers_folder_is_mean_pooled(bert):
    tokenizer, model = AutoTokenizer.from_pretrained(bert), AutoModel.from_pretrained(bert)
    rows = []
    for text in SENTENCES:
        with torch.inference_mode():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        rows.append(torch.nn.functional.normalize(states.mean(0), dim=0).numpy())
    embedder = opened(bert)
    np.testing.assert_allclose(embedder.encode(SENTENCES), np.stack(rows), atol=1e-6)
    assert embedder.space.pooling == "mean"


def test_qwen3_is_the_state_of_the_end_token_one_text_at_a_time(qwen3):
    tokenizer, model = AutoTokenizer.from_pretrained(qwen3), AutoModel.from_pretrained(qwen3)
    rows = []
    for text in SENTENCES:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        assert ids[0, -1] == tokenizer.convert_tokens_to_ids(END_TOKEN)
        with torch.inference_mode():
            rows.append(torch.nn.functional.normalize(model(ids).last_hidden_state[0, -1], dim=0).numpy())
    # A chat template in the tokenizer must not turn texts into chat messages.
    np.testing.assert_allclose(opened_qwen3(qwen3).encode(SENTENCES), np.stack(rows), atol=2e-6)


def test_qwen3_space(qwen3):
    space = opened_qwen3(qwen3).space
    assert (space.pooling, space.full_dim, space.min_dim, space.max_tokens) == ("last", 64, 32, 512)
    assert space.prompts == QWEN3_PROMPTS
    assert space.render("hi", Role.QUERY) == f"Instruct: {QWEN3_DEFAULT_TASK}\nQuery:hi"
    assert space.render("hi", Role.DOCUMENT, "ignored") == "hi"


@pytest.mark.parametrize("engine", ["auto", "sentence-transformers"])
def test_qwen3_without_its_end_token_is_refused(tmp_path, engine):
    folder = make_qwen3(tmp_path / "no-end", append_end_token=False)
    with pytest.raises(ModelError, match=r"151643") as refusal:
        opened(folder, engine=engine)
    assert "\n" not in str(refusal.value)


def test_the_engine_is_reported(bert, qwen3):
    assert opened(bert).space.engine == "sentence-transformers"
    assert opened_qwen3(qwen3).space.engine == "sentence-transformers"
    assert opened(qwen3).space.engine == "packed"


def test_both_engines_agree(qwen3):
    packed, reference = opened(qwen3), opened_qwen3(qwen3)
    np.testing.assert_allclose(packed.encode(SENTENCES), reference.encode(SENTENCES), atol=2e-6)
    assert packed.space.full_dim == reference.space.full_dim
    assert packed.space.fingerprint != reference.space.fingerprint


def test_a_decoder_with_more_than_pooling_is_not_packed(tmp_path):
    folder = make_qwen3(tmp_path / "dense")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(PlanError, match="cannot run dense"):
        opened(folder, engine="packed")


def test_the_files_decide_the_space(cls_model):
    space = opened(cls_model).space
    assert (space.model, space.pooling, space.max_tokens) == ("tiny-cls", "cls", 48)
    assert (space.full_dim, space.min_dim, space.matryoshka) == (32, 32, False)
    assert space.revision.startswith("sha-")


@pytest.mark.parametrize(
    ("stated", "min_dim"),
    [({"matryoshka_dims": [32, 16, 8]}, 8), ({"truncate_dim": 16}, 16), ({}, 32)],
)
def test_a_stated_matryoshka_minimum_counts_and_never_cuts(tmp_path, stated, min_dim):
    embedder = opened(make_sentence_transformer(tmp_path / "m", **stated))
    assert (embedder.space.min_dim, embedder.space.full_dim) == (min_dim, 32)
    assert embedder.encode(["cat"]).shape == (1, 32)


def test_prompts_of_the_settings_file(tmp_path):
    prompts = {"query": "query: ", "passage": "passage: ", "sts": "other: "}
    space = opened(make_sentence_transformer(tmp_path / "e", prompts=prompts)).space
    assert space.render("x", Role.QUERY) == "query: x"
    assert space.render("x", Role.DOCUMENT) == "passage: x"


@pytest.mark.parametrize("gap", ["", " "])
def test_an_instruct_prompt_becomes_a_template(tmp_path, gap):
    prompts = {"query": f"Instruct: Find it\nQuery:{gap}", "document": ""}
    space = opened(make_sentence_transformer(tmp_path / "i", prompts=prompts)).space
    assert space.render("x", Role.QUERY) == f"Instruct: Find it\nQuery:{gap}x"
    assert space.render("x", Role.QUERY, "Else") == f"Instruct: Else\nQuery:{gap}x"
    assert space.render("x", Role.QUERY, "") == "x"


def test_a_model_without_a_transformer_cuts_nothing(tmp_path):
    embedder = opened(make_static(tmp_path / "static"))
    assert (embedder.space.max_tokens, embedder.space.pooling, embedder.space.full_dim) == (0, "mean", 24)
    rows = embedder.encode(["cat " * 500, "cat " * 500 + "dog"])
    assert 0.99 < float(rows[0] @ rows[1]) < 1 - 1e-7


def test_changed_weights_change_the_fingerprint(tmp_path):
    folder = make_bert(tmp_path / "b")
    before = find_checkpoint(LocalConfig(model=str(folder))).revision
    (folder / "README.md").write_text("a note changes no vector")
    assert find_checkpoint(LocalConfig(model=str(folder))).revision == before
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert find_checkpoint(LocalConfig(model=str(folder))).revision != before


def test_max_tokens_cuts_and_is_part_of_the_space(bert):
    short, usual = opened(bert, max_tokens=4), opened(bert)
    np.testing.assert_allclose(short.encode(["cat dog"]), short.encode(["cat dog sun rain"]), atol=1e-6)
    assert np.abs(usual.encode(["cat dog"]) - usual.encode(["cat dog sun rain"])).max() > 1e-3
    assert short.space.fingerprint != usual.space.fingerprint


def test_batches_hold_a_token_budget_and_the_longest_come_first(bert):
    texts = [" ".join(["cat"] * length) for length in (1, 30, 2, 28, 3, 29)]
    blocks = list(opened(bert, batch_tokens=64).stream(texts))
    for positions, _ in blocks:
        # Five words cost a token each, and every text is framed by two more.
        assert max(len(texts[i].split()) + 2 for i in positions) * len(positions) <= 64
    assert 1 in blocks[0][0]


def test_out_of_memory_halves_the_batch_and_loses_nothing(bert):
    embedder = opened(bert, batch_tokens=64)
    expected = embedder.encode(SENTENCES)
    forward = embedder._forward

    def small_device(features):
        if len(features["input_ids"]) > 2:
            raise torch.OutOfMemoryError
        return forward(features)

    embedder._forward = small_device
    np.testing.assert_allclose(embedder.encode(SENTENCES), expected, atol=2e-6)
    assert embedder.batch_tokens < 64


def test_a_link_to_a_folder_has_its_own_name_and_the_folders_revision(tmp_path, cls_model):
    stored = tmp_path / "package" / "model"
    shutil.copytree(cls_model, stored)
    link = tmp_path / "all-tiny-v2"
    link.symlink_to(stored, target_is_directory=True)
    direct, linked = (find_checkpoint(LocalConfig(model=str(folder))) for folder in (stored, link))
    assert (direct.name, linked.name) == ("package/model", "all-tiny-v2")
    assert direct.revision == linked.revision


def test_a_hub_id_resolves_to_its_commit_offline(tmp_path, cls_model, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = make_hub_cache(tmp_path, cls_model, repo="someone/tiny", commit=commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    by_id = open_embedder("local:someone/tiny").space
    assert (by_id.model, by_id.revision) == ("someone/tiny", commit)
    # The same files given as a folder are the same space: nothing is encoded twice.
    assert opened(snapshot).space.fingerprint == by_id.fingerprint
    with pytest.raises(ModelError, match=r"'v9'.*HF_HUB_OFFLINE"):
        opened("someone/tiny", revision="v9")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("nobody/nothing", r"'nobody/nothing'.*HF_HUB_OFFLINE is set.*local:<folder>"),
        ("/no/such/folder", r"/no/such/folder does not exist"),
        ("./nor/this", r"does not exist"),
        ("a b", r"'a b' is neither a folder nor a hub id"),
    ],
)
def test_a_model_that_is_not_there_is_one_clear_line(model, said):
    with pytest.raises(ModelError, match=said) as refusal:
        opened(model)
    assert "\n" not in str(refusal.value)


def test_folders_that_hold_no_usable_model(tmp_path, bert):
    with pytest.raises(ModelError, match=r"neither config\.json nor modules\.json"):
        opened(tmp_path)
    broken = make_bert(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match="cannot be loaded"):
        opened(broken)
    (broken / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json cannot be read"):
        opened(broken)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dtype": "fp8", "engine": "sentence-transformers"}, "fp8.*packed engine"),
        ({"dtype": "fp8"}, "fp8.*packed engine"),
        ({"compile": True}, "compile.*packed engine"),
        ({"engine": "packed"}, "cannot run tiny-bert"),
        ({"max_tokens": 65}, "65 exceeds the 64 positions.*2..64"),
        ({"device": "abacus"}, "unknown device 'abacus'"),
        ({"device": "cuda:99"}, "'cuda:99' is not there"),
        ({"dtype": "int4"}, "dtype='int4'"),
        ({"max_token": 9}, "did you mean 'max_tokens'"),
    ],
)
def test_settings_that_cannot_work_together(bert, settings, said):
    with pytest.raises(PlanError, match=said) as refusal:
        open_embedder(f"local:{bert}", **settings)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("statik", "did you mean 'static'"),
        ("loca:x/y", "did you mean 'local:x/y'"),
        ("Qwen/Qwen3-Embedding-4B", "did you mean 'local:Qwen/Qwen3-Embedding-4B'"),
        ("localhost:8000/v1#m", "did you mean 'http://localhost:8000/v1#m'"),
        ("http://localhost:8000/v1", "names no model"),
        ("http://localhost:port/v1#m", "base_url"),
        ("zzz", "static, local:<hub id or folder>, http"),
    ],
)
def test_unknown_specs_propose_a_known_one(spec, said):
    with pytest.raises(PlanError, match=said):
        parse_spec(spec)


def test_an_open_embedder_passes_through(bert):
    embedder = opened(bert)
    assert open_embedder(embedder) is embedder
    with pytest.raises(PlanError, match="already open"):
        open_embedder(embedder, max_tokens=9)
    with pytest.raises(PlanError, match="int is not an embedder"):
        open_embedder(3)


@pytest.mark.parametrize(
    ("name", "min_dim"),
    [
        ("Qwen/Qwen3-Embedding-0.6B", 32),
        ("nomic-ai/nomic-embed-text-v1.5", 64),
        ("Snowflake/snowflake-arctic-embed-m-v2.0", 256),
        ("intfloat/multilingual-e5-large", None),
    ],
)
def test_known_families(name, min_dim):
    assert family_of(name).min_dim == min_dim


def test_unknown_families():
    assert family_of("someone/else") is None
    assert family_of("intfloat/multilingual-e5-large-instruct") is None


@pytest.mark.filterwarnings("ignore:dtype bfloat16 on a processor without:toolkit.errors.ModelWarning")
def test_bfloat16_stays_close(bert):
    exact, rounded = opened(bert).encode(SENTENCES), opened(bert, dtype="bfloat16").encode(SENTENCES)
    assert rounded.dtype == np.float32
    assert np.einsum("ij,ij->i", exact, rounded).min() > 0.99


def test_loading_prints_nothing(bert):
    code = f"from toolkit.embedding.open import open_embedder; open_embedder('local:{bert}').encode(['cat'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
