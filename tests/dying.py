"""The training command in ranks of which one kills itself when a phase begins."""

from __future__ import annotations

import os
import signal
import sys

from refinerl import launch, train

notice = launch.RankLink.notice


def dying(link: launch.RankLink, phase: str) -> None:
    notice(link, phase)
    if phase == os.environ["DIE_IN"] and link.rank == int(os.environ["DIE_RANK"]):
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    launch.RankLink.notice = dying  # type: ignore[method-assign]
    sys.exit(train.main(sys.argv[1:]))
