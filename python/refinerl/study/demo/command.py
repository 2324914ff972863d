"""The demo from start to end: both runs side by side, the live view, the closing picture, and the exit code."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from rich.console import Console
from rich.live import Live

from refinerl.data.terminal import safe
from refinerl.errors import UserError
from refinerl.report.reading import read_rollouts
from refinerl.study.demo.arm import Arm
from refinerl.study.demo.view import View, lines
from refinerl.study.plan import Plan
from refinerl.study.runs import Run, end_all, log_of

FRAME = 0.5
"""Seconds between two frames of the live view."""


def run(plan: Plan, output: Path, console: Console, lock: int) -> int:
    """Run a study of two arms and one seed as the demo; return the exit code: see `play`.

    Args:
        plan: the study.
        output: its folder, which exists.
        console: where everything is shown.
        lock: a file descriptor that the runs keep open.
    """
    (seed,) = plan.seeds
    trials = [plan.final(arm, seed, {}) for arm in plan.arms]
    code = play(
        {trial.arm: trial.arguments for trial in trials},
        {trial.arm: output / trial.folder for trial in trials},
        steps=trials[0].steps,
        title=f"refinerl demo: {' and '.join(plan.arms)}, seed {seed}, the same prompts",
        console=console,
        inherited=(lock,),
    )
    if code == 130:
        say(console, f"To go on: python -m refinerl.study {plan.name} --output-dir {output}")
    return code


def play(
    arguments: Mapping[str, Sequence[str]],
    folders: Mapping[str, Path],
    *,
    steps: int,
    title: str,
    console: Console,
    inherited: Sequence[int] = (),
) -> int:
    """Run the arms side by side, one thread each; return the exit code: 0 done, 1 a run failed, 130 interrupted.

    If one run fails, the others are interrupted.

    Args:
        arguments: the command line of each arm's run, by the arm's name. There are two arms.
        folders: the folder of each arm's run.
        steps: steps of each run.
        title: the first line of the view.
        console: where everything is shown.
        inherited: file descriptors that the runs keep open.
    """
    runs: dict[str, Run] = {}
    try:
        for name, words in arguments.items():
            runs[name] = Run.start(words, folders[name], inherited=inherited)
        arms = watch(runs, steps, title, console)
        failed = [run for run in runs.values() if run.code()]
        for run in failed:
            say(console, f"error: a run of the demo failed: {run.last_line()}")
            say(console, f"Its output is in {log_of(run.folder)}, its files are in {run.folder}")
        if not failed:
            end(arms, console)
        return 1 if failed else 0
    except KeyboardInterrupt:
        say(console, "interrupted: each run saves its last complete step …")
        end_all(list(runs.values()))
        for run in runs.values():
            say(console, f"{run.folder}: {run.last_line()}")
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
            now = time.monotonic()
            ended |= {name: now for name, code in codes.items() if code is not None and name not in ended}
            arms = [
                Arm(
                    name,
                    run.folder,
                    steps,
                    tuple(run.rows()),
                    seconds=ended.get(name, now) - run.started,
                    running=codes[name] is None,
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


def end(arms: Sequence[Arm], console: Console) -> None:
    """Write the report of each run, and print the end of the demo."""
    from refinerl.report.page import write_page  # imports torch, which takes seconds
    from refinerl.study.demo import closing

    reports: list[Path | str] = []
    for arm in arms:
        try:
            reports.append(write_page(arm.folder))
        except UserError as error:
            reports.append(str(error))
    closing.show(arms, read_rollouts(arms[-1].folder), reports, console)


def say(console: Console, text: str) -> None:
    """Print text as it is, except for what a terminal would obey; long lines are left to the terminal."""
    console.print(safe(text), markup=False, highlight=False, soft_wrap=True)
