"""What cannot be verified is refused by name: tensors, stored forms, settings that no engine follows."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from tests.models import bert_tokenizer, make_bert, make_qwen3, make_sentence_transformer
from toolkit.embedding import local
from toolkit.embedding.checkpoint import find_checkpoint
from toolkit.embedding.config import LocalConfig
from toolkit.embedding.model_families import family_of
from toolkit.embedding.open import open_embedder
from toolkit.errors import ModelError, ModelWarning


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    return {
        "bert": make_bert(folder / "bert"),
        "qwen3": make_qwen3(folder / "qwen3"),
        "cls": make_sentence_transformer(folder / "cls"),
    }


@pytest.fixture
def copy_of(originals, tmp_path):
    def copied(name):
        return shutil.copytree(originals[name], tmp_path / name)

    return copied


def opened(folder, **settings):
    return open_embedder(LocalConfig(model=str(folder), **settings))


def with_tensors(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})
    return folder


def with_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_missing_tensor_is_refused_by_name_instead_of_filled_with_random_numbers(copy_of):
    folder = with_tensors(copy_of("bert"), lambda t: t.pop("encoder.layer.1.output.dense.weight"))
    with pytest.raises(ModelError, match=r"lacks the tensor encoder\.layer\.1\.output\.dense\.weight"):
        opened(folder)


def test_a_tensor_within_a_part_that_the_model_has_is_refused_by_name(copy_of):
    folder = with_tensors(
        copy_of("bert"), lambda t: t.update({"encoder.layer.2.output.dense.weight": torch.ones(2, 2)})
    )
    with pytest.raises(ModelError, match=r"encoder\.layer\.2\.output\.dense\.weight.*does not read"):
        opened(folder)


def test_heads_and_poolers_change_no_vector_and_may_be_there_or_not(copy_of, tmp_path):
    plain = opened(copy_of("bert")).encode(["cat dog"])
    shutil.rmtree(tmp_path / "bert")

    def other_head(tensors):
        for name in [name for name in tensors if name.startswith("pooler.")]:
            del tensors[name]
        tensors["cls.predictions.bias"] = torch.ones(3)
        tensors["embeddings.position_ids"] = torch.arange(48)[None]

    np.testing.assert_array_equal(
        opened(with_tensors(copy_of("bert"), other_head)).encode(["cat dog"]), plain
    )


@pytest.mark.parametrize("engine", ["packed", "sentence-transformers"])
def test_a_quantized_checkpoint_is_refused_with_its_method(copy_of, engine):
    folder = copy_of("qwen3")
    with_json(folder / "config.json", quantization_config={"quant_method": "awq", "bits": 4})
    with pytest.raises(ModelError, match=r"quantized \(awq\)"):
        opened(folder, engine=engine)


def test_the_packed_engine_refuses_scales_and_eight_bit_tensors_that_no_config_mentions(copy_of):
    def scaled(tensors):
        tensors["layers.0.mlp.up_proj.weight_scale_inv"] = torch.ones(1, 1)

    folder = with_tensors(copy_of("qwen3"), scaled)
    with pytest.raises(ModelError, match=r"weight_scale_inv"):
        opened(folder, engine="packed")

    def eight_bits(tensors):
        del tensors["layers.0.mlp.up_proj.weight_scale_inv"]
        name = "layers.0.mlp.up_proj.weight"
        tensors[name] = tensors[name].to(torch.float8_e4m3fn)

    with pytest.raises(ModelError, match=r"up_proj\.weight' is stored as float8_e4m3fn"):
        opened(with_tensors(folder, eight_bits), engine="packed")


def test_the_packed_engine_reads_a_causal_language_models_checkpoint(copy_of, tmp_path):
    expected = opened(copy_of("qwen3"), engine="packed").encode(["a b"])
    folder = tmp_path / "qwen3"

    def with_head(tensors):
        for name in list(tensors):
            tensors[f"model.{name}"] = tensors.pop(name)
        tensors["lm_head.weight"] = torch.ones(2, 2)

    np.testing.assert_array_equal(
        opened(with_tensors(folder, with_head), engine="packed").encode(["a b"]), expected
    )


@pytest.mark.parametrize("prompts", [{"query": "rain tree: "}, {}])
def test_pooling_that_leaves_out_the_prompt_is_refused(copy_of, prompts):
    folder = copy_of("cls")
    with_json(folder / "1_Pooling" / "config.json", include_prompt=False)
    with_json(folder / "config_sentence_transformers.json", prompts=prompts)
    with pytest.raises(ModelError, match="include_prompt"):
        opened(folder)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"query_expansion": {"strategy": "fixed", "length": 8}}, "query_expansion"),
        (
            {"processing_kwargs": {"text": {"add_special_tokens": False}}},
            r"processing_kwargs\.text\.add_spec",
        ),
    ],
)
def test_settings_of_the_text_stage_that_the_engine_does_not_follow_are_refused(copy_of, setting, said):
    folder = copy_of("cls")
    with_json(folder / "sentence_bert_config.json", **setting)
    with pytest.raises(ModelError, match=said):
        opened(folder)


def test_settings_of_padding_change_no_vector(copy_of):
    folder = copy_of("cls")
    expected = opened(folder).encode(["cat dog", "sun"])
    with_json(folder / "sentence_bert_config.json", processing_kwargs={"text": {"padding": "longest"}})
    np.testing.assert_array_equal(opened(folder).encode(["cat dog", "sun"]), expected)


def test_a_model_with_a_path_for_each_role_is_refused(tmp_path):
    from sentence_transformers.sentence_transformer.modules import Router, StaticEmbedding

    parts = [StaticEmbedding(bert_tokenizer().backend_tokenizer, embedding_dim=8) for _ in range(2)]
    router = Router.for_query_document(query_modules=parts[:1], document_modules=parts[1:])
    SentenceTransformer(modules=[router], device="cpu").save(str(tmp_path))
    with pytest.raises(ModelError, match="Router"):
        opened(tmp_path)


def test_a_missing_pooler_is_refused_where_its_output_is_the_vector(copy_of):
    folder = copy_of("cls")
    reads = {"text": {"method": "forward", "method_output_name": "pooler_output"}}
    with_json(
        folder / "sentence_bert_config.json", modality_config=reads, module_output_name="sentence_embedding"
    )
    modules = folder / "modules.json"
    modules.write_text(json.dumps(json.loads(modules.read_text())[:1]))
    assert opened(folder).encode(["cat"]).shape == (1, 32)
    with_tensors(folder, lambda t: t.pop("pooler.dense.weight"))
    with pytest.raises(ModelError, match=r"lacks the tensor pooler\.dense\.weight"):
        opened(folder)


def test_a_missing_tensor_of_a_later_module_is_refused(copy_of):
    from sentence_transformers.base.modules import Dense

    folder = copy_of("cls")
    model = SentenceTransformer(str(folder), device="cpu")
    model.append(Dense(32, 16))
    model.save(str(folder))
    (dense,) = folder.glob("*_Dense")
    assert opened(folder).encode(["cat"]).shape == (1, 16)
    with_tensors(dense, lambda t: t.pop("linear.bias"))
    with pytest.raises(ModelError, match=r"linear\.bias"):
        opened(folder)


def test_a_model_made_for_inner_products_says_that_it_is_compared_by_cosine(copy_of):
    folder = copy_of("cls")
    with_json(folder / "config_sentence_transformers.json", similarity_fn_name="dot")
    with pytest.warns(ModelWarning, match="compared by dot"):
        opened(folder)


def test_weights_replaced_in_place_with_size_and_time_kept_have_another_revision(copy_of):
    folder = copy_of("bert")
    path = folder / "model.safetensors"
    before, stamps = find_checkpoint(LocalConfig(model=str(folder))).revision, path.stat()
    with_tensors(folder, lambda t: t["encoder.layer.0.output.dense.weight"].mul_(2))
    os.utime(path, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))
    assert path.stat().st_size == stamps.st_size
    assert find_checkpoint(LocalConfig(model=str(folder))).revision != before


def test_engines_tell_the_version_of_what_computes(copy_of):
    assert opened(copy_of("bert")).space.engine_version.startswith("sentence-transformers 6.")
    assert opened(copy_of("qwen3"), engine="packed").space.engine_version
    assert open_embedder("static").space.engine_version


@pytest.mark.filterwarnings("ignore:dtype bfloat16 on a processor without:toolkit.errors.ModelWarning")
@pytest.mark.parametrize(("name", "engine"), [("bert", "sentence-transformers"), ("qwen3", "packed")])
def test_bfloat16_on_a_cpu_gives_the_float32_vectors_up_to_its_rounding(copy_of, name, engine):
    folder, texts = copy_of(name), ["the cat and the dog", "sun", "rain on a tree in the sun"]
    exact, rounded = (opened(folder, engine=engine, dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert (rounded.space.dtype, rounded.device) == ("bfloat16", "cpu")
    assert (np.sum(exact.encode(texts) * rounded.encode(texts), axis=1) > 0.998).all()


def test_bfloat16_on_a_processor_without_it_is_said_to_be_slow(copy_of, monkeypatch):
    monkeypatch.setattr(local, "cpu_instructions", lambda: frozenset({"avx2", "fma"}))
    with pytest.warns(ModelWarning, match="bfloat16 on a processor without"):
        opened(copy_of("bert"), dtype="bfloat16")


def test_a_family_is_found_by_whole_names():
    assert family_of("intfloat/e5-base-v2").prompts.query == "query: "
    assert family_of("e5-base") is not None
    assert family_of("someone/code5-base") is None
    for served in (
        "Qwen/Qwen3-Embedding-4B",
        "qwen3-embedding:0.6b",
        "Qwen3-Embedding-8B-FP8",
        "qwen3-embedding",
    ):
        assert family_of(served).prompts.instructed
    assert family_of("qwen3-embedding-0.6b-toxicity-classifier") is None
