"""Output of a run: metrics.jsonl, rollouts/, trackers, a line per step, a progress bar per phase."""

from __future__ import annotations

import importlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from refinerl.contracts import ALONE, World
from refinerl.data.files import write
from refinerl.errors import UserError, pip_install
from refinerl.records import Anchors, RolloutGroup
from refinerl.report import rows
from refinerl.run import memory

PHASES = ("generate", "score", "refine", "update", "sync")


class Tracker(Protocol):
    """A service that metrics are also sent to."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Send one step's metrics, without those that have no value."""

    def close(self) -> None:
        """Send what is pending."""


class Telemetry:
    """Writes the files of a run and shows its progress. With several ranks, only the first writes and prints.

    Args:
        folder: the run's.
        console: where lines and progress bars are shown.
        steps: steps of the whole run.
        trackers: services that metrics are also sent to.
        world: the ranks of the run.
        notice: called with the name of every phase that begins.
        settle: waits for the device at the end of a phase, so that pending work is not attributed to the next one.
        on_step: called with the row of each finished step, in place of a line on the console.
    """

    def __init__(
        self,
        folder: Path,
        console: Console,
        steps: int,
        trackers: Sequence[Tracker] = (),
        *,
        world: World = ALONE,
        notice: Callable[[str], None] = lambda _: None,
        settle: Callable[[], None] = lambda: None,
        on_step: Callable[[Mapping[str, Any]], Any] | None = None,
    ) -> None:
        self.settle = settle
        self.folder = folder
        self.world = world
        self.notice = notice
        self.on_step = on_step
        self.console = console
        self.steps = steps
        self.trackers = trackers
        self._times: dict[str, float] = {}
        self._step = 0
        self._start = 0.0
        self._bar: tuple[Progress, TaskID] | None = None
        self._row: Mapping[str, Any] = {}

    @contextmanager
    def step(self, step: int) -> Iterator[None]:
        """Time one step, within which `log` is called; at the end call `on_step` with its row.

        Step 0 is the evaluation before training. Its row has no times but those of its own phases, and `on_step` is
        not called with it.
        """
        self._row = {}
        self._times = dict.fromkeys(PHASES, 0.0) if step else {}
        self._step = step
        self._start = time.perf_counter()
        yield
        if self.on_step is not None and self._row and step:
            self.on_step(self._row)

    @contextmanager
    def clock(self, phase: str, total: int | None = None) -> Iterator[None]:
        """Time a phase of the step and show that it runs; with a `total`, also its progress."""
        start = time.perf_counter()
        self.notice(f"{phase} of step {self._step}")
        with self._shown(f"step {self._step}/{self.steps} · {phase}", total), memory.explained(phase):
            yield
            self.settle()
        self.notice(f"after {phase} of step {self._step}")
        self._times[phase] = self._times.get(phase, 0.0) + time.perf_counter() - start

    @contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """Show that something runs that is not a phase of a step."""
        start = time.perf_counter()
        self.notice(what)
        with self._shown(what), memory.explained(what):
            yield
            self.settle()
        if not self.console.is_terminal and self.on_step is None:
            self.say(f"{what}: {time.perf_counter() - start:.1f} s")

    def tick(self, done: int) -> None:
        """Advance the progress of the current phase by `done`."""
        if self._bar is not None:
            progress, task = self._bar
            progress.advance(task, done)

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, highlight=False, soft_wrap=True)

    @contextmanager
    def _shown(self, label: str, total: int | None = None) -> Iterator[None]:
        if not self.console.is_terminal:
            yield
            return
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            self._bar = (progress, progress.add_task(label, total=total))
            try:
                yield
            finally:
                self._bar = None

    def log(self, metrics: Mapping[str, float]) -> None:
        """Append the step's row to metrics.jsonl. Times are the longest over all ranks.

        `metrics` already cover all ranks.
        """
        mine = {f"time/{phase}": seconds for phase, seconds in self._times.items()}
        if self._step:
            mine["time/step"] = time.perf_counter() - self._start
        every = self.world.all_gather_object(mine)
        times = {name: max(times[name] for times in every) for name in mine}
        if self.world.rank:
            return
        row = {**metrics, **times}
        record = rows.metrics_row(self._step, row)
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        for tracker in self.trackers:
            tracker.log({name: value for name, value in row.items() if math.isfinite(value)}, self._step)
        self._row = record
        if self.on_step is None:
            self.say(self._line(row))

    def _line(self, row: Mapping[str, float]) -> str:
        parts = [
            ("reward", "reward/mean", "{:+.3f}"),
            ("pass", "reward/pass_rate", "{:.0%}"),
            ("KL", "policy/kl_to_reference", "{:.4f}"),
            ("entropy", "policy/entropy", "{:.2f}"),
            ("improved", "refiner/improved_ratio", "{:.0%}"),
            ("CE", "constraint/ce", "{:.3f}"),
            ("CE of the probe", "refiner/ce", "{:.3f}"),
            ("held out", "evaluate/pass@1", "{:.1%}"),
            ("held-out reward", "evaluate/reward", "{:+.3f}"),
            ("", "time/step", "{:.1f} s"),
        ]
        shown = [
            f"{label} {form.format(row[name])}".strip()
            for label, name, form in parts
            if not math.isnan(row.get(name, math.nan))
        ]
        return f"[bold]step {self._step}/{self.steps}[/]  " + "  ".join(shown)

    def rollouts(self, groups: Sequence[RolloutGroup], kept: Sequence[RolloutGroup], anchors: Anchors) -> None:
        """Write rollouts/step-N.jsonl: every y of all ranks, with its ỹ if there is one."""
        mine = [(group.position, row) for group, row in self._rows(groups, kept, anchors)]
        every = [row for part in self.world.all_gather_object(mine) for row in part]
        if self.world.size > 1:
            every.sort(key=lambda row: row[0])
        if self.world.rank:
            return
        write(self.folder / "rollouts" / f"step-{self._step}.jsonl", (f"{row}\n" for _, row in every))

    def _rows(
        self, groups: Sequence[RolloutGroup], kept: Sequence[RolloutGroup], anchors: Anchors
    ) -> Iterator[tuple[RolloutGroup, str]]:
        refined = {r.rollout.key: r for r in anchors.refinements}
        probed = {r.rollout.key: r for r in anchors.probes or ()}
        selected = {r.key for group in kept for r in group.rollouts}
        for group in groups:
            for rollout in group.rollouts:
                key = rollout.key
                row = rows.rollout_row(
                    self._step, rollout, refined.get(key), selected=key in selected, probe=probed.get(key)
                )
                yield group, rows.to_json(row)

    def close(self) -> None:
        """Close the trackers."""
        for tracker in self.trackers:
            tracker.close()


# --- trackers -----------------------------------------------------------------------------------


class _TensorBoard:
    def __init__(self, folder: Path) -> None:
        self._writer: Any = _module("torch.utils.tensorboard", "tensorboard").SummaryWriter(str(folder / "tensorboard"))

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _Run:
    """A run of wandb or trackio, which have the same interface: init(project=, name=), log(dict, step=), finish()."""

    def __init__(self, name: str, folder: Path, config: Mapping[str, Any]) -> None:
        self._module: Any = _module(name, name)
        self._module.init(project="refinerl", name=folder.name, config=dict(config))

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._module.log(dict(metrics), step=step)

    def close(self) -> None:
        self._module.finish()


def make_trackers(names: Sequence[str], folder: Path, config: Mapping[str, Any]) -> list[Tracker]:
    """Make the trackers that are asked for.

    Raises:
        UserError: one is not installed.
    """
    return [_TensorBoard(folder) if name == "tensorboard" else _Run(name, folder, config) for name in names]


def _module(name: str, package: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"telemetry.trackers asks for {package}, which is not installed: {pip_install(package)}"
        ) from error
