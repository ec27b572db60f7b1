"""The notebooks of Research/: run from top to bottom, with their outputs stored for who only reads them.

    python -m common.tools.notebooks [NAME ...] [--check]

`--check` runs them too, and compares with what is stored instead of storing it. A cell with the tag `varies`
(what it shows depends on the machine, or on runs that a reader added) only has to give outputs of the same
kinds.
"""

import base64
import io
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import nbformat
import tyro
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

from common.errors import UserError, command, nearest
from common.parsing import parse_as
from common.paths import ROOT

FOLDER = ROOT / "Research"
OWN_LOGS = ("inside_attention",)  # looks at a run of its own, not at the reader's


@dataclass(frozen=True)
class Arguments:
    """Run notebooks, and store what they show."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Notebooks (none named: all of Research/)."""
    check: bool = False
    """Compare with what is stored; exit code 1 where something differs."""


def paths(names: tuple[str, ...]) -> list[Path]:
    """The notebooks of these names. Raises UserError for a name that is none."""
    known = {path.stem: path for path in sorted(FOLDER.glob("*.ipynb"))}
    chosen = [Path(name).stem for name in names] or list(known)
    for name in chosen:
        if name not in known:
            raise UserError(f"there is no notebook {name!r} in Research/{nearest(name, known)}")
    return [known[name] for name in chosen]


def executed(path: Path):
    """The notebook with the outputs of a fresh run. Raises UserError where a cell ends in an error."""
    notebook = nbformat.read(path, as_version=4)
    before = os.environ.get("GPT_STAIRCASE_LOGS")
    with tempfile.TemporaryDirectory() as folder:
        if path.stem in OWN_LOGS:
            os.environ["GPT_STAIRCASE_LOGS"] = folder
        client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(FOLDER)}},
                                record_timing=False)  # fmt: skip
        try:
            client.execute(stderr=subprocess.DEVNULL)  # of the kernel
        except CellExecutionError as error:
            raise UserError(f"{path.name}: {error.ename}: {error.evalue}") from None
        finally:
            if before is None:
                os.environ.pop("GPT_STAIRCASE_LOGS", None)
            else:
                os.environ["GPT_STAIRCASE_LOGS"] = before
    for cell in notebook.cells:
        if cell.cell_type == "code":  # what is on stderr is progress
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    output.data["image/png"] = _smaller(output.data["image/png"])
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def _smaller(png: str) -> str:
    """A picture with 64 colours: a third of the bytes, and nobody sees it."""
    packed = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    picture.quantize(64, dither=Image.Dither.NONE).save(packed, "PNG", optimize=True)
    return base64.b64encode(packed.getvalue()).decode()


def differences(stored, fresh) -> list[str]:
    """What a fresh run shows that is not stored, one line for each cell."""
    found = []
    for number, (old, new) in enumerate(zip(stored.cells, fresh.cells, strict=True), 1):
        if old.cell_type != "code":
            continue
        varies = "varies" in old.metadata.get("tags", [])
        if [_kinds(o) for o in old.outputs] != [_kinds(o) for o in new.outputs]:
            found.append(f"cell {number}: outputs of other kinds are stored")
        elif not varies and [_text(o) for o in old.outputs] != [_text(o) for o in new.outputs]:
            found.append(f"cell {number}: other text is stored")
    return found


def _kinds(output) -> list[str]:
    return sorted(output.get("data", {"text": ""}))


def _text(output) -> str:
    return output.get("text") or output.get("data", {}).get("text/plain", "")


@command
def main() -> None:
    arguments = parse_as(Arguments, None, (__doc__ or "").splitlines()[0])
    stale = 0
    for path in paths(arguments.names):
        fresh = executed(path)
        if not arguments.check:
            nbformat.write(fresh, path)
            print(f"{path.relative_to(ROOT)}: run, outputs stored")
            continue
        found = differences(nbformat.read(path, as_version=4), fresh)
        stale += bool(found)
        print(
            "\n".join(f"stale: {path.relative_to(ROOT)}, {line}" for line in found)
            or f"{path.name}: as stored"
        )
    if stale:
        print("python -m common.tools.notebooks stores them anew")
        raise SystemExit(1)


if __name__ == "__main__":
    main()
