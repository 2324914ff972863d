"""The console command: `refinerl COMMAND …` does what `python -m refinerl.COMMAND …` does."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence

from refinerl import __version__

COMMANDS = {
    "train": "fine-tune a model by a recipe",
    "evaluate": "pass@k of a model or of samples on HumanEval(+), MBPP(+), APPS",
    "audition": "what a refiner improves and costs, before a run",
    "report": "a run as an HTML page; its refinements as training data",
    "sandbox": "judge reference solutions; what isolates programs here",
    "doctor": "what works on this machine, what does not, and what would mend it",
}
MODULES = {"doctor": "refinerl.run.doctor"}
"""Where a command is not `python -m refinerl.COMMAND`."""
EXAMPLES = ("refinerl doctor", "refinerl train demo")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code: 2 where none is named, or one that does not exist."""
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
    sys.argv = [f"refinerl {name}", *rest]
    runpy.run_module(MODULES.get(name, f"refinerl.{name}"), run_name="__main__", alter_sys=True)
    return 0


def usage() -> str:
    """The commands, a line each, and two to begin with."""
    lines = [f"  {name:9} {effect}" for name, effect in COMMANDS.items()]
    examples = [f"  {command}" for command in EXAMPLES]
    head = "usage: refinerl COMMAND …     (refinerl COMMAND --help, refinerl --version)"
    return "\n".join((head, "", *lines, "", "To begin with:", *examples))


if __name__ == "__main__":
    sys.exit(main())
