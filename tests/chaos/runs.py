"""One run in the chaos, and what must hold of its end."""

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
    """One cell of the matrix: what happens, and how the run that it happens to ends."""

    name: str
    """As in docs/robustness.md."""
    says: str = ""
    """Pattern of the one sentence; empty: the run goes on as if nothing was, and ends with 0."""
    codes: tuple[int, ...] = (1,)
    """Exit codes of the ranks."""
    plan: dict[str, Any] = field(default_factory=dict)
    """`events.Plan`."""
    env: dict[str, str] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    """Of this run, and not of the next."""
    traceback: bool = False
    """The user's own is shown."""
    within: float = 30.0
    """Seconds from the event to the end."""


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
        """How the run ended (`server.End`), and what its ranks wrote to standard error and output."""
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
        """End the process."""
        self._process.communicate(timeout=60)


def check(case: Case, end: dict[str, Any], err: str) -> None:
    """Nobody hung, nothing is left, and one sentence says why."""
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
