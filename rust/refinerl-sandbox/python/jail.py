"""The isolation of a zygote, before it forks for the first time. Its children inherit all of it.

Every step raises OSError if the system refuses it. `probe.py` tries the steps in a separate process and writes the
plan. The zygote carries it out, and does not start if a step fails: nothing degrades silently.
"""

import ctypes
import os
import signal
import struct

NOBODY, HOST = 65534, b"sandbox"
NEW_MOUNT, NEW_UTS, NEW_IPC, NEW_USER, NEW_PID, NEW_NET = 0x20000, 1 << 26, 1 << 27, 1 << 28, 1 << 29, 1 << 30
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096
MS_NOATIME, MS_NODIRATIME, MS_RELATIME, MS_REC, MS_PRIVATE = 1024, 2048, 1 << 21, 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 24, 38
SECCOMP_MODE_FILTER = 2
SYS_LANDLOCK_CREATE, SYS_LANDLOCK_RESTRICT = 444, 446
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
# The placeholder for the child's own pid in the second filter: the core writes it, each child replaces it.
PID_MARK = struct.pack("<I", 0x7FFFFFF1)

libc = ctypes.CDLL(None, use_errno=True)


def call(name, *arguments):
    """Call a function of libc that returns -1 and sets errno on failure."""
    result = getattr(libc, name)(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def enter(plan, landlock, first_filter):
    """Carry out the plan. Returns in the process that becomes the zygote; another one that only waits may stay behind.

    The result is a descriptor of the zygote's own score for the out-of-memory killer, or None if it cannot be opened.
    """
    processes = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    if plan["namespaces"]:
        unshare(plan["user_namespace"])
        # The new namespace begins with the host's name.
        call("sethostname", HOST, len(HOST))
        build_root(plan["binds"], plan["links"])
        become_first_process()
    try:
        score = os.open("self/oom_score_adj", os.O_RDWR, dir_fd=processes)
    except OSError:
        score = None
    os.close(processes)
    os.chdir("/")
    if plan["nobody"]:
        become_nobody()
    drop_capabilities()
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL if plan["namespaces"] else 0, 0, 0, 0)
    # Not even a process of the same user may read this one.
    call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if landlock is not None:
        call("syscall", SYS_LANDLOCK_RESTRICT, landlock, 0)
        os.close(landlock)
    install(first_filter)
    return score


def unshare(user):
    """Enter new namespaces; with `user`, also one of users, in which only root and nobody, or only nobody, exist."""
    flags = NEW_MOUNT | NEW_UTS | NEW_IPC | NEW_PID | NEW_NET
    if not user:
        call("unshare", flags)
        return
    pid, root = os.getpid(), os.geteuid() == 0
    uids, gids = (f"0 {0} 1\n{NOBODY} {NOBODY} 1\n",) * 2 if root else identity_maps()
    ready, writing = os.pipe()
    helper = os.fork()
    if helper == 0:
        # Only a process outside the new namespace may map users other than its own.
        os.close(writing)
        os.read(ready, 1)
        status = 1
        try:
            if not root:
                write_file(f"/proc/{pid}/setgroups", "deny")
            write_file(f"/proc/{pid}/uid_map", uids)
            write_file(f"/proc/{pid}/gid_map", gids)
            status = 0
        finally:
            os._exit(status)
    try:
        call("unshare", flags | NEW_USER)
    finally:
        os.close(writing)
        os.close(ready)
        _, status = os.waitpid(helper, 0)
    if status:
        raise OSError(1, "uid_map: refused")


def identity_maps():
    """Map an ordinary user, who may map only itself, to nobody."""
    return f"{NOBODY} {os.geteuid()} 1\n", f"{NOBODY} {os.getegid()} 1\n"


def write_file(path, text):
    """Write a text in one call, as the kernel's map files require."""
    descriptor = os.open(path, os.O_WRONLY)
    os.write(descriptor, text.encode())
    os.close(descriptor)


def build_root(binds, links):
    """Build an empty root with read-only binds of what the interpreter needs, and nothing else; no /proc."""
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,nr_inodes=4k,mode=755")
    os.mkdir("/tmp/old")
    call("syscall", SYS_PIVOT_ROOT[os.uname().machine], b"/tmp", b"/tmp/old")
    os.chdir("/")
    for path, target in links:
        if not os.path.lexists(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.symlink(target, path)
    # Shorter paths first, so that a folder exists before its cover, and the cover before what lies in it.
    for path, source in sorted(binds):
        bind(path, source)
    for path, source in binds:
        if not source:
            mount(None, path, None, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
    call("umount2", b"/old", MNT_DETACH)
    os.rmdir("/old")
    mount(None, "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def bind(path, source):
    """Bind a path read-only. A source of "" covers it with an empty folder, read-only once everything is bound."""
    if not source:
        mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=64k,nr_inodes=1k,mode=755")
        return
    inside = "/old" + source
    if os.path.isdir(inside):
        os.makedirs(path, exist_ok=True)
    elif not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o444))
    mount(inside, path, None, MS_BIND)
    has = os.statvfs(path).f_flag
    # In a user namespace, the flags of the original mount are locked and must be repeated.
    kept = sum(
        mount_flag
        for flag, mount_flag in (
            (2, MS_NOSUID),
            (4, MS_NODEV),
            (8, MS_NOEXEC),
            (1024, MS_NOATIME),
            (2048, MS_NODIRATIME),
        )
        if has & flag
    ) | (MS_RELATIME if has & 4096 else 0)
    mount(None, path, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | kept)


def mount(source, target, kind, flags, options=None):
    """Call mount(2)."""
    encode = lambda text: None if text is None else os.fsencode(text)  # noqa: E731
    call("mount", encode(source), encode(target), encode(kind), ctypes.c_ulong(flags), encode(options))


def become_first_process():
    """Continue as PID 1 of the new PID namespace, whose end ends every test. The outer process waits for it."""
    inner = os.fork()
    if inner == 0:
        return
    os.closerange(0, 1024)
    _, status = os.waitpid(inner, 0)
    os._exit(0 if status == 0 else 1)


def become_nobody():
    """Become the user nobody for good, without groups."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def drop_capabilities():
    """Drop all capabilities, from the bounding set as far as that may be changed."""
    for capability in range(64):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    header, none = struct.pack("<Ii", 0x20080522, 0), bytes(24)
    call("capset", header, none)


def landlock_version():
    """The version of Landlock that the kernel offers, 0 for none."""
    return max(0, libc.syscall(SYS_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1))


def install(program):
    """Install a seccomp filter for this process and its descendants."""
    prepared(program)()


def second_filter(template):
    """Return the function that a child calls before its program: no descendants, and signals only to itself."""
    return prepared(template)


def prepared(program):
    """Return a function that installs a filter, with its caller's pid in place of the mark."""
    code = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("<HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    bytes_of_code = memoryview(code).cast("B")
    marks = [slice(at, at + 4) for at in range(0, len(program), 4) if program[at : at + 4] == PID_MARK]
    pack, getpid = struct.Struct("<I").pack, os.getpid

    def install_it():
        pid = pack(getpid())
        for mark in marks:
            bytes_of_code[mark] = pid
        call("prctl", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, head, 0, 0)

    return install_it
