"""The notebooks run from top to bottom, and what is stored in them is what they show."""

import copy
import subprocess
import sys

import nbformat
import pytest

from common.errors import UserError
from common.paths import ROOT
from common.tools import notebooks

NAMES = [path.stem for path in notebooks.paths(())]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_what_is_stored_is_what_a_fresh_run_shows(name, monkeypatch):
    monkeypatch.delenv("GPT_STAIRCASE_LOGS")  # the tracked results; one that trains has a folder of its own
    path = notebooks.FOLDER / f"{name}.ipynb"
    stored, fresh = nbformat.read(path, as_version=4), notebooks.executed(path)
    assert not notebooks.differences(stored, fresh)
    # the comparison notices what it is there for
    for cell in fresh.cells:
        if cell.cell_type == "code" and "varies" not in cell.metadata.get("tags", []) and cell.outputs:
            text = cell.outputs[-1].get("data", cell.outputs[-1])
            key = "text/plain" if "text/plain" in text else "text"
            changed, text[key] = text[key], text[key] + " changed"
            assert notebooks.differences(stored, fresh)
            text[key] = changed
    for cell in fresh.cells:
        if cell.cell_type == "code" and cell.outputs:
            kept, cell.outputs = cell.outputs, []
            assert notebooks.differences(stored, fresh)
            cell.outputs = kept


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_stored_and_the_first_cell_is_for_colab(name):
    notebook = nbformat.read(notebooks.FOLDER / f"{name}.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert "google.colab" in code[0].source and not code[0].outputs
    assert all(cell.outputs for cell in code[1:])
    assert all(output.output_type != "error" for cell in code for output in cell.outputs)
    assert nbformat.validate(copy.deepcopy(notebook)) is None
    assert (notebooks.FOLDER / f"{name}.ipynb").stat().st_size < 200_000


def test_a_name_that_is_none_is_refused():
    with pytest.raises(UserError, match="did you mean 'compare_stages'"):
        notebooks.paths(("compare_stage",))
    command = [sys.executable, "-m", "common.tools.notebooks", "nothing"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and done.stderr.startswith("error: ")


def test_binder_installs_the_project():
    """What repo2docker reads: one Python that the project takes, and the project itself."""
    assert (ROOT / ".binder/runtime.txt").read_text(encoding="utf-8").strip() == "python-3.11"
    lines = (ROOT / ".binder/requirements.txt").read_text(encoding="utf-8").splitlines()
    assert "-e ." in lines and any(line.startswith("--extra-index-url") for line in lines)
