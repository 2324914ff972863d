"""The isolation report, and each substitute where a mechanism is missing.

What is missing is really missing: a sandbox is started in a process under a seccomp filter that refuses the system
calls, as container runtimes do, or as an ordinary user.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from refinerl.sandbox import Limits, Outcome, Program, Sandbox, SandboxError, Test
from sandbox_modes import LANDLOCK, MOUNT, PACKAGE, refuse

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="system call numbers of x86-64")
UNSHARE, PRCTL = 272, 157

# What a program achieves: each line is True where it got through.
SPY = r"""
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def tries(step):
    try:
        step()
    except (OSError, ValueError):
        return False
    return True
print({
    "fork": tries(os.fork), "kill": tries(lambda: os.kill(os.getppid(), 0)), "socket": tries(socket.socket),
    "read": tries(lambda: open("/etc/passwd").read()), "write": tries(lambda: open("/tmp/refinerl_spy", "w")),
    "remove": tries(lambda: os.unlink(os.__file__)), "root": os.getuid() == 0,
    "parent": os.getppid() != 1, "exec": tries(lambda: os.execv("/bin/true", ["true"])),
})
"""
JUDGE = """
import ast, json, sys
sys.path.insert(0, {package!r})
from refinerl.sandbox import Program, Sandbox, SandboxError, Test
try:
    with Sandbox(workers=1, require={require!r}) as box:
        plain = Program("import decimal, sqlite3\\nprint(input())", [Test("42")])
        run, fine = box.run([Program({spy!r}, [Test("")]), plain])
        assert fine.tests[0].output == "42\\n", fine
        print(json.dumps([ast.literal_eval(run.tests[0].output), {{row.name: row.on for row in box.isolation}},
                          {{row.name: row.exposed for row in box.isolation}}]))
except SandboxError as error:
    print(json.dumps(str(error)))
"""


def judge(
    *refused: int, user: int | None = None, require: str = "best_effort", python: str = sys.executable
) -> list[dict[str, object]] | str:
    """Return what the spy achieves, what is on and what is exposed; or the SandboxError's message."""
    source = JUDGE.format(package=str(PACKAGE), spy=SPY, require=require)
    done = subprocess.run(
        [python, "-c", source],
        preexec_fn=(lambda: refuse(*refused)) if refused else None,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def has_namespaces() -> bool:
    with Sandbox(workers=1) as box:
        return all(row.on for row in box.isolation if row.name.endswith("namespace"))


def test_report_is_complete() -> None:
    with Sandbox(workers=1) as box:
        names = [row.name for row in box.isolation]
        assert names[0] == "seccomp"
        assert set(names) >= {
            "no_new_privs",
            "rlimits",
            "landlock",
            "mount_namespace",
            "pid_namespace",
            "network_namespace",
        }
        assert all(row.on or (row.reason and row.exposed) for row in box.isolation)


def test_everything_is_on_here_and_full_accepts_it() -> None:
    if not has_namespaces():
        pytest.skip("this machine allows no namespaces")
    achieved, on, _ = judge(require="full")
    assert [name for name, there in on.items() if not there and name != "cgroup"] == []
    assert [name for name, got in achieved.items() if got] == []


@root
def test_without_user_namespaces_root_uses_its_own_rights() -> None:
    """unshare with CLONE_NEWUSER fails where the sysctl forbids it; here the map files cannot be written."""
    achieved, on, _ = judge(UNSHARE)
    assert not on["mount_namespace"]
    assert on["landlock"]
    assert on["unprivileged_user"] or achieved["root"]
    assert [name for name, got in achieved.items() if got and name not in ("parent", "root")] == []


def test_without_namespaces_landlock_and_seccomp_confine() -> None:
    """As in a container that refuses mounts: no file of the host is read or written, no socket, no signal."""
    achieved, on, exposed = judge(MOUNT)
    assert not any(on[f"{name}_namespace"] for name in ("mount", "user", "network", "pid"))
    assert "Landlock" in exposed["mount_namespace"]
    assert [name for name, got in achieved.items() if got and name not in ("parent", "root")] == []


def test_without_landlock_the_mount_namespace_confines() -> None:
    if not has_namespaces():
        pytest.skip("this machine allows no namespaces")
    achieved, on, exposed = judge(LANDLOCK)
    assert not on["landlock"]
    assert exposed["landlock"] == "nothing while the mount namespace is on"
    assert [name for name, got in achieved.items() if got] == []


def test_without_namespaces_and_landlock_reads_are_exposed_and_reported() -> None:
    """The last substitute: seccomp still denies every write, and the report says that reads are not confined."""
    achieved, on, exposed = judge(MOUNT, LANDLOCK)
    assert not on["landlock"]
    assert "files can be read" in exposed["mount_namespace"]
    assert achieved["read"]
    assert [name for name, got in achieved.items() if got and name not in ("read", "parent", "root")] == []


def test_without_seccomp_there_is_no_sandbox() -> None:
    """prctl refused: neither filters nor no_new_privs."""
    assert "seccomp" in str(judge(PRCTL))


def test_full_refuses_what_best_effort_accepts() -> None:
    message = judge(MOUNT, require="full")
    assert isinstance(message, str)
    assert message.startswith("full isolation is required, but off: ")
    assert "mount_namespace" in message


@root
@pytest.mark.parametrize("refused", [(), (MOUNT,)], ids=["namespaces", "no namespaces"])
@pytest.mark.slow
def test_ordinary_user(refused: tuple[int, ...]) -> None:
    """The same as somebody without rights, with the first interpreter that they can read."""
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        try:
            achieved, on, exposed = judge(*refused, user=1000, python=python)
        except (OSError, AssertionError):
            continue
        assert on["cgroup"] or "kernel memory" in exposed["cgroup"]
        assert [name for name, got in achieved.items() if got and name != "parent"] == []
        return
    pytest.skip("another user can read no interpreter that loads the extension")


PACKAGES = """
import sys
sys.path.insert(0, {package!r})
from refinerl.sandbox import Program, Sandbox, Test
with Sandbox(workers=1, packages=["numpy"]) as box:
    source = "import numpy.polynomial as p\\nprint(p.Polynomial([1, 2])(3))\\nimport pytest"
    run = box.run([Program(source, [Test("")])])[0]
    print(run.tests[0].output, run.tests[0].stderr)
"""


@pytest.mark.parametrize("refused", [(), (MOUNT,), (LANDLOCK,)], ids=["all", "no namespaces", "no Landlock"])
@pytest.mark.slow
def test_named_packages_alone_are_in_reach(refused: tuple[int, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PACKAGES.format(package=str(PACKAGE))],
        preexec_fn=(lambda: refuse(*refused)) if refused else None,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("7.0\n")
    assert "No module named 'pytest'" in done.stdout


def control_groups(pid: int) -> set[Path]:
    """Those that the sandboxes of a process have made."""
    return {Path(folder) for folder, _, _ in os.walk("/sys/fs/cgroup") if f"refinerl-{pid}-" in folder}


def needs_cgroup(box: Sandbox) -> None:
    if off := [row.reason for row in box.isolation if row.name == "cgroup" and not row.on]:
        pytest.skip(off[0])


def test_control_group_of_each_zygote_holds_its_limits_and_goes_with_it() -> None:
    """Memory, kernel memory included, and processes are counted for a zygote and its tests, and nobody else."""
    before = control_groups(os.getpid())
    with Sandbox(workers=2) as box:
        needs_cgroup(box)
        sleepers = [
            Program("import time\ntime.sleep(0.2)", [Test("", "")], limits=Limits(memory_mb=n)) for n in (50, 60)
        ]
        box.judge(sleepers)
        made = control_groups(os.getpid()) - before
        limits = [
            path for group in made for path in group.iterdir() if path.name in ("memory.max", "memory.limit_in_bytes")
        ]
        megabytes = {int(path.read_text()) >> 20 for path in limits}  # one worker may have been too late for a test
        assert megabytes <= {128, 50 + 128, 60 + 128}
        assert max(megabytes) > 128
        assert all((group / "cgroup.procs").read_text().split() for group in made)
        assert {path.read_text() for group in made for path in group.glob("pids.max")} == {"300\n"}
    assert control_groups(os.getpid()) == before


def test_control_groups_of_a_killed_process_are_removed_by_the_next() -> None:
    source = "import os\nfrom refinerl.sandbox import Sandbox\nbox = Sandbox(workers=1)\nos.kill(os.getpid(), 9)"
    dead = subprocess.Popen([sys.executable, "-c", f"import sys\nsys.path.insert(0, {str(PACKAGE)!r})\n{source}"])
    dead.wait()
    with Sandbox(workers=1) as box:
        needs_cgroup(box)
    for _ in range(100):
        # Its processes may take a moment to end.
        Sandbox(workers=1).close()
        if not control_groups(dead.pid):
            return
    pytest.fail(f"still there: {control_groups(dead.pid)}")


def test_sandbox_error_names_what_failed(tmp_path: Path) -> None:
    """An interpreter that does not start is our fault and says why."""
    from refinerl._core import Zygotes

    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho broken interpreter >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(SandboxError, match="broken interpreter"):
        Zygotes(python=str(broken), workers=1, full=False, packages=[])
    with pytest.raises(SandboxError, match="does not start"):
        Zygotes(python=str(tmp_path / "missing"), workers=1, full=False, packages=[])


def test_verdicts_do_not_depend_on_the_isolation() -> None:
    with Sandbox(workers=1) as box:
        assert box.judge([Program("print(1)", [Test("", "1")])])[0].outcome is Outcome.passed
