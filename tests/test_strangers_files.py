"""Files of strangers that nest without end: one line that names the file, whatever reads it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import toolkit
from toolkit.decide.cost import read_prices
from toolkit.errors import ModelError, PlanError, ResultsError, ToolkitError
from toolkit.experiment.folder import ENVIRONMENT, MANIFEST, PLAN, SCHEMA
from toolkit.experiment.plan import read_plan
from toolkit.files import parse_json, parse_toml

DEEP_JSON = '{"a":' * 200_000
DEEP_TOML = "a = " + "[" * 200_000
RECORDED = Path(__file__).parent.parent / "results" / "static-scifact"


def test_json_and_toml_nested_without_end_are_values_that_cannot_be_read():
    for parse, text in ((parse_json, DEEP_JSON), (parse_json, DEEP_JSON.encode()), (parse_toml, DEEP_TOML)):
        with pytest.raises(ValueError, match="nested too deeply"):
            parse(text)
    assert parse_json(b'{"a": [1]}') == parse_toml("a = [1]") == {"a": [1]}


def test_a_plan_and_prices_nested_without_end(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(DEEP_TOML)
    with pytest.raises(PlanError, match=r"plan\.toml is not valid TOML: it is nested too deeply"):
        read_plan(path)
    with pytest.raises(PlanError, match="nested too deeply"):
        read_prices(path)


@pytest.mark.parametrize(
    ("name", "content"), [(PLAN, DEEP_TOML), (ENVIRONMENT, DEEP_JSON), (MANIFEST, DEEP_JSON)]
)
def test_results_nested_without_end(tmp_path, name, content):
    folder = tmp_path / "results"
    shutil.copytree(RECORDED, folder)
    (folder / MANIFEST).write_text(
        json.dumps({"schema": SCHEMA, "kind": "retrieval", "finished": True, "sweep": {}})
    )
    (folder / name).write_text(content)
    with pytest.raises(ResultsError, match="nested too deeply"):
        toolkit.load_results(folder)


@pytest.mark.parametrize("name", ["modules.json", "config.json"])
def test_a_model_folder_nested_without_end(tmp_path, name):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3"}))
    (tmp_path / name).write_text(DEEP_JSON)
    with pytest.raises(ToolkitError, match="nested too deeply"):
        toolkit.open_embedder(f"local:{tmp_path}")


def test_a_list_of_weights_nested_without_end(tmp_path):
    torch = pytest.importorskip("torch")
    from toolkit.embedding.packed.weights import load_weights

    (tmp_path / "model.safetensors.index.json").write_text(DEEP_JSON)
    with pytest.raises(ModelError, match=r"index\.json cannot be read \(it is nested too deeply\)"):
        load_weights(tmp_path, None, device=torch.device("cpu"), dtype=torch.float32)
