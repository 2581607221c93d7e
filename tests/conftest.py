"""Fixtures shared by the tests: no hub, and a vector cache that no test shares with a person."""

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True, scope="session")
def own_cache_folder(tmp_path_factory):
    """Point the toolkit's cache at a folder of this test run, which all its workers share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "toolkit-cache"
    folder.mkdir(exist_ok=True)
    before = os.environ.get("TOOLKIT_CACHE")
    os.environ["TOOLKIT_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["TOOLKIT_CACHE"]
    else:
        os.environ["TOOLKIT_CACHE"] = before


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The evaluation sets that lie beside a checkout of the team's."""
    if not SHARED.is_dir():
        pytest.skip(f"the shared evaluation sets are not at {SHARED}")
    return SHARED
