"""The modes of the sandbox: what a machine may lack, really missing in a process that then starts a sandbox.

System calls are refused by a seccomp filter, as container runtimes do; an ordinary user is one; control groups are
covered by an empty, read-only folder.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

MOUNT, LANDLOCK = 165, 444
PACKAGE = Path(__file__).resolve().parents[1] / "python"
USER = 1000
READY = f"""
import json, os, sys
sys.path[:0] = [{str(PACKAGE)!r}, {str(Path(__file__).parent)!r}]
from refinerl.sandbox import Limits, Outcome, Program, Sandbox, SandboxError, Test
"""


@dataclass(frozen=True)
class Mode:
    """What is missing: system calls, root's rights, control groups."""

    name: str
    refused: tuple[int, ...] = ()
    user: bool = False
    groups: bool = False


FULL = Mode("full", groups=True)
NO_GROUPS = Mode("no groups")
NO_LANDLOCK = Mode("no Landlock", (LANDLOCK,))
NO_NAMESPACES = Mode("no namespaces", (MOUNT,))
USER_FULL = Mode("user", user=True)
USER_NO_NAMESPACES = Mode("user, no namespaces", (MOUNT,), user=True)
BARE_USER = Mode("user, no namespaces, no Landlock", (MOUNT, LANDLOCK), user=True)
MODES = (FULL, NO_GROUPS, NO_LANDLOCK, NO_NAMESPACES, USER_FULL, USER_NO_NAMESPACES, BARE_USER)
in_each_mode = pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)


def refuse(*numbers: int) -> None:
    """A seccomp filter under which these system calls are EPERM. Runs between fork and exec."""
    statement = struct.Struct("<HBBI").pack
    code = statement(0x20, 0, 0, 0)
    for number in numbers:
        code += statement(0x15, 0, 1, number) + statement(0x06, 0, 0, 0x50001)
    code += statement(0x06, 0, 0, 0x7FFF0000)
    buffer = ctypes.create_string_buffer(code, len(code))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(38, 1, 0, 0, 0)
    head = struct.pack("<HxxxxxxQ", len(code) // 8, ctypes.addressof(buffer))
    if libc.prctl(22, 2, head, 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


def hide_groups() -> None:
    """Cover /sys/fs/cgroup, so that no group is there or can be made. Runs between fork and exec, as root."""
    libc = ctypes.CDLL(None, use_errno=True)
    private, read_only = 1 << 18 | 1 << 14, 1
    if (
        libc.unshare(0x20000)
        or libc.mount(None, b"/", None, ctypes.c_ulong(private), None)
        or libc.mount(b"tmpfs", b"/sys/fs/cgroup", b"tmpfs", ctypes.c_ulong(read_only), None)
    ):
        raise OSError(ctypes.get_errno(), "no mount of our own")


@cache
def readable_interpreter() -> str | None:
    """One that an ordinary user can start, and that loads the extension."""
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        try:
            done = subprocess.run([python, "-c", READY], user=USER, group=USER, extra_groups=[], capture_output=True)
        except OSError:
            continue
        if done.returncode == 0:
            return python
    return None


def interpreters() -> list[str]:
    """Those of each version of CPython at hand that the extension supports."""
    found = [shutil.which(f"python3.{minor}") for minor in range(10, 15)]
    # Shims are scripts that choose one by the working directory.
    found = [path for path in found if path and "/shims/" not in path]
    roots = [Path.home() / ".pyenv/versions", Path("/opt/python")]
    found += [str(path) for root in roots for path in root.glob("*3.1[0-4]*/bin/python3")]
    return list({os.path.realpath(path): path for path in found if path}.values())


def interpreter(mode: Mode) -> str:
    """The interpreter of a mode; skips where the mode cannot be had."""
    if os.uname().machine != "x86_64":
        pytest.skip("system call numbers of x86-64")
    if os.geteuid() != 0:
        pytest.skip("only root can become what the modes need")
    python = readable_interpreter() if mode.user else sys.executable
    return python or pytest.skip("another user can read no interpreter that loads the extension")


def in_mode(
    mode: Mode, source: str, *arguments: object, python: str | None = None, prepare: Callable[[], None] | None = None
) -> Any:
    """Run a script with the sandbox's names in a process under the mode; returns what it prints, as JSON.

    `arguments` are its `ARGUMENTS`. `prepare` runs in the process before the mode begins.
    """

    def enter() -> None:
        if prepare is not None:
            prepare()
        if not mode.groups and not mode.user:
            hide_groups()
        if mode.refused:
            refuse(*mode.refused)

    user = USER if mode.user else None
    done = subprocess.run(
        [python or interpreter(mode), "-c", READY + "ARGUMENTS = json.loads(sys.stdin.read())\n" + source],
        input=json.dumps(arguments),
        preexec_fn=enter,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{mode.name}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return json.loads(done.stdout)


RUN = """
programs, options = ARGUMENTS
with Sandbox(**{"workers": 1} | options.pop("box", {})) as box:
    limits = Limits(**{"wall_seconds": 20, "cpu_seconds": 10, "memory_mb": 256} | options.pop("limits", {}))
    runs = box.run([Program(source, [Test(given)], limits=limits, **options) for source, given in programs])
    fine = box.run([Program("print(1)", [Test("")])])[0].tests[0]
assert (fine.outcome.value, fine.output) == ("passed", "1\\n"), fine
print(json.dumps([[test.outcome.value, test.output, test.stderr] for run in runs for test in run.tests]))
"""


def run_in(mode: Mode, *sources: str, stdin: str = "", python: str | None = None, **options: Any) -> list[list[str]]:
    """(outcome, output, stderr) of each program in a sandbox under the mode, which still works after them."""
    rows: list[list[str]] = in_mode(mode, RUN, [[source, stdin] for source in sources], options, python=python)
    return rows
