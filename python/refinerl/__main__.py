"""The console command `refinerl COMMAND …`, which is `python -m refinerl.COMMAND …`."""

from __future__ import annotations

import contextlib
import os
import runpy
import sys
from collections.abc import Sequence

from refinerl import __version__

COMMANDS = {
    "train": "fine-tune a model with a recipe",
    "evaluate": "compute pass@k of a model or of samples on HumanEval(+), MBPP(+), APPS, LiveCodeBench",
    "audition": "measure what a refiner improves and costs, before a run",
    "study": "run arms and seeds of a recipe side by side, and compare them",
    "report": "show runs as a page or as figures; write a model card; export refinements and models",
    "sandbox": "judge reference solutions; show how programs are isolated here",
    "doctor": "show what works on this machine, what does not, and how to fix it",
}
MODULES = {"doctor": "refinerl.run.doctor"}
"""Modules of commands that are not `refinerl.COMMAND`."""
EXAMPLES = ("refinerl doctor", "refinerl train demo")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code, 2 if none or an unknown one is named."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    name, rest = (words[0], words[1:]) if words else ("", [])
    if name == "--version":
        print(f"refinerl {__version__}")
        return 0
    if name in ("", "-h", "--help"):
        print(usage())
        return 0 if name else 2
    if name not in COMMANDS:
        print(f"error: unknown command {name!r}; the commands are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    _see_the_current_folder()
    sys.argv = [f"refinerl {name}", *rest]
    runpy.run_module(MODULES.get(name, f"refinerl.{name}"), run_name="__main__", alter_sys=True)
    return 0


def _see_the_current_folder() -> None:
    """Let modules of the current folder, such as one with a reward function, be found: as by `python -m`."""
    with contextlib.suppress(FileNotFoundError):  # the folder was removed
        here = os.getcwd()
        if here not in sys.path and "" not in sys.path and not getattr(sys.flags, "safe_path", False):
            sys.path.insert(0, here)


def usage() -> str:
    """Return the help text: one line per command, and two examples."""
    lines = [f"  {name:9} {effect}" for name, effect in COMMANDS.items()]
    examples = [f"  {command}" for command in EXAMPLES]
    head = "usage: refinerl COMMAND …     (refinerl COMMAND --help, refinerl --version)"
    return "\n".join((head, "", *lines, "", "Examples:", *examples))


if __name__ == "__main__":
    sys.exit(main())
