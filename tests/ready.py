"""Runs scripts as `python script.py flags` does, each in a process of its own, but with what they all import
loaded beforehand.

Reads one request a line from standard input, `{"script": ..., "arguments": ..., "cwd": ..., "environment":
..., "out": ..., "err": ...}`, and answers each with a line that has the exit code.
"""

import importlib
import json
import os
import runpy
import sys
import traceback

for module in (
    "torch._dynamo",
    "common.report.overviews",
    "common.model.gpt",
    "common.run",
):  # the first: an optimizer imports it
    importlib.import_module(module)


def script(request: dict) -> int:
    """Run a script to its end in this process."""
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    sys.argv = [request["script"], *request["arguments"]]
    sys.path[0] = os.path.dirname(request["script"])  # noqa: PTH120
    try:
        runpy.run_path(request["script"], run_name="__main__")
        return 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


for line in sys.stdin:
    request = json.loads(line)
    child = os.fork()
    if not child:
        for number, name in enumerate((os.devnull, request["out"], request["err"])):
            opened = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            os.dup2(opened, number)
            os.close(opened)
        os._exit(script(request))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
