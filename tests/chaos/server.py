"""Starts runs of the training command by fork, from a process that has imported everything: a start takes no imports.

python server.py [--engines] [--pretend] reads a JSON of each run from standard input (`Order`) and answers with a JSON
of its end (`End`). Of several ranks each writes to files of its own. There is no launcher that would end the others
when one ends: the ranks have to. What a rank leaves behind becomes a child of this process, and is counted.
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
"""Seconds that what a rank started may take to follow it."""


ENGINES = (
    "deepspeed",
    "vllm.entrypoints.llm",
    "vllm.v1.worker.cpu_worker",
    "vllm.model_executor.models.llama",
    "vllm.model_executor.model_loader",
    "vllm.v1.attention.backends.cpu_attn",
)
"""What vLLM's first engine would import, for seconds."""


@dataclass(frozen=True)
class Order:
    """A run that is to be started."""

    arguments: list[str]
    logs: str
    """A folder for what the ranks print."""
    ranks: int = 1
    limit: float = 60.0
    """Seconds after which the run hangs."""
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class End:
    """How a run ended."""

    codes: list[int]
    """Of each rank; that of a signal is negative."""
    seconds: float
    ended: float
    """When the last rank ended, by the machine's monotonic clock."""
    hung: list[int]
    """The ranks that had to be killed at the limit."""
    left: list[str]
    """Processes that outlived the ranks, and files of the shared memory that they had mapped."""


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
    """Run it to its end."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = int(found.getsockname()[1])
    begun = time.monotonic()
    ranks = [start(order, rank, port) for rank in range(order.ranks)]
    codes: dict[int, int] = {}
    hung: list[int] = []
    shared: set[str] = set()
    looked = 0.0
    while len(codes) < len(ranks):
        for pid, code in reaped():
            if pid in ranks:
                codes[pid] = code
        if time.monotonic() - begun > order.limit and not hung:
            hung = [rank for rank, pid in enumerate(ranks) if pid not in codes]
            for number in (signal.SIGUSR1, signal.SIGKILL):  # say where it hangs, then end it
                for rank in hung:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(ranks[rank], number)
                time.sleep(1)
        if time.monotonic() - looked > 0.5:
            looked = time.monotonic()
            shared |= shared_memory([pid for pid in ranks if pid not in codes])
        time.sleep(0.02)
    ended = time.monotonic()
    return End(
        [codes[pid] for pid in ranks], ended - begun, ended, hung, left() + sorted(filter(os.path.exists, shared))
    )


def shared_memory(pids: list[int]) -> set[str]:
    """The files of the shared memory that processes have mapped."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
            found |= {line.split(maxsplit=5)[5] for line in lines if "/dev/shm/" in line}
    return {name for name in found if not name.endswith("(deleted)")}


def reaped() -> list[tuple[int, int]]:
    """The children that have ended, with their exit codes."""
    found = []
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            found.append((ended[0], os.waitstatus_to_exitcode(ended[1])))
    return found


def left() -> list[str]:
    """What the ranks left behind, after a while; it is killed."""
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
