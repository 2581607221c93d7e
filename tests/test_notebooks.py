"""Every notebook runs from top to bottom with the embedded default, at the size of its parameters here."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))

# What makes a notebook small, and words that stand in its output.
SMALL = {
    "01_quickstart": (
        {"dims": [64, 128], "max_queries": 80, "keep": 0.9},
        ["64 (3, 64)", "256 float32 Flat"],
    ),
    "02_mteb": (
        {"dims": [64], "every_document": 8, "every_query": 64},
        ["find-the-function", "which-package", "summary-to-text"],
    ),
    "03_tradeoffs": (
        {"dims": [64], "precisions": ["float32", "binary"], "max_queries": 80, "corpus_size": 1_000_000},
        ["for 1,000,000 vectors", "first_stage_share"],
    ),
    "04_instructions": (
        {"instructions": ["none", "Find the function"], "dims": [64], "max_queries": 60, "folder": "none"},
        ["Find the function\\nmean of an array", "difference", "another facet", "256 float32 Flat"],
    ),
    "05_claims": (
        {"only": ["unit-norm", "storage-saved"], "most": 50, "repeats": 10},
        ["32 saves 96.9 %", "toolkit claims --only unit-norm", "claims.json"],
    ),
    "06_serving": (
        {"dims": [64, 256], "seconds": 0.3},
        ["(3, 64)", "0 fail, 0 warn", "ended with 0"],
    ),
    "07_your_data": (
        {"documents": 300, "queries": 60, "dims": [128], "precisions": ["float32"], "judgements": 10},
        ["my-data", "kept nDCG@10", "queries are judged", "queries judged where settings can lose most"],
    ),
}


def with_parameters(notebook, values):
    """Put values behind the cell tagged `parameters`, as papermill does."""
    [place] = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ())]
    unknown = [name for name in values if f"{name} = " not in notebook.cells[place].source]
    assert not unknown, f"the notebook has no parameters {unknown}"
    lines = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(lines))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    values, words = SMALL.get(path.stem, ({}, []))
    if values:
        with_parameters(notebook, values)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    texts = "\n".join(
        str(text) for output in shown for text in (output.get("text", ""), *output.get("data", {}).values())
    )
    assert [word for word in words if word not in texts] == []
    if path.stem != "05_claims":  # it shows verdicts, not charts
        assert "toolkit-chart" in texts or any("image/png" in output.get("data", {}) for output in shown), (
            "a notebook shows a picture"
        )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)
