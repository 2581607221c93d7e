import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import DimensionError, PlanError
from toolkit.experiment.plan import SweepPlan, auto_dims, make_plan, parse_dims, read_plan, resolve_plan
from toolkit.space import EmbeddingSpace

SPACE = EmbeddingSpace("m", "1", "e", "float32", "mean", 0, full_dim=256, min_dim=64)


@given(
    dims=st.one_of(st.just("auto"), st.lists(st.integers(1, 4_096), min_size=1)),
    instructions=st.lists(st.text(), min_size=1),
    k=st.integers(10, 1_000),
    search=st.lists(st.dictionaries(st.sampled_from(["efSearch", "nprobe"]), st.integers(1, 512))),
)
def test_a_plan_survives_its_own_toml(tmp_path_factory, dims, instructions, k, search):
    plan = make_plan(
        dims=dims,
        instructions=instructions,
        k=k,
        indexes=["Flat", {"factory": "HNSW32", "build": {"efConstruction": 80}, "search": search}],
        rescore=[{"dim": 128, "candidates": [500, 1000]}, [{"dim": 128}, {"dim": "full", "candidates": 100}]],
    )
    path = tmp_path_factory.mktemp("plan") / "plan.toml"
    path.write_text(plan.to_toml(), encoding="utf-8")
    assert read_plan(path) == plan


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dimz": [1]}, "unknown key 'dimz'; did you mean 'dims'"),
        ({"embedder": "statik"}, "unknown embedder 'statik'"),
        ({"embedder": {"kind": "remote", "base_url": "http://x/v1"}}, "model"),
        ({"k": 3}, "k: Input should be greater than or equal to 10"),
        ({"precisions": ["int7"]}, "'float32', 'float16'"),
        ({"dims": []}, "dims"),
        ({"indexes": [{"factory": "Flat", "sarch": []}]}, "unknown key 'indexes[0].sarch'"),
    ],
)
def test_unusable_plans_say_what_is_allowed_in_one_line(fields, message):
    with pytest.raises(PlanError) as caught:
        make_plan(**fields)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_plan_file_errors_name_the_file(tmp_path):
    broken = tmp_path / "broken.toml"
    broken.write_text("dims = [")
    with pytest.raises(PlanError, match=r"broken\.toml is not valid TOML"):
        read_plan(broken)
    with pytest.raises(PlanError, match=r"absent\.toml cannot be read"):
        read_plan(tmp_path / "absent.toml")
    broken.write_text("colour = 1")
    with pytest.raises(PlanError, match=r"broken\.toml: unknown key 'colour'"):
        read_plan(broken)


def test_fields_override_a_plan():
    plan = SweepPlan(k=20)
    assert resolve_plan(plan, data="builtin") == plan
    assert resolve_plan(plan, k=30).k == 30
    with pytest.raises(PlanError, match="unknown key"):
        resolve_plan(plan, kk=30)


@pytest.mark.parametrize("full", [1, 32, 33, 256, 384, 1_024, 2_560])
def test_auto_dims_end_at_the_full_one_and_ascend(full):
    dims = auto_dims(full)
    assert dims[-1] == full
    assert dims == sorted(set(dims))
    assert all(dim >= min(32, full) for dim in dims)


def test_dims_of_a_model_hold_the_full_one_and_stay_in_range():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert make_plan(dims=[128, 64, 128]).dims_for(SPACE) == [64, 128, 256]
        assert make_plan().dims_for(SPACE) == [32, 48, 64, 96, 128, 192, 256]
    with pytest.raises(DimensionError, match=r"dimension 512 is outside the range of m; choose 1\.\.256"):
        make_plan(dims=[512]).dims_for(SPACE)
    with pytest.raises(DimensionError, match=r"dimension 512 is outside .* choose 1\.\.256"):
        make_plan(dims=[512]).dims_within(256)


def test_parse_dims():
    assert parse_dims("auto") == "auto"
    assert parse_dims("32, 64") == [32, 64]
    with pytest.raises(PlanError, match="between commas"):
        parse_dims("32;64")
