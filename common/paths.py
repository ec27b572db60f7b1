"""Where things are: the project itself, and the results."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def logs_folder() -> Path:
    """Where results go: $GPT_STAIRCASE_LOGS, else logs/ of the project."""
    return Path(os.environ.get("GPT_STAIRCASE_LOGS") or ROOT / "logs")
