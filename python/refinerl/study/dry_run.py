"""The output of `--dry-run`: arms, runs, knobs that differ from the recipe, an estimate of time. Nothing is started."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from refinerl.errors import UserError
from refinerl.study import file, runs
from refinerl.study.plan import Plan, Trial
from refinerl.study.progress import duration
from refinerl.study.record import Record, check_run
from refinerl.study.runner import Room, pace


def show(
    plan: Plan, known: Record, output: Path, room: Room | str, console: Console, redone: Sequence[str] = ()
) -> None:
    """Print what a study would do; the runs of `redone` arms would be removed first.

    Raises:
        UserError: a run's folder is another study's.
    """
    for line in lines(plan, known, output, room, redone):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def lines(plan: Plan, known: Record, output: Path, room: Room | str, redone: Sequence[str] = ()) -> Iterator[str]:
    """Describe a study in lines: its file's comment, arms with their knobs and runs, the time of the missing runs."""
    study = plan.study
    yield from (*file.comment(plan.source or plan.name), "")
    yield f"{study.title}: recipe {known.recipe}, seeds {', '.join(map(str, plan.seeds))}, in {output}"
    yield _described(room)
    left, count, total = 0.0, 0, 0
    unknown = []
    for arm in plan.arms:
        tuning = [] if arm in known.chosen else plan.tuning(arm)
        final = [plan.final(arm, seed, known.chosen.get(arm, {})) for seed in plan.seeds]
        place = output / "removed" if arm in redone else output
        yield f"\n{arm}: {_count(place, final)}" + (f", after {_count(place, tuning)} of tuning" if tuning else "")
        yield from (f"  {line}" for line in plan.differences(arm))
        if arm in known.chosen:
            yield f"  chosen: {known.chosen[arm]}"
        elif tuning:
            points = list(dict.fromkeys(trial.point for trial in tuning))
            yield f"  grid of {len(points)}: {', '.join(points)}"
        count, total = count + len(tuning) + len(final), total + sum(trial.steps for trial in (*tuning, *final))
        steps = sum(_steps_left(place, trial) for trial in (*tuning, *final))
        each = pace(output, arm)
        if steps and each is None:
            unknown.append(arm)
        elif each is not None:
            left += steps * each
    workers = room.workers if isinstance(room, Room) else 1
    time = f"about {duration(left / workers)} to go, by the steps of earlier runs in {output}; starts not included"
    if unknown:
        time = f"no run of {', '.join(unknown)} has taken a step in {output} yet, so their time is not known"
    yield f"\nin all {count} runs of {total:,} steps; {time}"
    budgets = {arm: len(plan.tuning(arm)) for arm in plan.arms}
    if len(set(budgets.values())) > 1:
        yield "tuning budgets differ: " + ", ".join(f"{arm} {count} runs" for arm, count in budgets.items())


def find_room(plan: Plan, workers: int | None) -> Room | str:
    """Return the places for runs on this machine, or the reason why it cannot run them: another machine may."""
    try:
        return Room.find(plan.configs, workers)
    except UserError as error:
        return str(error)


def _described(room: Room | str) -> str:
    if isinstance(room, str):
        return f"not on this machine: {room}"
    where = f"on {len(room.devices)} GPUs, " if room.devices else ""
    return f"{room.workers} at a time, {where}{room.threads} thread{'' if room.threads == 1 else 's'} each"


def _count(output: Path, trials: list[Trial]) -> str:
    for trial in trials:
        check_run(output, trial.folder, trial.config)
    finished = sum(runs.is_finished(output / trial.folder) for trial in trials)
    begun = sum(runs.is_begun(output / trial.folder) for trial in trials) - finished
    parts = [f"{count} {word}" for count, word in ((finished, "finished"), (begun, "interrupted")) if count]
    steps = f"{trials[0].steps} steps"
    return f"{len(trials)} run{'' if len(trials) == 1 else 's'} of {steps}" + (
        f" ({', '.join(parts)})" if parts else ""
    )


def _steps_left(output: Path, trial: Trial) -> int:
    place = output / trial.folder
    if runs.is_finished(place):
        return 0
    rows = runs.Tail(place / "metrics.jsonl").rows()
    return trial.steps - (rows[-1]["step"] if rows else 0)
