"""The packed engine against transformers one text at a time; packing; running out of memory."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.embedding.checkpoint import find_checkpoint
from toolkit.embedding.config import LocalConfig
from toolkit.embedding.eos_token import END_TOKEN
from toolkit.embedding.packed import DecoderShape, PackedEmbedder, supports
from toolkit.embedding.packed.frequency_cache import FrequencyCache
from toolkit.embedding.packed.packing import (
    COARSE_TOKENS,
    Pack,
    Packer,
    TokenizedTexts,
    packs,
    rounded_tokens,
)
from toolkit.embedding.packed.shape import QWEN3_SHAPES
from toolkit.errors import ModelError, PlanError

WORDS = [f"w{i}" for i in range(60)]
TEXTS = [
    "w1 w2 w3",
    "",
    " ".join(WORDS),
    "w7",
    " ".join(WORDS[::-1]) + " w1 w2 w3 w4",
    "w9 w8",
    "w9 w9",
    "w1 w2 w3",
    "unknown words only",
]


def write_tokenizer(folder, *, end_token=True):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {word: i for i, word in enumerate([END_TOKEN, "?", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if end_token:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {END_TOKEN}", special_tokens=[(END_TOKEN, 0)]
        )
    tokenizer.save(str(folder / "tokenizer.json"))


def random_model(*, seed, **sizes):
    from transformers import Qwen3Config, Qwen3Model

    torch.manual_seed(seed)
    return Qwen3Model(Qwen3Config(vocab_size=62, num_key_value_heads=2, **sizes))


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """A small random Qwen3 with grouped heads, head dimension apart from hidden / heads, uneven norms."""
    folder = tmp_path_factory.mktemp("qwen3")
    model = random_model(
        seed=3,
        hidden_size=96,
        intermediate_size=160,
        num_hidden_layers=3,
        num_attention_heads=4,
        head_dim=32,
        max_position_embeddings=128,
    )
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
        else:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def ids_of(text):
    vocabulary = {word: i for i, word in enumerate([END_TOKEN, "?", *WORDS])}
    return [vocabulary.get(word, 1) for word in text.split()] + [0]


@pytest.fixture(scope="module")
def expected(model_folder):
    from transformers import Qwen3Model

    model = Qwen3Model.from_pretrained(model_folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        states = [model(torch.tensor([ids_of(text)])).last_hidden_state[0, -1] for text in TEXTS]
    return torch.nn.functional.normalize(torch.stack(states), dim=-1).numpy()


def load(folder, device="cpu", **settings_):
    config = LocalConfig(model=str(folder), device=device, engine="packed", **settings_)
    return PackedEmbedder.load(config, find_checkpoint(config))


@pytest.mark.parametrize("batch_tokens", [None, 16, 70])
def test_same_vectors_as_transformers_one_text_at_a_time(model_folder, expected, batch_tokens):
    embedder = load(model_folder, batch_tokens=batch_tokens)
    rows = embedder.encode(TEXTS)
    cosines = (rows * expected).sum(axis=1)
    assert rows.dtype == np.float32
    assert cosines.min() >= 0.99999
    np.testing.assert_allclose(rows, expected, atol=2e-5)
    if batch_tokens is None:  # equal texts in one pack get equal rows; between packs the last bits may differ
        np.testing.assert_array_equal(rows[0], rows[7])


def test_many_texts_go_through_the_thread_and_keep_their_places(model_folder):
    embedder = load(model_folder, batch_tokens=64)
    texts = [f"w{i % 60} w{i % 7}" for i in range(200)]
    together = embedder.encode(texts)
    alone = embedder.encode(texts[:8])
    np.testing.assert_allclose(together[:8], alone, atol=1e-6)


def test_space_says_what_ran(model_folder):
    space = load(model_folder).space
    assert (space.engine, space.pooling, space.dtype, space.max_tokens) == ("packed", "last", "float32", 128)
    assert (space.full_dim, space.min_dim) == (96, 32)
    assert space.revision.startswith("sha-")
    assert space.renderer("query")("w1").startswith("Instruct: ")


def test_lower_precisions_stay_near(model_folder, expected):
    for dtype, least in (("bfloat16", 0.999), ("fp8", 0.97)):
        embedder = load(model_folder, dtype=dtype)
        assert embedder.space.dtype == dtype
        cosines = (embedder.encode(TEXTS) * expected).sum(axis=1)
        assert least <= cosines.min() < 1.0 - 1e-7


@pytest.fixture(scope="module")
def wide_heads_folder(tmp_path_factory):
    """Heads of 128 numbers and an MLP of whole tiles, as published models have; thousands of tokens."""
    folder = tmp_path_factory.mktemp("qwen3-wide")
    model = random_model(
        seed=5,
        hidden_size=256,
        intermediate_size=384,
        num_hidden_layers=2,
        num_attention_heads=8,
        head_dim=128,
        max_position_embeddings=4_096,
    )
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
        ),
        pytest.param(
            "cuda:1", marks=pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
        ),
    ],
)
def test_long_and_short_texts_together_in_16_bits(wide_heads_folder, device):
    texts = [" ".join(WORDS[i % 60] for i in range(count)) for count in (1, 2, 17, 64, 300, 1_100, 2_500)]
    exact = load(wide_heads_folder).encode(texts)
    embedder = load(wide_heads_folder, device, dtype="bfloat16", batch_tokens=8_192)
    for rows in (embedder.encode(texts), np.concatenate([embedder.encode([text]) for text in texts])):
        cosines = (rows * exact).sum(axis=1)
        assert 0.999 <= cosines.min() < 1.0 - 1e-7


def test_a_tokenizer_without_the_end_token_is_refused(model_folder, tmp_path):
    for file in model_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    write_tokenizer(tmp_path, end_token=False)
    with pytest.raises(ModelError, match="endoftext"):
        load(tmp_path)


def test_a_checkpoint_that_lacks_a_tensor_is_refused(model_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    for file in model_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["layers.1.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.up_proj"):
        load(tmp_path)


def test_texts_are_cut_and_surrogates_survive(model_folder):
    embedder = load(model_folder, max_tokens=5)
    rows = embedder.encode(["w1 w2 w3 w4 w5 w6", "w1 w2 w3 w4", "w1 \ud83d"])
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-6)
    assert embedder.encode([]).shape == (0, 96)


def test_out_of_memory_halves_the_budget_and_loses_nothing(model_folder, expected, monkeypatch):
    from toolkit.embedding.packed.decoder import Decoder

    reserve = Decoder.reserve

    room = 128

    def small_card(self, tokens):
        if tokens > room:
            raise torch.OutOfMemoryError("no room")
        reserve(self, tokens)

    monkeypatch.setattr(Decoder, "reserve", small_card)
    embedder = load(model_folder, batch_tokens=1_000)
    np.testing.assert_allclose(embedder.encode(TEXTS), expected, atol=2e-5)
    assert embedder.batch_tokens <= room
    room = 64
    with pytest.raises(ModelError, match="101 tokens alone"):
        load(model_folder, batch_tokens=16).encode([" ".join(["w1"] * 100)])


def test_settings_that_cannot_work_are_refused(model_folder):
    with pytest.raises(PlanError, match="compile needs CUDA"):
        load(model_folder, compile=True)


def test_which_models_are_supported(model_folder):
    config = json.loads((model_folder / "config.json").read_text())
    assert supports(config)
    assert DecoderShape.from_config(config).qkv_width == (4 + 2 * 2) * 32
    for change in ({"model_type": "bert"}, {"use_sliding_window": True}, {"attention_bias": True}):
        assert not supports(config | change)
    scaled = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0}
    assert not supports(config | {"rope_parameters": scaled})
    with pytest.raises(ModelError, match="sliding"):
        DecoderShape.from_config(config | {"use_sliding_window": True})


def test_work_of_the_published_shape():
    # Model card: 3.6 B non-embedding parameters.
    shape = QWEN3_SHAPES["4b"]
    assert shape.layers * shape.layer_parameters == pytest.approx(3.634e9, rel=1e-3)
    assert shape.flops([1]) == pytest.approx(2 * 3.634e9 + 4 * 36 * 4096, rel=1e-3)


@given(
    sizes=st.lists(st.integers(1, 90), min_size=1, max_size=40),
    budget=st.integers(1, 200),
    smaller=st.integers(1, 100),
)
@settings(max_examples=60, deadline=None)
def test_packs_hold_every_text_once_within_the_budget(sizes, budget, smaller):
    texts = ["x" * size for size in sizes]

    def encode(window):
        return TokenizedTexts.of([range(1, len(text) + 1) for text in window])

    made = list(packs(texts, encode, Packer(budget)))
    halves = [part for pack in made for part in pack.split(smaller)]
    for group, limit in ((made, budget), (halves, smaller)):
        assert sorted(np.concatenate([pack.positions for pack in group]).tolist()) == list(range(len(sizes)))
        for pack in group:
            assert pack.used <= limit or len(pack.lengths) == 1
            assert len(pack) == rounded_tokens(pack.used)
            tokens, position_ids, segment_starts = pack.rows
            for position, last, length in zip(pack.positions, pack.last_rows, pack.lengths, strict=True):
                assert length == sizes[position]
                first = last - length + 1
                np.testing.assert_array_equal(tokens[first : last + 1], np.arange(1, length + 1))
                np.testing.assert_array_equal(position_ids[first : last + 1], np.arange(length))
                assert (segment_starts[first : last + 1] == first).all()
            assert (segment_starts[pack.used :] == np.arange(pack.used, len(pack))).all()
            assert (position_ids[pack.used :] == 0).all()
    assert isinstance(made[0], Pack)


def test_room_goes_to_what_comes_most_often():
    dropped = []
    frequent = FrequencyCache(2, drop=dropped.append)

    def visit(key):
        return frequent.get(key, lambda: f"made for {key}")

    assert [visit("a"), visit("a"), visit("a")] == [None, "made for a", "made for a"]
    assert [visit("b"), visit("b")] == [None, "made for b"]
    assert [visit(key) for key in "cccc"] == [None] * 4
    assert not dropped
    assert visit("c") == "made for c"  # the fifth visit is more than twice the two of b
    assert dropped == ["made for b"]
    assert visit("b") is None
    frequent.clear()
    assert sorted(dropped) == ["made for a", "made for b", "made for c"]
    assert frequent.any() is None
    assert visit("a") == "made for a"


def test_packs_that_can_be_recorded_have_few_sizes():
    sizes = {rounded_tokens(count) for count in range(1, COARSE_TOKENS + 1)}
    assert len(sizes) < 60
    assert max(sizes) == COARSE_TOKENS
    assert all(count <= rounded_tokens(count) <= 1.0625 * count + 128 for count in range(1, 70_000, 7))


def test_only_the_last_pack_is_not_full(model_folder):
    embedder = load(model_folder, batch_tokens=64)
    sizes = [pack.used for pack in embedder.packs([f"w{i % 60} w1 w2" for i in range(10_000)])]
    assert sum(sizes) == 40_000
    assert sizes[:-1] == [4, 8, 16, 32, *[64] * (len(sizes) - 5)]
    assert 0 < sizes[-1] <= 64


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_recorded_pass_gives_what_the_first_one_gave(wide_heads_folder):
    embedder = load(wide_heads_folder, "cuda", dtype="bfloat16", batch_tokens=8_192)
    rng = np.random.default_rng(0)
    ids = [TokenizedTexts.of([rng.integers(1, 62, 40).tolist() for _ in range(20)]) for _ in range(5)]
    made = [Pack.of(np.arange(20) + 20 * i, texts) for i, texts in enumerate(ids)]
    first = [load(wide_heads_folder, "cuda", dtype="bfloat16").stream_packs([pack]) for pack in made]
    expected = {int(places[0]): rows for blocks in first for places, rows in blocks}
    for _ in range(2):  # all of one size, so each pass after the second uses the memory of the one before
        found = {int(places[0]): rows for places, rows in list(embedder.stream_packs(made))}
        assert found.keys() == expected.keys()
        for place, rows in expected.items():
            np.testing.assert_array_equal(found[place], rows)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_one_thread_may_record_a_pass_that_another_ran_first(wide_heads_folder):
    embedder = load(wide_heads_folder, "cuda", dtype="bfloat16", batch_tokens=8_192)
    text = " ".join(WORDS[i % 60] for i in range(300))
    first = embedder.encode([text] * 3)
    with ThreadPoolExecutor(1) as other:
        for _ in range(3):
            np.testing.assert_array_equal(other.submit(embedder.encode, [text] * 3).result(), first)
