"""A training run in a process of its own: its start, its rows as they appear, its end."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

PINNED = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "RAYON_NUM_THREADS")
"""Environment variables that bound the threads of the libraries that a run uses."""

PATIENCE = 600.0
"""Seconds that an interrupted run has to finish its step and to save its state."""


def words(knobs: Mapping[str, Any]) -> list[str]:
    """Write knobs as words of the command line.

    >>> words({"constraint.beta": 0.1, "generation.stop": ["a", "b"], "lora.rank": None})
    ['constraint.beta=0.1', 'generation.stop=["a", "b"]', 'lora.rank=null']
    """
    return [f"{key}={value if _bare(value) else json.dumps(value, ensure_ascii=False)}" for key, value in knobs.items()]


def _bare(value: Any) -> bool:
    """Return True for a text that YAML reads as itself, such as a name or a path."""
    return isinstance(value, str) and bool(_PLAIN.fullmatch(value)) and yaml.safe_load(value) == value


_PLAIN = re.compile(r"[A-Za-z_./][\w./:+-]*")


def environment(threads: int, device: str | None = None) -> dict[str, str]:
    """Return the environment of a run's process: this one's, with pinned threads and, if named, one CUDA device."""
    pinned = dict.fromkeys(PINNED, str(threads)) | {"TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **pinned} | ({} if device is None else {"CUDA_VISIBLE_DEVICES": device})


def is_finished(folder: Path) -> bool:
    """Return True if a run has written its model, which it does at its end."""
    return (folder / "final").is_dir()


def is_begun(folder: Path) -> bool:
    """Return True if the folder holds a run, finished or not."""
    return (folder / "config.yaml").exists()


@dataclass
class Run:
    """A process of `python -m refinerl.train`, whose output goes to a file beside its folder, FOLDER.log."""

    folder: Path
    process: subprocess.Popen[bytes]
    started: float
    _tail: Tail = field(init=False)

    def __post_init__(self) -> None:
        self._tail = Tail(self.folder / "metrics.jsonl")

    @staticmethod
    def start(
        arguments: Sequence[str],
        folder: Path,
        *,
        threads: int = 1,
        device: str | None = None,
        inherited: Sequence[int] = (),
        log: Path | None = None,
    ) -> Run:
        """Start a run, or continue the one that the folder holds.

        The process has a session of its own, so that Ctrl-C in the terminal reaches it only through `interrupt`. It is
        interrupted if this process dies.

        Args:
            arguments: recipe, parts and overrides.
            folder: the run's.
            threads: threads of each library.
            device: index or UUID of the CUDA device; None: all that this process sees.
            inherited: file descriptors that the process keeps open.
            log: the file that the output is appended to; None: FOLDER.log.

        Raises:
            OSError: the log cannot be written.
        """
        folder.parent.mkdir(parents=True, exist_ok=True)
        resume = ["--resume"] if is_begun(folder) else []
        command = [sys.executable, "-m", "refinerl.train", *arguments, "--output-dir", str(folder), *resume]
        with (log or log_of(folder)).open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(threads, device),
                start_new_session=True,
                pass_fds=inherited,
                preexec_fn=_bound(os.getpid()),
            )
        return Run(folder, process, time.monotonic())

    def rows(self) -> list[dict[str, Any]]:
        """Return all complete rows of metrics.jsonl so far. Only what was appended since the last call is read."""
        return self._tail.rows()

    def code(self) -> int | None:
        """Return the exit code, or None while the process runs; −N if signal N ended it."""
        return self.process.poll()

    def interrupt(self) -> None:
        """Ask the run to save its last complete step and to end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)

    def end(self, patience: float = PATIENCE) -> int:
        """Wait for the end, and kill the process and its children after `patience` seconds; return the exit code."""
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            return self.process.wait()

    def last_line(self) -> str:
        """Return the last line of the output, and the signal if one ended the process."""
        code = self.process.poll()
        killed = f"killed by {signal.Signals(-code).name}" if code is not None and code < 0 else ""
        return "; ".join(part for part in (killed, last_line(log_of(self.folder))) if part) or "no output"


def end_all(runs: Sequence[Run], patience: float = PATIENCE) -> None:
    """Interrupt runs together, then wait for each; a further Ctrl-C kills them."""
    for run in runs:
        run.interrupt()
    deadline = time.monotonic() + patience
    try:
        for run in runs:
            run.end(max(deadline - time.monotonic(), 0.1))
    except KeyboardInterrupt:
        for run in runs:
            run.end(0.1)
        raise


def log_of(folder: Path) -> Path:
    """Return the file beside a run's folder that its output goes to: a run's folder must be empty at its start."""
    return folder.with_name(f"{folder.name}.log")


def last_line(log: Path, size: int = 65536) -> str:
    """Return the last line of a file that is not blank, from its last `size` bytes; empty if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(log.stat().st_size - size, 0))
            lines = file.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


class Tail:
    """The rows of a file of JSON lines that another process appends to, and replaces when it resumes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = 0
        self._offset = 0
        self._rows: list[dict[str, Any]] = []

    def rows(self) -> list[dict[str, Any]]:
        """Return all complete rows. The list is the caller's own."""
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._file or status.st_size < self._offset:
                    self._file, self._offset, self._rows = status.st_ino, 0, []
                file.seek(self._offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._offset += len(line)
                    self._rows.append(json.loads(line))
        except FileNotFoundError:
            self._rows = []
        return list(self._rows)


def _bound(parent: int) -> Callable[[], None]:
    """Return a function for the new process: SIGINT interrupts it, also when `parent` dies (on Linux)."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
        if libc is not None:
            libc.prctl(1, signal.SIGINT)  # PR_SET_PDEATHSIG
            if os.getppid() != parent:
                os._exit(130)

    return prepare
