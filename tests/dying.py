"""The training command in ranks of which one kills itself in the middle of something.

DIE_IN says when: a phase (`score of step 2`), or within one `measure`, `optimizer` or `shards` of a step.
DIE_RANK says who; the moment is written to the file DIE_LOG, by the machine's monotonic clock.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from refinerl import train
from refinerl.engines.deepspeed import DeepSpeedTrainer
from refinerl.loop.update import Updater
from refinerl.run import launch

where = {"rank": -1, "step": ""}


def die(moment: str) -> None:
    if moment == os.environ["DIE_IN"] and where["rank"] == int(os.environ["DIE_RANK"]):
        Path(os.environ["DIE_LOG"]).write_text(str(time.monotonic()))
        os.kill(os.getpid(), signal.SIGKILL)


def noticing(notice: Callable[..., None]) -> Callable[..., None]:
    def dying(link: launch.RankLink, phase: str) -> None:
        notice(link, phase)
        where["rank"] = link.rank
        where["step"] = phase.partition(" of ")[2] or phase.replace("checkpoint-", "step ")
        die(phase)

    return dying


def within(owner: Any, method: str, moment: str, *, after: bool = False) -> None:
    """Makes a method a moment to die: before it does anything, or when it is done and nothing else is."""
    call = getattr(owner, method)

    def dying(*arguments: Any, **options: Any) -> Any:
        result = call(*arguments, **options) if after else None
        die(f"{moment} of {where['step']}")
        return result if after else call(*arguments, **options)

    setattr(owner, method, dying)


if __name__ == "__main__":
    launch.RankLink.notice = noticing(launch.RankLink.notice)  # type: ignore[method-assign]
    within(Updater, "measure", "measure", after=True)
    within(DeepSpeedTrainer, "step", "optimizer")
    within(DeepSpeedTrainer, "save", "shards", after=True)
    launch.end_process(train.main(sys.argv[1:]))
