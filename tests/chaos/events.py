"""Failures that are injected into a process of a run.

The environment variable CHAOS holds a `Plan` as JSON: a rank, a moment, the occurrence of that moment that counts, and
an event. A moment is the start of a phase, as messages name it (`score`, `checkpoint-`), or a call: `backward`,
`optimizer`, `hand-over`, `shards`, `rollouts`, `metrics`, `judge`, `begin` (creation of the run's folder),
`reward model` (its loading), `model scores`.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import leaks
from refinerl.engines.torch import TorchTrainer
from refinerl.run import checkpoint, launch, tasks
from refinerl.run.telemetry import Telemetry
from refinerl.sandbox import Sandbox
from refinerl.tasks.reward_model import RewardModel

PHASES = ("load ", "engines:", "generate", "score", "refine", "update", "sync", "evaluate", "checkpoint-", "final/")


@dataclass
class Plan:
    """One event, at the `count`-th occurrence of `moment` on `rank`."""

    rank: int
    moment: str
    event: str
    count: int = 1
    leave: int = 0
    """Bytes that stay free on the disk or the device."""
    folder: str = ""
    """A folder on the disk that is filled."""

    @staticmethod
    def read() -> Plan | None:
        """Read the plan for this process; None if there is none."""
        if "CHAOS" not in os.environ:
            return None
        plan = Plan(**json.loads(os.environ["CHAOS"]))
        return plan if plan.rank == int(os.environ.get("RANK", "0")) else None

    def reach(self, moment: str) -> None:
        """Trigger the event if this is its moment."""
        if moment != self.moment:
            return
        self.count -= 1
        if self.count == 0:
            happened()
            EVENTS[self.event](self)


def happened() -> None:
    """Write the time of the event to the logs."""
    Path(os.environ["CHAOS_LOGS"], "event").write_text(str(time.monotonic()))


def kill(plan: Plan) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stop(plan: Plan) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def fill(plan: Plan) -> None:
    """Fill the disk except for `leave` bytes."""
    with Path(plan.folder, "ballast").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            file.truncate(max(0, file.tell() - plan.leave))


def exhaust(plan: Plan) -> None:
    """Limit the pretend device's memory, so that `leave` bytes are free."""
    device = torch.get_device_module("pretend")
    device.set_memory_limit(device.memory_allocated() + plan.leave)


def signalled(number: signal.Signals, *, grandchildren: bool, after: float) -> Callable[[Plan], None]:
    """Make an event that sends a signal to the sandbox's interpreters or to their children, after so many seconds."""

    def send() -> None:
        end = time.monotonic() + 5
        mine = os.getpid()
        time.sleep(after)
        while time.monotonic() < end:
            table = leaks.processes()
            children = [pid for pid, (parent, _) in table.items() if parent == mine]
            found = [pid for pid, (parent, _) in table.items() if parent in children] if grandchildren else children
            for pid in found:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    continue
            if found:
                return

    def event(plan: Plan) -> None:
        if after or grandchildren:
            threading.Thread(target=send, daemon=True).start()
        else:
            send()

    return event


EVENTS: dict[str, Callable[[Plan], None]] = {
    "kill": kill,
    "stop": stop,
    "fill": fill,
    "exhaust": exhaust,
    "kill interpreters": signalled(signal.SIGKILL, grandchildren=False, after=0),
    "stop interpreters": signalled(signal.SIGSTOP, grandchildren=False, after=0),
    "kill busy interpreters": signalled(signal.SIGKILL, grandchildren=False, after=0.05),
    "stop busy interpreters": signalled(signal.SIGSTOP, grandchildren=False, after=0.05),
    "kill programs": signalled(signal.SIGKILL, grandchildren=True, after=0),
    "stop programs": signalled(signal.SIGSTOP, grandchildren=True, after=0),
    "kill launcher": lambda plan: os.kill(os.getppid(), signal.SIGKILL),
    "stop launcher": lambda plan: os.kill(os.getppid(), signal.SIGSTOP),
}


def install(*, engines: bool) -> None:
    """Patch the calls of this process that are moments; with `engines` also those of vLLM and DeepSpeed."""
    plan = Plan.read()
    if plan is None:
        return
    _notice(launch.RankLink if "RANK" in os.environ else launch.Link, plan)
    _inside(TorchTrainer, "backward", plan, "backward", after=True)
    _inside(TorchTrainer, "step", plan, "optimizer")
    _inside(TorchTrainer, "save", plan, "shards", after=True)
    _inside(Telemetry, "rollouts", plan, "rollouts")
    _inside(Telemetry, "log", plan, "metrics")
    _inside(Sandbox, "judge", plan, "judge")
    _inside(checkpoint, "begin", plan, "begin")
    _inside(tasks, "load_reward_model", plan, "reward model")
    _inside(RewardModel, "score", plan, "model scores")
    if engines:
        from refinerl.engines.deepspeed import DeepSpeedTrainer
        from refinerl.engines.vllm import VllmGenerator

        _inside(DeepSpeedTrainer, "backward", plan, "backward", after=True)
        _inside(DeepSpeedTrainer, "step", plan, "optimizer")
        _inside(DeepSpeedTrainer, "save", plan, "shards", after=True)
        _inside(VllmGenerator, "generate", plan, "generated", after=True)
        _hand_over(VllmGenerator, plan)


def _notice(link: Any, plan: Plan) -> None:
    notice = link.notice

    @functools.wraps(notice)
    def noticed(self: Any, phase: str) -> None:
        notice(self, phase)
        for name in PHASES:
            if phase.startswith(name):
                plan.reach(name)

    link.notice = noticed


def _inside(owner: Any, name: str, plan: Plan, moment: str, *, after: bool = False) -> None:
    """Patch a call so that its start, or with `after` its end, is a moment."""
    call = getattr(owner, name)

    @functools.wraps(call)
    def reached(*arguments: Any, **options: Any) -> Any:
        if not after:
            plan.reach(moment)
        result = call(*arguments, **options)
        if after:
            plan.reach(moment)
        return result

    setattr(owner, name, reached)


def _hand_over(engine: Any, plan: Plan) -> None:
    """Patch an engine so that there is a moment when it has taken the first of the trainer's weights."""
    load = engine.load

    def loading(self: Any, weights: Iterable[Any]) -> None:
        def given() -> Iterator[Any]:
            source = iter(weights)
            yield from itertools.islice(source, 1)
            plan.reach("hand-over")
            yield from source

        load(self, given())

    engine.load = loading
