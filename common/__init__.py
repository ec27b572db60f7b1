"""What the stages share. Nothing here teaches an idea before a stage script has taught it."""

import importlib.util
import sys

for _needed in ("torch", "numpy", "tyro"):
    if importlib.util.find_spec(_needed) is None:
        print(f"error: {_needed} is not installed; in the course's folder: pip install -e .", file=sys.stderr)
        raise SystemExit(2)
