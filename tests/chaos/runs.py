"""One run of the chaos matrix, and the checks of its end."""

from __future__ import annotations

import json
import re
import select
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launching import environment

SERVER = Path(__file__).with_name("server.py")
OURS = re.compile(r"^(?:error|stopped): .*$", re.MULTILINE)


@dataclass(frozen=True)
class Case:
    """One cell of the matrix: a failure, and the expected end of the run."""

    name: str
    """Name of the case in docs/robustness.md."""
    says: str = ""
    """Pattern of the message; if empty, the run continues undisturbed and exits with code 0."""
    codes: tuple[int, ...] = (1,)
    """Expected exit codes of the ranks."""
    plan: dict[str, Any] = field(default_factory=dict)
    """Fields of `events.Plan`."""
    env: dict[str, str] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    """Options of this run, but not of the run that resumes it."""
    traceback: bool = False
    """True if the traceback of the user's code is shown."""
    within: float = 30.0
    """Longest time from the event to the end, in seconds."""


class Server:
    """A process that starts runs by fork."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self._folder = folder
        self._count = 0
        self._process = subprocess.Popen(
            [sys.executable, str(SERVER), *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "server").open("w"),
            text=True,
            env=environment(CUDA_VISIBLE_DEVICES=""),
        )

    def run(
        self, arguments: Sequence[str], *, ranks: int = 1, limit: float = 150, case: Case | None = None
    ) -> tuple[dict[str, Any], str, str]:
        """Run to the end; return the end (`server.End`) and the ranks' standard error and output."""
        self._count += 1
        logs = self._folder / str(self._count)
        logs.mkdir()
        env = dict(case.env) if case else {}
        if case and case.plan:
            env["CHAOS"] = json.dumps(case.plan)
        order = {"arguments": list(arguments), "logs": str(logs), "ranks": ranks, "limit": limit, "env": env}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(order), file=self._process.stdin, flush=True)
        ready, _, _ = select.select([self._process.stdout], [], [], limit + 60)
        assert ready, f"the server is silent: {(self._folder / 'server').read_text()[-2000:]}"
        answer = self._process.stdout.readline()
        assert answer, (self._folder / "server").read_text()[-2000:]
        err, out = ("".join(path.read_text() for path in sorted(logs.glob(f"*.{kind}"))) for kind in ("err", "out"))
        end = json.loads(answer)
        event = logs / "event"
        end["after"] = end["ended"] - float(event.read_text()) if event.exists() else None
        return end, err, out

    def close(self) -> None:
        """End the server process."""
        self._process.communicate(timeout=60)


def check(case: Case, end: dict[str, Any], err: str) -> None:
    """Check that no rank hung, no process or shared memory is left, and one message gives the reason."""
    told = f"{case.name}: {end}\n{err[-3000:]}"
    assert not end["hung"], told
    assert not end["left"], told
    assert end["after"] is not None, f"nothing happened: {told}"
    assert end["after"] < case.within, told
    assert tuple(end["codes"]) == (case.codes if case.says else (0,) * len(case.codes)), told
    said = OURS.findall(err)
    assert len(said) == (1 if case.says else 0), told
    assert not case.says or re.search(case.says, said[0]), told
    assert ("Traceback" in err) == case.traceback, told
