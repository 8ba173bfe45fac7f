"""The notebook is run as a reader runs it, in a folder of its own."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import REPOSITORY

NOTEBOOK = REPOSITORY / "examples" / "first_sweep.ipynb"


def test_the_notebook_is_kept_without_the_results_of_a_machine() -> None:
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)


@pytest.mark.endtoend
def test_the_notebook_runs_a_sweep_and_shows_its_table_and_a_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, kernel_name="python3", timeout=300, resources={"metadata": {"path": tmp_path}})
    client.execute()
    shown = [set(each.get("data", {})) for cell in notebook.cells for each in cell.get("outputs", [])]
    assert [kinds for kinds in shown if "text/html" in kinds] != []  # the tables
    assert [kinds for kinds in shown if "image/png" in kinds] != []  # the plot
    assert (tmp_path / "mlflow.db").is_file()
