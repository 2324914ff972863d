"""Each check in a process of its own with a limit, and one line of JSON for each, whatever becomes of it."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

from gpu_check import bundle
from gpu_check.checks import Check, Round
from gpu_check.site import ROOT, Site, SkipError

SHORTEST = 5.0
"""Seconds that a check must have left to be started."""
PATIENCE = 3
"""A rehearsal's limits are so much longer: its machine may have two processors, and more to do."""
TAIL = 600
"""Characters of what a failed check printed last that its line keeps."""


class Report:
    """Lines of JSON on standard output and in a folder; what the processes printed lies beside them."""

    def __init__(self, output: Path | None) -> None:
        self.outcomes: dict[str, str] = {}
        self.hopeless = ""
        """Why no further check can run here."""
        self._lock = Lock()
        self._files = contextlib.ExitStack()
        self._lines = self._log = None
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
            self._lines = self._files.enter_context((output / "gpu-check.jsonl").open("w"))
            self._log = self._files.enter_context((output / "gpu-check.log").open("w"))

    def say(self, line: dict[str, Any], printed: str = "") -> None:
        """A line, at once."""
        text = json.dumps(line, default=str)
        with self._lock:
            if "check" in line:
                self.outcomes[line["check"]] = line["outcome"]
            print(text, flush=True)
            for file, content in ((self._lines, text), (self._log, f"==> {line.get('check')}\n{printed[-200_000:]}")):
                if file is not None:
                    print(content, file=file, flush=True)

    def close(self) -> None:
        self._files.close()


def run_all(
    rounds: Sequence[Round],
    device: str,
    *,
    packages: Path | None = None,
    output: Path | None = None,
    limit: float = 480,
    only: Sequence[str] | None = None,
) -> int:
    """Runs the checks; returns the exit status."""
    began = time.monotonic()
    report = Report(output)
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder, contextlib.closing(report):
        paths = [ROOT / "tests", ROOT / "python"]
        if packages is not None:
            paths.append(bundle.unpack(packages, Path(folder) / "packages", ROOT / "python"))
        environment = _environment(device, paths)
        for turn in rounds:
            checks = [check for check in turn.checks if not only or check.name in only]
            with ThreadPoolExecutor(_at_a_time(turn, device)) as pool:
                for check in checks:
                    place = Path(folder) / check.name.replace("/", "-").replace(" ", "-")
                    pool.submit(_guarded, report, check, device, place, environment, began + limit)
        counts = {outcome: [n for n, o in report.outcomes.items() if o == outcome] for outcome in OUTCOMES}
        seconds = round(time.monotonic() - began, 1)
        report.say({"summary": {"passed": len(counts.pop("passed")), **counts}, "device": device, "seconds": seconds})
    return 1 if counts["failed"] or counts["not reached"] else 0


OUTCOMES = ("passed", "failed", "skipped", "not reached")


def _at_a_time(turn: Round, device: str) -> int:
    """A check of a run is two processes, on the device and on the CPU; a rehearsal times nothing."""
    processors = os.cpu_count() or 1
    return processors if device == "cpu" else max(1, min(turn.together, processors // 2))


def _environment(device: str, paths: Sequence[Path]) -> dict[str, str]:
    given = os.environ.get("PYTHONPATH")
    found = [*map(str, paths), *([given] if given else [])]
    without = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"} if device == "cpu" else {}
    quiet = {"PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, **quiet, **without, "PYTHONPATH": os.pathsep.join(found)}


def _guarded(report: Report, check: Check, *rest: Any) -> None:
    """A line even where the runner itself fails."""
    try:
        _run(report, check, *rest)
    except BaseException:
        report.say({"check": check.name, "outcome": "failed", "reason": traceback.format_exc()[-TAIL:]})


def _run(report: Report, check: Check, device: str, place: Path, environment: dict[str, str], deadline: float) -> None:
    if device == "cpu" and not check.rehearsed:
        report.say({"check": check.name, "outcome": "skipped", "reason": "needs a CUDA device"})
        return
    began = time.monotonic()
    limit = min(check.limit * (PATIENCE if device == "cpu" else 1), deadline - began)
    over = "the time for all checks was over" if deadline - began < SHORTEST else ""
    if reason := report.hopeless or over:
        report.say({"check": check.name, "outcome": "not reached", "reason": reason})
        return
    place.mkdir()
    command = [sys.executable, "-m", "gpu_check", "--one", device, str(place), check.module, *check.arguments]
    with (place / "printed").open("w") as printed:
        process = subprocess.Popen(
            command, stdout=printed, stderr=subprocess.STDOUT, env=environment, cwd=ROOT, start_new_session=True
        )
        try:
            status: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    said = (place / "printed").read_text(errors="replace")
    line = {"check": check.name, "outcome": "passed", "seconds": round(time.monotonic() - began, 1)}
    facts = list(_facts(place))
    wrong = [fact["wrong"] for fact in facts if "wrong" in fact]
    report.hopeless = next((fact["hopeless"] for fact in facts if "hopeless" in fact), report.hopeless)
    skipped = [fact["skipped"] for fact in facts if "skipped" in fact]
    if status != 0:
        what = f"took more than {limit:.0f} s" if status is None else f"ended with status {status}"
        line |= {"outcome": "failed", "reason": f"{what}; printed last: {said.strip()[-TAIL:]}"}
    elif wrong:
        line |= {"outcome": "failed", "reason": "; ".join(wrong)}
    elif skipped:
        line |= {"outcome": "skipped", "reason": skipped[0]}
    report.say({**line, "facts": [fact for fact in facts if "skipped" not in fact]}, said)


def _facts(place: Path) -> Iterator[dict[str, Any]]:
    """What the check said before it ended, however it ended."""
    file = place / "facts.jsonl"
    for line in file.read_text().splitlines() if file.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):  # it may have died within a line
            yield json.loads(line)


def run_here(device: str, folder: Path, name: str, *arguments: str) -> None:
    """The check of a module; its facts go to `facts.jsonl` in the folder as they come."""
    module = importlib.import_module(name)
    with (folder / "facts.jsonl").open("w") as file:
        try:
            for fact in module.run(Site(device, folder), *arguments):
                print(json.dumps(fact, default=str), file=file, flush=True)
        except SkipError as why:
            print(json.dumps({"skipped": str(why)}), file=file)
