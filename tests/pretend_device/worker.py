"""Run commands of ours in a process that has the pretend device.

Reads a JSON line `[module, argument, …]` for each command and answers with a line of its exit code and what it printed.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import sys
import traceback

import pretend_device


def run(module: str, arguments: list[str]) -> dict[str, object]:
    """The command's exit code, and its output or traceback."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        try:
            code = importlib.import_module(module).main(arguments)
        except Exception:
            traceback.print_exc()
            code = None
    return {"code": code, "shown": shown.getvalue()}


def main() -> None:
    """Answer until there is nothing more to read."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not stand among the answers
    pretend_device.load()
    for line in sys.stdin:
        module, *arguments = json.loads(line)
        print(json.dumps(run(module, arguments)), file=answers, flush=True)


if __name__ == "__main__":
    main()
