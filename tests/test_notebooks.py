"""The notebooks run from top to bottom, in an empty folder, and what they print is short."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

BOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_notebook_runs_and_prints_little(path: Path, tmp_path: Path) -> None:
    book: Any = nbformat.read(path, as_version=4)
    client = NotebookClient(
        book, timeout=280, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    shown = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    said = [output.text for output in shown if output.output_type == "stream"]
    said += [output.data.get("text/plain", "") for output in shown if "data" in output]
    assert all(len(text.splitlines()) <= 20 and len(text) < 2500 for text in said), said
    assert any("image/png" in output.get("data", {}) for output in shown)


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(path: Path) -> None:
    book: Any = nbformat.read(path, as_version=4)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)


def test_there_are_three() -> None:
    assert len(BOOKS) == 3
