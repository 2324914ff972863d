"""The end of a demo once more, from its folder: `python -m refinerl.study.demo FOLDER [--svg FILE]`."""

from __future__ import annotations

import argparse
import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from refinerl import __version__
from refinerl.data.terminal import safe
from refinerl.errors import UserError
from refinerl.report.export import save
from refinerl.report.metrics import read_metrics
from refinerl.report.reading import read_rollouts
from refinerl.run import recipe
from refinerl.study.demo import closing
from refinerl.study.demo.arm import Arm

ARMS = ("none", "dynamic")
"""Names of the demo's arms, in the order of the view."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0 done, 2 bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m refinerl.study.demo", description="Show the end of a demo once more, from its folder."
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="such as runs/demo-20260101-120000")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="also draw it as a picture of 80 columns")
    parser.add_argument("--version", action="version", version=f"refinerl {__version__}")
    options = parser.parse_args(arguments)
    try:
        arms = [stored(options.folder, name) for name in ARMS]
        reports = [arm.folder / "report.html" for arm in arms]
        closing.show(arms, read_rollouts(arms[-1].folder), reports, Console())
        if options.svg is not None:
            save(options.svg, svg(arms))
    except UserError as error:
        print(f"error: {safe(str(error))}", file=sys.stderr)
        return 2
    return 0


def stored(folder: Path, name: str) -> Arm:
    """Read an arm of a demo that has ended.

    Raises:
        UserError: the folder has no run of the arm, or it cannot be read.
    """
    run = min((folder / name).glob("seed-*/"), default=None)
    if run is None or not (run / "config.yaml").exists():
        raise UserError(f"{folder} is not the folder of a demo: it has no {name}/seed-0/config.yaml")
    steps = recipe.load(str(run / "config.yaml")).trainer.steps
    return Arm(name, run, steps, tuple(read_metrics(run)), running=False)


def svg(arms: Sequence[Arm]) -> str:
    """Draw the results of a demo as a terminal of 80 columns. The picture loads no fonts."""
    console = Console(file=io.StringIO(), record=True, width=80, force_terminal=True, color_system="truecolor")
    closing.results(arms, read_rollouts(arms[-1].folder), console)
    seed = arms[0].folder.name.replace("-", " ")
    drawn = console.export_svg(title=f"python -m refinerl.study demo: {seed}", unique_id="demo")
    return re.sub(r"\s*@font-face \{.*?\}", "", drawn, flags=re.DOTALL)


if __name__ == "__main__":
    sys.exit(main())
