"""A server that starts runs of the training command by fork, after importing everything, so that starts are fast.

python server.py [--engines] [--pretend] reads each run as JSON from standard input (`Order`) and answers with its end
as JSON (`End`). Each rank writes to its own files. There is no launcher that would end the remaining ranks when one
ends: they must do so themselves. Processes that a rank leaves behind become children of this process and are counted.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import importlib
import json
import os
import signal
import socket
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import leaks

PATIENCE = 5.0
"""Seconds after the last rank's end within which the processes that ranks have started must end."""


ENGINES = (
    "deepspeed",
    "vllm.entrypoints.llm",
    "vllm.v1.worker.cpu_worker",
    "vllm.model_executor.models.llama",
    "vllm.model_executor.model_loader",
    "vllm.v1.attention.backends.cpu_attn",
)
"""Modules that the first engines import, which takes seconds."""


@dataclass(frozen=True)
class Order:
    """A run to start."""

    arguments: list[str]
    logs: str
    """Folder for the output of the ranks."""
    ranks: int = 1
    limit: float = 60.0
    """Seconds after which the run counts as hung."""
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class End:
    """The end of a run."""

    codes: list[int]
    """Exit code of each rank; negative for a signal."""
    seconds: float
    ended: float
    """Time of the last rank's end, by the machine's monotonic clock."""
    hung: list[int]
    """Ranks that were killed at the limit."""
    left: list[str]
    """Processes that outlived the ranks, and files in shared memory that the ranks had mapped and not removed."""


def start(order: Order, rank: int, port: int) -> int:
    """Fork one rank; return its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        for number, name in ((1, "out"), (2, "err")):
            file = os.open(Path(order.logs, f"rank-{rank}.{name}"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(file, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ |= {"TORCHDYNAMO_DISABLE": "1", "CHAOS_LOGS": order.logs, **order.env}
        if order.ranks > 1:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(order.ranks)}
            os.environ |= {"LOCAL_WORLD_SIZE": str(order.ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        faulthandler.register(signal.SIGUSR1, all_threads=True)
        from chaos import events
        from refinerl import train
        from refinerl.run import launch

        events.install(engines="deepspeed" in sys.modules)
        code = train.main(order.arguments)
        launch.end_process(code)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 70
    except BaseException:
        import traceback

        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def serve(order: Order) -> End:
    """Start a run, wait for its end and return it."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = int(found.getsockname()[1])
    begun = time.monotonic()
    ranks = [start(order, rank, port) for rank in range(order.ranks)]
    codes: dict[int, int] = {}
    hung: list[int] = []
    shared: set[Path] = set()
    looked = 0.0
    while len(codes) < len(ranks):
        for pid, code in reaped():
            if pid in ranks:
                codes[pid] = code
        if time.monotonic() - begun > order.limit and not hung:
            hung = [rank for rank, pid in enumerate(ranks) if pid not in codes]
            for number in (signal.SIGUSR1, signal.SIGKILL):  # print the tracebacks, then kill
                for rank in hung:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(ranks[rank], number)
                time.sleep(1)
        if time.monotonic() - looked > 0.5:
            looked = time.monotonic()
            shared |= leaks.shared_memory([pid for pid in ranks if pid not in codes])
        time.sleep(0.02)
    ended = time.monotonic()
    return End(
        [codes[pid] for pid in ranks],
        ended - begun,
        ended,
        hung,
        left() + sorted(str(path) for path in shared if path.exists()),
    )


def reaped() -> list[tuple[int, int]]:
    """Reap the children that have ended; return their process ids and exit codes."""
    found = []
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            found.append((ended[0], os.waitstatus_to_exitcode(ended[1])))
    return found


def left() -> list[str]:
    """Wait for the processes that the ranks left behind; kill and return those that do not end."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        reaped()
        if not leaks.descendants(os.getpid()):
            return []
        time.sleep(0.05)
    found = []
    for pid, state in leaks.descendants(os.getpid()).items():
        with contextlib.suppress(OSError):
            found.append(f"{pid} {state} {Path(f'/proc/{pid}/cmdline').read_text()[:80]!r}")
            os.kill(pid, signal.SIGKILL)
    return found


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    if "--pretend" in sys.argv:
        import pretend_device

        pretend_device.load()
    modules = ["refinerl.train", "chaos.events", "chaos.rewards", "transformers.models.llama.modeling_llama"]
    for name in [*modules, *(ENGINES if "--engines" in sys.argv else [])]:
        importlib.import_module(name)
    for line in sys.stdin:
        print(json.dumps(asdict(serve(Order(**json.loads(line))))), file=answers, flush=True)


if __name__ == "__main__":
    main()
