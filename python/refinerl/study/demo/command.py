"""The demo from start to end: both runs side by side, the live view, the closing picture, and the exit code."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from rich.console import Console
from rich.live import Live

from refinerl.report.page import write_page
from refinerl.report.rows import read_rollouts
from refinerl.study.demo import closing
from refinerl.study.demo.arm import Arm
from refinerl.study.demo.view import View, lines
from refinerl.study.runs import Run, end_all, log_of

FRAME = 0.5
"""Seconds between two frames of the live view."""


def play(
    arguments: Mapping[str, Sequence[str]], folders: Mapping[str, Path], steps: int, title: str, console: Console
) -> int:
    """Run the arms side by side, one thread each; return the exit code: 0 done, 1 a run failed, 130 interrupted.

    If one run fails, the others are interrupted.

    Args:
        arguments: the command line of each arm's run, by the arm's name. There are two arms.
        folders: the folder of each arm's run.
        steps: steps of each run.
        title: the first line of the view.
        console: where everything is shown.

    Raises:
        UserError: a report cannot be written.
    """
    runs: dict[str, Run] = {}
    try:
        for name, words in arguments.items():
            runs[name] = Run.start(words, folders[name])
        arms = watch(runs, steps, title, console)
        failed = [name for name, run in runs.items() if run.code()]
        for name in failed:
            say(console, f"error: the run {name} failed: {runs[name].last_line()}")
            say(console, f"Its output is in {log_of(folders[name])}, its folder is {folders[name]}")
        if failed:
            return 1
        reports = [write_page(arm.folder) for arm in arms]
        closing.show(arms, read_rollouts(arms[-1].folder), reports, console)
        return 0
    except KeyboardInterrupt:
        say(console, "Interrupted: each run saves its last complete step …")
        end_all(list(runs.values()))
        for name, run in runs.items():
            say(console, f"{name}: {run.last_line()}")
            say(console, f"  python -m refinerl.train --output-dir {run.folder} --resume")
        return 130
    finally:
        end_all(list(runs.values()))


def watch(runs: Mapping[str, Run], steps: int, title: str, console: Console) -> list[Arm]:
    """Show the arms until all runs have ended or one has failed; return their last states."""
    redrawn = console.is_terminal and not console.is_dumb_terminal
    live = Live(console=console, auto_refresh=False, transient=True) if redrawn else None
    ended: dict[str, float] = {}
    said = dict.fromkeys(runs, 0)
    if live is None:
        say(console, title)
    with live or nullcontext():
        while True:
            codes = {name: run.code() for name, run in runs.items()}  # before the rows: an ended run has all of them
            ended |= {name: time.monotonic() for name, code in codes.items() if code is not None and name not in ended}
            arms = [
                Arm(
                    name,
                    run.folder,
                    steps,
                    tuple(run.rows()),
                    ended.get(name, time.monotonic()) - run.started,
                    codes[name] is None,
                )
                for name, run in runs.items()
            ]
            if live is not None:
                live.update(View(title, arms), refresh=True)
            else:
                for arm in arms:
                    for line in lines(arm, said[arm.name]):
                        say(console, line)
                    said[arm.name] = len(arm.rows)
            if None not in codes.values() or any(codes.values()):
                return arms
            time.sleep(FRAME)


def say(console: Console, text: str) -> None:
    """Print text as it is, except for what a terminal would obey; long lines are left to the terminal."""
    console.print(closing.safe(text), markup=False, highlight=False, soft_wrap=True)
