"""The numbers of each step in the Trackio dashboard, where that package is installed."""

from pathlib import Path
from typing import Any

from common.errors import UserError

PROJECT = "gpt-staircase"


def begin(folder: Path, state: dict) -> Any:
    """A run of the dashboard, with `log(numbers, step)` and `finish()`; one that goes on is gone on with.

    Nothing leaves this machine unless the package is told so (TRACKIO_SPACE_ID). folder, state: of the run.
    Raises UserError where the package is not installed.
    """
    try:
        import trackio
    except ImportError:
        raise UserError(
            "--trackio needs a package that is not installed: pip install trackio (without it, log/steps.csv "
            "in the run's folder has the same numbers)"
        ) from None
    name = f"{state['experiment'].split('/')[1]} {folder.name}"
    return trackio.init(PROJECT, name, config=state["settings"], resume="allow", embed=False)
