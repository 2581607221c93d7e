import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import DimensionError, DimensionWarning, InstructionWarning, PlanError
from toolkit.space import QWEN3_DEFAULT_TASK, QWEN3_PROMPTS, EmbeddingSpace, Instruction, Prompts, Role

QWEN = EmbeddingSpace(
    model="Qwen/Qwen3-Embedding-4B",
    revision="abc",
    engine="packed",
    dtype="bfloat16",
    pooling="last",
    max_tokens=32_768,
    full_dim=2_560,
    min_dim=32,
    prompts=QWEN3_PROMPTS,
)
PLAIN = replace(QWEN, model="plain", full_dim=384, min_dim=384, prompts=Prompts())


def test_qwen3_query_prompt_is_the_model_cards_to_the_letter():
    assert QWEN.render("why?", Role.QUERY, "Find code") == "Instruct: Find code\nQuery:why?"
    assert QWEN.render("why?", Role.QUERY) == f"Instruct: {QWEN3_DEFAULT_TASK}\nQuery:why?"


def test_documents_never_carry_an_instruction():
    assert QWEN.render("body", Role.DOCUMENT, "Find code") == "body"


@pytest.mark.parametrize("none", ["", "none"])
def test_no_instruction_leaves_the_query_bare(none):
    assert QWEN.render("why?", Role.QUERY, none) == "why?"


def test_prefix_prompts_apply_by_role():
    e5 = PLAIN.with_prompts(Prompts(query="query: ", document="passage: "))
    assert e5.render("a", Role.QUERY) == "query: a"
    assert e5.render("a", Role.DOCUMENT) == "passage: a"


def test_instruction_without_a_template_warns_and_is_plain_text():
    with pytest.warns(InstructionWarning, match="no instruction template"):
        assert PLAIN.render("why?", Role.QUERY, "Find code") == "Find code\nwhy?"


@given(task=st.text(min_size=1), text=st.text())
def test_braces_in_task_and_text_are_kept_as_they_are(task, text):
    if task in {"none", "default"}:
        return
    assert QWEN.render(text, Role.QUERY, task) == "Instruct: " + task + "\nQuery:" + text


def test_template_without_its_fields_is_refused():
    with pytest.raises(PlanError, match="must hold both"):
        Prompts(instructed="Instruct: {instruction}")


def test_instruction_labels():
    assert [Instruction.of(x).label for x in (None, "default", "", "none", "Find code")] == [
        "default",
        "default",
        "none",
        "none",
        "Find code",
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"revision": "def"},
        {"engine": "sentence-transformers"},
        {"dtype": "float32"},
        {"pooling": "mean"},
        {"max_tokens": 512},
        {"full_dim": 1_024},
    ],
)
def test_fingerprint_differs_with_all_that_changes_a_vector(change):
    assert replace(QWEN, **change).fingerprint != QWEN.fingerprint


def test_fingerprint_ignores_prompts_because_the_cache_keys_on_rendered_text():
    assert QWEN.with_prompts(Prompts()).fingerprint == QWEN.fingerprint


def test_every_dimension_of_the_range_is_usable_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [QWEN.check_dim(dim) for dim in (32, 33, np.int64(1_000), 2_560, None)] == [
            32,
            33,
            1_000,
            2_560,
            2_560,
        ]


@pytest.mark.parametrize("dim", [0, -1, 2_561, 1.5, "64", True])
def test_dimension_outside_the_range_names_value_and_range(dim):
    with pytest.raises(DimensionError, match=r"choose 1\.\.2560"):
        QWEN.check_dim(dim)


def test_short_dimension_warns():
    with pytest.warns(DimensionWarning, match="below the model's stated minimum 32"):
        QWEN.check_dim(16)
    with pytest.warns(DimensionWarning, match="trained for 384 only"):
        PLAIN.check_dim(128)


def test_an_instruction_that_names_the_fields_swallows_nothing():
    for task in ("{text}", "find {text} in {instruction}"):
        assert QWEN.render("q", Role.QUERY, task) == f"Instruct: {task}\nQuery:q"


def test_another_version_of_the_engine_is_another_space():
    assert replace(QWEN, engine_version="2").fingerprint != QWEN.fingerprint
