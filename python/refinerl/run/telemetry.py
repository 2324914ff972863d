"""Output of a run: metrics.jsonl, rollouts/, trackers, and what the console shows of them."""

from __future__ import annotations

import heapq
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from refinerl.contracts import ALONE, World
from refinerl.data.files import write
from refinerl.loop.details import Details, pieces
from refinerl.records import Anchors, RolloutGroup
from refinerl.report import rows
from refinerl.report.metrics import metrics_row, read_metrics
from refinerl.report.reading import from_json
from refinerl.run import memory
from refinerl.run.display import Display
from refinerl.run.trackers import Delivery, Tracker
from refinerl.run.trackers.examples import due, example

PHASES = ("generate", "score", "refine", "update", "sync")
NO_DETAILS = Details()


class Telemetry:
    """Writes the files of a run and shows its progress. With several ranks, only the first writes and prints.

    Args:
        folder: the run's.
        console: where the run is shown.
        steps: steps of the whole run.
        trackers: services that metrics and responses are also sent to.
        world: the ranks of the run.
        notice: called with the name of every phase that begins.
        settle: waits for the device at the end of a phase, so that pending work is not attributed to the next one.
        peak: measures memory, by metric name: the most that this process has used so far.
        on_step: called with the row of each finished step, in place of what the console would show of it.
        quiet: show warnings only.
        completions: responses of a step that are sent to the trackers.
        completions_every: steps between those whose responses are sent; 0: see `examples.due`.
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
        peak: Callable[[], Mapping[str, float]] = dict,
        on_step: Callable[[Mapping[str, Any]], Any] | None = None,
        quiet: bool = False,
        completions: int = 0,
        completions_every: int = 0,
    ) -> None:
        self.settle = settle
        self.peak = peak
        self.folder = folder
        self.world = world
        self.notice = notice
        self.on_step = on_step
        self.steps = steps
        self.display = Display(console, steps, quiet=quiet or world.rank > 0, lines=on_step is None)
        self.decode: Callable[[Sequence[int]], str] = lambda ids: ""
        """Decodes tokens for the rollouts' details; set once the tokenizer is loaded."""
        self.delivery = Delivery(trackers, self.say)
        self._completions, self._completions_every = completions, completions_every
        self._chosen: list[rows.RolloutRow] = []
        self._times: dict[str, float] = {}
        self._step = 0
        self._start = 0.0
        self._first: tuple[int, float] | None = None
        self._left: float | None = None
        self._row: Mapping[str, Any] = {}
        self._is_first_row = True

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
        if self._first is None and step:
            self._first = step, self._start
        self.display.begin(step)
        yield
        if self.on_step is not None and self._row and step:
            self.on_step(self._row)

    @contextmanager
    def clock(self, phase: str, total: int | None = None) -> Iterator[None]:
        """Time a phase of the step and show that it runs; with a `total`, also its progress."""
        start = time.perf_counter()
        self.notice(f"{phase} of step {self._step}")
        with self.display.phase(phase, total), memory.explained(phase):
            yield
            self.settle()
        self.notice(f"after {phase} of step {self._step}")
        self._times[phase] = self._times.get(phase, 0.0) + time.perf_counter() - start

    @contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """Show that something runs that is not a phase of a step."""
        start = time.perf_counter()
        self.notice(what)
        with self.display.phase(what), memory.explained(what):
            yield
            self.settle()
        self.display.took(what, time.perf_counter() - start)

    def tick(self, done: int) -> None:
        """Advance the progress of the current phase by `done`."""
        self.display.tick(done)

    def expect(self, total: int) -> None:
        """Set the total of the current phase's progress, where it becomes known within the phase."""
        self.display.expect(total)

    def say(self, text: str) -> None:
        """Print a line, in yellow if it begins with `warning: `. What a terminal would obey in it is escaped."""
        self.display.say(text)

    def log(self, metrics: Mapping[str, float]) -> None:
        """Append the step's row to metrics.jsonl. Times and memory are the largest over all ranks.

        `metrics` already cover all ranks.
        """
        mine = {f"time/{phase}": seconds for phase, seconds in self._times.items()}
        if self._step:
            mine["time/step"] = time.perf_counter() - self._start
            mine |= self.peak()
        every = self.world.all_gather_object(mine)
        times = {name: max(times[name] for times in every) for name in mine}
        if self._step:
            times |= _rates(
                times, metrics.get("tokens/step", math.nan), metrics.get("update/constraint_share", math.nan)
            )
        if self._first is not None:
            begun, start = self._first
            self._left = (time.perf_counter() - start) / (self._step + 1 - begun) * (self.steps - self._step)
        if self.world.rank:
            return
        row = {**metrics, **times}
        record = metrics_row(self._step, row)
        if self.delivery and self._is_first_row:
            self.delivery.catch_up(read_metrics(self.folder))
        self._is_first_row = False
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self.delivery.log({name: value for name, value in row.items() if math.isfinite(value)}, self._step)
        if self._chosen and due(self._step, self.steps, self._completions_every):
            self.delivery.tell([example(chosen) for chosen in self._chosen], self._step)
        self._row = record
        self.display.log(row, self._step, self._left)

    def rollouts(
        self,
        groups: Sequence[RolloutGroup],
        kept: Sequence[RolloutGroup],
        anchors: Anchors,
        details: Details = NO_DETAILS,
    ) -> None:
        """Write rollouts/step-N.jsonl: every y of all ranks, with its ỹ if there is one, and their details."""
        mine = [
            (group.position, _order(row), rows.to_json(row))
            for group, row in self._rows(groups, kept, anchors, details)
        ]
        every = [row for part in self.world.all_gather_object(mine) for row in part]
        if self.world.size > 1:
            every.sort(key=lambda row: row[0])
        if self.world.rank:
            return
        write(self.folder / "rollouts" / f"step-{self._step}.jsonl", (f"{row}\n" for *_, row in every))
        self._show([(order, row) for _, order, row in every])

    def _show(self, lines: Sequence[tuple[Order, str]]) -> None:
        """Choose the responses of the step that the view and the trackers show: those whose refinements gain most."""
        wanted = max(self._completions if self.delivery else 0, int(self.display.is_live))
        best = heapq.nsmallest(wanted, lines, key=lambda line: line[0])
        chosen = [from_json("a response of the step", json.loads(line)) for _, line in best]
        self._chosen = chosen[: self._completions]
        if chosen and chosen[0].as_probe().refinement is not None:
            self.display.show(chosen[0].as_probe())

    def _rows(
        self, groups: Sequence[RolloutGroup], kept: Sequence[RolloutGroup], anchors: Anchors, details: Details
    ) -> Iterator[tuple[RolloutGroup, rows.RolloutRow]]:
        refined = {r.rollout.key: r for r in anchors.refinements}
        probed = {r.rollout.key: r for r in anchors.probes or ()}
        selected = {r.key for group in kept for r in group.rollouts}
        for group in groups:
            for rollout in group.rollouts:
                key = rollout.key
                row = rows.rollout_row(
                    self._step,
                    rollout,
                    refined.get(key),
                    selected=key in selected,
                    probe=probed.get(key),
                    advantage=details.advantages.get(key),
                    logprobs=details.logprobs.get(key),
                    split=self._split,
                )
                yield group, row

    def _split(self, ids: Sequence[int]) -> tuple[str, ...]:
        """Split the text of tokens by token."""
        return pieces(ids, self.decode)

    def leave(self) -> None:
        """Take the view off the console after the last step."""
        self.display.leave()

    def close(self, *, failed: bool = False) -> None:
        """Take the view off the console and close the trackers. One that fails is named, and fails no run.

        `failed` is True if the run ends with an error or is interrupted.
        """
        self.display.leave()
        self.delivery.close(failed=failed)


Order = tuple[float, int]
"""The place of a response among those of a step; the least comes first."""


def _order(row: rows.RolloutRow) -> Order:
    """Order responses by the gain of their refinements, the greatest first, and those without by their sample."""
    gain = row.as_probe().gain
    return math.inf if gain is None else -gain, row.sample


def _rates(times: Mapping[str, float], tokens: float, constraint: float) -> dict[str, float]:
    """Compute each phase's share of a step, what is left for everything else, and the tokens per second.

    `constraint` is the constraint's share of the update. With the refinement it makes the constraint's share of the
    step, which is left out where it is 0.

    >>> _rates({"time/generate": 3.0, "time/update": 4.0, "time/step": 8.0}, 400.0, 0.0)
    {'time/generate_share': 0.375, 'time/update_share': 0.5, 'time/other_share': 0.125, 'time/tokens_per_second': 50.0}
    >>> _rates({"time/refine": 3.0, "time/update": 4.0, "time/step": 8.0}, 400.0, 0.25)["time/constraint_share"]
    0.5
    """
    step = times["time/step"]
    if not step:
        return {}
    phases = [name for name in times if name.startswith("time/") and name != "time/step"]
    shares = {f"{name}_share": times[name] / step for name in phases}
    other = max(0.0, 1.0 - math.fsum(shares.values()))
    spent = (times.get("time/refine", 0.0) + constraint * times.get("time/update", 0.0)) / step
    if spent > 0:
        shares["time/constraint_share"] = spent
    return {**shares, "time/other_share": other, "time/tokens_per_second": tokens / step}
