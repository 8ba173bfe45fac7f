"""The notebook is run as a reader runs it, in a folder of its own."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import REPOSITORY

NOTEBOOK = REPOSITORY / "examples" / "first_sweep.ipynb"
FIRST, SECONDS = 1, '"latency.seconds=0.5"'  # the cell with the sweep, and a setting in it


def test_the_notebook_is_kept_without_the_results_of_a_machine() -> None:
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)


@pytest.mark.endtoend
def test_the_notebook_runs_a_sweep_shows_it_and_saves_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert SECONDS in notebook.cells[FIRST].source
    # Each round takes a process for each file.
    notebook.cells[FIRST].source = notebook.cells[FIRST].source.replace(SECONDS, f'{SECONDS}, "latency.rounds=1"')
    client = NotebookClient(notebook, kernel_name="python3", timeout=300, resources={"metadata": {"path": tmp_path}})
    client.execute()
    shown = [set(each.get("data", {})) for cell in notebook.cells for each in cell.get("outputs", [])]
    assert [kinds for kinds in shown if "text/html" in kinds] != []  # the tables
    assert [kinds for kinds in shown if "image/png" in kinds] != []  # the plot
    tables = [
        each["data"]["text/html"]
        for cell in notebook.cells
        for each in cell.get("outputs", [])
        if "data" in each and "text/html" in each["data"]
    ]
    assert "TFLite accuracy (%)" in tables[0]
    assert "Ship" in tables[0]
    assert "required: tflite_bytes &lt;= 200_000" in tables[2]  # the run to ship
    assert {"mlflow.db", "model.tflite", "model.json", "report.html"} <= {path.name for path in tmp_path.iterdir()}
