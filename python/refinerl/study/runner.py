"""The runs of a study side by side: the longest first, and tuning before the runs that need it. Each is resumed."""

from __future__ import annotations

import errno
import os
import re
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from refinerl.config import Config
from refinerl.engines.launched import Launched
from refinerl.errors import UserError
from refinerl.report.metrics import read_metrics
from refinerl.sandbox import cores
from refinerl.study import record, results, runs
from refinerl.study.plan import Plan, Trial
from refinerl.study.progress import Progress
from refinerl.study.record import Record

FULL = re.compile(r"the disk that holds .* is full|No space left on device")
"""Last lines of a run that ended because its disk was full."""

POLL = 0.5
"""Seconds between two looks at the runs."""


@dataclass(frozen=True)
class Room:
    """The places for runs: how many run at a time, and with what."""

    workers: int
    threads: int
    devices: tuple[str, ...] = ()
    """CUDA devices, of which each run gets one; empty: runs see what this process sees."""

    @staticmethod
    def find(configs: Sequence[Config], workers: int | None) -> Room:
        """Choose the number of runs at a time: one for each CUDA device if the runs use those, else for each core.

        A run has one thread, unless `workers` leaves more cores for it.

        Raises:
            UserError: a device cannot be used, or this process is one of several ranks.
        """
        launched = Launched.read()
        if launched is not None and launched.size > 1:
            raise UserError("a study starts its runs itself: start it as a single process, without a launcher")
        devices = _cuda(configs)
        count = workers or (max(len(devices), 1) if devices else cores())
        threads = max(1, cores() // count) if workers or devices else 1
        return Room(count, threads, devices if len(devices) > 1 else ())


def _cuda(configs: Sequence[Config]) -> tuple[str, ...]:
    """Return the CUDA devices for runs, as CUDA_VISIBLE_DEVICES names them; none if the runs use CPUs."""
    from refinerl.engines import devices  # imports torch, which takes seconds

    kinds = {devices.resolve(config.device).type for config in configs}
    if "cuda" not in kinds:
        return ()
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return tuple(visible or map(str, range(devices.hardware.count("cuda"))))


@dataclass(frozen=True)
class Failure:
    """A run that did not finish."""

    trial: Trial
    line: str
    """The last line of its output, or the reason for which it was not started."""


class Runner:
    """Runs what a plan lacks.

    Args:
        plan: the arms and seeds.
        known: the record of the folder, which is saved when a grid's point is chosen.
        output: the study's folder.
        room: the places for runs.
        progress: shows them.
        lock: a file descriptor that the runs keep open.
    """

    def __init__(
        self, plan: Plan, known: Record, output: Path, room: Room, progress: Progress, lock: int | None = None
    ) -> None:
        self.record = known
        self.failures: list[Failure] = []
        self._plan, self._output, self._room, self._progress = plan, output, room, progress
        self._inherited = () if lock is None else (lock,)
        self._running: dict[str, tuple[Trial, runs.Run, str | None]] = {}
        self._waiting: list[Trial] = []
        self._tuning: dict[str, set[str]] = {}
        self._paces: dict[str, float | None] = {}

    def run(self) -> Record:
        """Run everything; return the record with the chosen points. Failed runs are in `failures`.

        Raises:
            UserError: a folder is another study's, the disk is full, or the sources changed. No run goes on then.
            KeyboardInterrupt: it was interrupted. No run goes on then.
        """
        for arm in self._plan.arms:
            trials = [] if arm in self.record.chosen else self._plan.tuning(arm)
            self._tuning[arm] = {trial.name for trial in trials if self._is_due(trial)}
            self._waiting += [trial for trial in trials if trial.name in self._tuning[arm]]
            self._progress.add(len(self._tuning[arm]))
        tuning = len(self._waiting)
        for arm in [arm for arm, names in self._tuning.items() if not names]:
            self._release(arm)
        self._progress.begin(tuning)
        try:
            with disk_named(self._output):
                while self._waiting or self._running:
                    self._fill()
                    self._look()
                    time.sleep(POLL)
        except KeyboardInterrupt:
            self._progress.say("interrupted: each run saves its last complete step …")
            raise
        finally:
            runs.end_all([run for _, run, _ in self._running.values()])
        return self.record

    def _is_due(self, trial: Trial) -> bool:
        """Return True if a run is not finished. Raises UserError if its folder is another study's."""
        record.check_run(self._output, trial.folder, trial.config)
        return not runs.is_finished(self._output / trial.folder)

    def _release(self, arm: str) -> None:
        """Add an arm's runs of the study itself; an arm with a grid gets its best point first."""
        if self._plan.study.arms[arm].grid and arm not in self.record.chosen:
            assert self.record.tuning is not None
            goal = self.record.tuning["measure"]
            best = results.best(results.tuned(self._output, self.record, arm), goal)
            if best is None:
                trial = self._plan.final(arm, self._plan.seeds[0], {})
                self.failures.append(Failure(trial, "not started: a run of its tuning failed or has no measure"))
                return
            self._progress.say(f"{arm}: {best.name} has the best {goal} of its grid, {best.mean(goal):.3f}")
            self.record = self.record.choosing(arm, best.knobs)
            self.record.save(self._output)
        trials = [self._plan.final(arm, seed, self.record.chosen.get(arm, {})) for seed in self._plan.seeds]
        self._waiting += [trial for trial in trials if self._is_due(trial)]
        self._progress.add(sum(self._is_due(trial) for trial in trials))

    def _fill(self) -> None:
        """Start waiting runs where there is a place."""
        while self._waiting and len(self._running) < self._room.workers:
            if record.sources() != self.record.sources:
                raise UserError(
                    "the sources of refinerl changed while the study ran, and its runs would not be comparable: undo "
                    "the change and run the same command again, or choose another --output-dir"
                )
            trial = max(self._waiting, key=lambda trial: (bool(trial.point), self._cost(trial)))
            self._waiting.remove(trial)
            used = [device for _, _, device in self._running.values()]
            device = min(self._room.devices, key=used.count) if self._room.devices else None
            run = runs.Run.start(
                trial.arguments,
                self._output / trial.folder,
                threads=self._room.threads,
                device=device,
                inherited=self._inherited,
            )
            self._running[trial.name] = (trial, run, device)
            self._progress.started(trial, run)

    def _cost(self, trial: Trial) -> float:
        """Estimate a run's seconds from the arm's other runs; without any, return a number that sorts by cost."""
        if trial.arm not in self._paces:
            self._paces[trial.arm] = pace(self._output, trial.arm)
        known = self._paces[trial.arm]
        if known is not None:
            return known * trial.steps
        config = trial.config
        return 1e9 + config.trainer.steps * config.trainer.batch * (2.0 if config.refines else 1.0)

    def _look(self) -> None:
        """Show the running runs, and take leave of those that ended."""
        for name, (trial, run, _) in list(self._running.items()):
            if run.code() is None:
                self._progress.step(trial, run)
                continue
            del self._running[name]
            self._paces.pop(trial.arm, None)
            finished = run.code() == 0 and runs.is_finished(run.folder)
            self._progress.ended(trial, run, finished=finished)
            if not finished:
                if is_full(self._output) or FULL.search(run.last_line()):
                    raise UserError(full(self._output))
                self.failures.append(Failure(trial, run.last_line()))
            if trial.point:
                self._tuning[trial.arm].discard(name)
                if not self._tuning[trial.arm]:
                    self._release(trial.arm)


def pace(output: Path, arm: str) -> float | None:
    """Return the mean seconds of a step over an arm's runs in the folder; None before the first step."""
    places = [*(output / arm).glob("seed-*"), *(output / "tuning" / arm).glob("*/seed-*")]
    times = [
        row["time/step"]
        for place in places
        if runs.is_begun(place)
        for row in read_metrics(place)
        if row["step"] and row.get("time/step") is not None
    ]
    return statistics.fmean(times) if times else None


def is_full(output: Path) -> bool:
    """Return True if the disk that holds a folder has less than 1 MiB left."""
    return output.exists() and shutil.disk_usage(output).free < 2**20


def full(output: Path) -> str:
    """Return the sentence about a full disk."""
    return (
        f"the disk that holds {output} is full; all finished runs and checkpoints are complete: free some space, then "
        "run the same command again"
    )


@contextmanager
def disk_named(output: Path) -> Iterator[None]:
    """Turn the study's own failure to write on a full disk into a UserError."""
    try:
        yield
    except OSError as error:
        if is_full(output) or error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(full(output)) from error
        raise
