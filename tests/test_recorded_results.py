"""The results folders recorded in this repository can be read, judged and recommended from."""

from pathlib import Path

import pytest

import toolkit
from toolkit.errors import ResultsError
from toolkit.experiment.setting import SETTING_COLUMNS
from toolkit.measure.metrics import COSTS, PARTS, described
from toolkit.measure.noninferiority import KEEPS

RECORDED = sorted(path.parent for path in (Path(__file__).parents[1] / "results").glob("*/plan.toml"))
FACTS = {"dataset", "model", "setting", *SETTING_COLUMNS, "factory", "index_device", "same_ranking"}


def quality_of(column: str) -> str:
    """The metric a column belongs to, its bounds and differences too; empty for none."""
    for part in sorted(PARTS, key=len, reverse=True):
        if column.endswith(part) and described(column.removesuffix(part)).is_quality:
            return column.removesuffix(part)
    return ""


@pytest.mark.parametrize("folder", RECORDED, ids=lambda folder: folder.name)
def test_every_recorded_column_is_in_the_metric_table(folder):
    frame = toolkit.load_results(folder).frame()
    assert [c for c in frame if c not in FACTS and c not in COSTS and not quality_of(c)] == []
    assert len({quality_of(c) for c in frame} - {""}) >= 1


@pytest.mark.parametrize("folder", RECORDED, ids=lambda folder: folder.name)
def test_every_recorded_folder_has_a_headline_and_a_recommendation(folder):
    view = toolkit.load_results(folder)
    assert "99 %" in view.headline
    if "p95_ms" not in view.frame():
        with pytest.raises(ResultsError, match="needs a sweep over a retrieval set"):
            view.recommend()
        return
    found = view.recommend(keep=0.95)
    assert found.feasible
    assert set(found.table["setting"]) == set(view.frame()["setting"])
    assert set(found.table["verdict"]) <= {*KEEPS, "loses", "undecided", "reference"}
    assert found.choice.setting in str(found)
