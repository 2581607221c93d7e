"""A setting's text forms are for people and files: unique, and read back as they were written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import PlanError
from toolkit.experiment.setting import SETTING_COLUMNS, Setting, parse_arguments

arguments = st.dictionaries(st.sampled_from(["efSearch", "nprobe", "niter"]), st.integers(1, 4_096))
settings_of_any_kind = st.builds(
    Setting,
    dim=st.integers(1, 8_192),
    precision=st.sampled_from(["float32", "int8", "binary"]),
    index=st.sampled_from(["Flat", "HNSW32", "IVF256,PQ8x4", "OPQ8,IVF16,PQ8x8"]),
    build_args=arguments,
    search_args=arguments,
    rescore=st.lists(st.tuples(st.integers(1, 8_192), st.integers(1, 10_000)), max_size=3),
    instruction=st.text(),
    backend=st.sampled_from(["auto", "exact", "other"]),
)


@given(settings_of_any_kind)
def test_text_forms_read_back(setting):
    assert Setting.parse(setting.key) == setting
    assert tuple(setting.columns) == SETTING_COLUMNS
    assert Setting.from_columns(setting.columns) == setting


@given(settings_of_any_kind, settings_of_any_kind)
def test_different_settings_have_different_names(one, other):
    assert (one == other) == (one.key == other.key) == (one.slug == other.slug)


def test_key_leaves_out_what_is_empty_or_default():
    assert Setting(128).key == "128 float32 Flat"
    assert Setting(64, "int8", "HNSW32", {"efConstruction": 80}, {"efSearch": 64}).key == (
        "64 int8 HNSW32 build:efConstruction=80 efSearch=64"
    )
    assert Setting(64, rescore=[(256, 400)], instruction="none").key == (
        "64 float32 Flat rescore=256@400 instruction='none'"
    )
    assert Setting(64, backend="exact").columns["index"] == "exact:Flat"


def test_slug_is_the_one_that_files_of_earlier_sweeps_have():
    assert Setting(128, index="HNSW32", search_args={"efSearch": 64}).slug == "5522722b69ac844e"


def test_order_of_arguments_does_not_matter():
    one = Setting(8, search_args={"a": 1, "b": 2})
    assert one == Setting(8, search_args={"b": 2, "a": 1})
    assert hash(one) == hash(Setting(8, search_args=(("b", 2), ("a", 1))))
    assert one.search_args == (("a", 1), ("b", 2))


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("Flat", "is not '<dim> <precision> <index>"),
        ("64 float32", "is not '<dim>"),
        ("64 float32 Flat nprobe=x", "is not '<dim>"),
        ("64 float32 Flat rescore=256x4", "older version counted candidates per k"),
        ("64 float32 Flat rescore=256", "not <dim>@<candidates>"),
    ],
)
def test_other_texts_are_refused(key, message):
    with pytest.raises(PlanError, match=message):
        Setting.parse(key)
    with pytest.raises(PlanError, match="name=<whole number>"):
        parse_arguments("efSearch:64")
