"""Probe of this machine, once for each sandbox in a separate process. The result is the plan of the zygotes.

Each step that may be refused is tried in a fork, and its error is kept for the report. Nothing here reads programs or
inputs.
"""

import ctypes
import glob
import marshal
import os
import sys

import jail

# Small public files without which imports or time zones fail.
EXTRAS = """
    /etc/ld.so.cache /etc/localtime /usr/share/zoneinfo /dev/null /dev/zero /dev/full /dev/random /dev/urandom
"""
# The first kernel whose limit of processes counts per namespace, and not on the whole machine.
NPROC_PER_NAMESPACE = (5, 14)
# The first version of Landlock that can deny truncating files.
TRUNCATES = 3


def main(packages):
    """Send the plan, with the report in it, and end."""
    places = [place for _, place in packages]
    folders, libraries, links = interpreter(places)
    hidden = [path for folder in folders for path in glob.glob(folder + "/*-packages")]
    binds = [
        (path, os.path.realpath(path))
        for path in [*folders, *places, *libraries, *EXTRAS.split()]
        if os.path.exists(path)
    ]
    plan = {
        "namespaces": False,
        "user_namespace": False,
        "nobody": False,
        "binds": binds + [(path, "") for path in hidden],
        "links": links,
        "landlock": jail.landlock_version(),
        "confine_writes": False,
        "processes": 0,
    }
    root = os.geteuid() == 0
    why_user = why_not(lambda: enter_namespaces(plan, user=True))
    why_root = why_user and why_not(lambda: enter_namespaces(plan, user=False))
    plan["namespaces"] = not (why_user and why_root)
    plan["user_namespace"] = not why_user
    plan["confine_writes"] = not plan["namespaces"] and plan["landlock"] < TRUNCATES
    modern = tuple(int(part) for part in os.uname().release.split(".")[:2]) >= NPROC_PER_NAMESPACE
    plan["processes"] = 128 if plan["user_namespace"] and modern else 0
    # Outside a mount namespace, the user nobody must be able to read the interpreter at its own path.
    readable = (lambda: None) if plan["namespaces"] else lambda: [os.listdir(folder) for folder in folders]
    why_nobody = why_not(lambda: (jail.become_nobody(), readable())) if root else None
    plan["nobody"] = root and why_nobody is None
    why_seccomp = why_not(try_seccomp)
    plan["readable"] = [path for path, source in binds if source] if plan["namespaces"] else beside(folders, binds)
    plan["report"] = report(plan, why_user, why_root, why_nobody, why_seccomp, root)
    os.write(0, marshal.dumps(plan, 2))


def why_not(step):
    """Try a step in a fork. Returns None if it works, else the reason."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        reason = b""
        try:
            step()
        except BaseException as error:
            reason = str(error).encode() or b"failed"
        finally:
            os.write(writing, reason)
            os._exit(0)
    os.close(writing)
    reason = os.read(reading, 4096).decode()
    os.close(reading)
    os.waitpid(pid, 0)
    return reason or None


def enter_namespaces(plan, user):
    """Enter all namespaces and the root folder, in which the interpreter must still be readable."""
    jail.unshare(user)
    jail.build_root(plan["binds"], plan["links"])
    os.listdir(plan["binds"][0][0])


def try_seccomp():
    """Try a null filter: it is a bad address if filters exist, and a bad argument if they do not."""
    try:
        jail.call("prctl", jail.PR_SET_SECCOMP, jail.SECCOMP_MODE_FILTER, None, 0, 0)
    except OSError as error:
        if error.errno != 14:
            raise


def interpreter(places):
    """Find what imports of the standard library and of packages need: (folders, shared objects, links to them)."""
    folders = [path for path in sys.path if os.path.exists(path)]
    extensions = [path for folder in folders for path in glob.glob(folder + "/*.so")]
    extensions += [path for place in places for path in glob.glob(place + "/**/*.so", recursive=True)]
    mapped = sorted(in_fork(lambda: mapped_files(extensions)))
    links = [(path, os.readlink(path)) for path in ("/lib", "/lib32", "/lib64", "/usr/lib64") if os.path.islink(path)]
    for folder in sorted({os.path.dirname(path) for path in mapped}):
        with os.scandir(folder) as entries:
            found = [entry.path for entry in entries if entry.is_symlink() and ".so" in entry.name]
        links += [(path, os.path.realpath(path)) for path in found if os.path.realpath(path) in mapped]
    inside = tuple(folder + "/" for folder in [*folders, *places])
    return folders, [path for path in mapped if not path.startswith(inside)], links


def mapped_files(extensions):
    """List the files that the dynamic linker loads for the interpreter and all its extension modules."""
    for path in [*extensions, "libgcc_s.so.1"]:
        try:
            ctypes.CDLL(path)
        except OSError:
            continue
    with open("/proc/self/maps") as maps:
        names = {line.split(maxsplit=5)[5].strip() for line in maps if line.count("/")}
    return [name for name in names if ".so" in name and os.path.isfile(name)]


def in_fork(function):
    """Call a function in a fork, so that it leaves no traces here, and return its plain result."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, marshal.dumps(function(), 2))
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as stream:
        data = stream.read()
    os.waitpid(pid, 0)
    return marshal.loads(data)


def beside(folders, binds):
    """List what can be read without a mount namespace: the entries of the folders except installed packages."""
    entries = [entry.path for folder in folders if os.path.isdir(folder) for entry in os.scandir(folder)]
    files = [source for path, source in binds if path not in folders]
    return files + [path for path in entries if not path.endswith("-packages")]


def report(plan, why_user, why_root, why_nobody, why_seccomp, root):
    """Build the report: (name, on, why not, what that exposes) of each protection."""
    spaces, landlock = plan["namespaces"], plan["landlock"]
    why = f"{why_user}; as root: {why_root}" if root else why_user
    files = (
        ""
        if landlock
        else "files can be read with the user's rights, and the memory of the user's other processes where the kernel "
        "lets them read each other's (not this one's while it judges); writing is denied by seccomp"
    )
    rows = [
        ("seccomp", why_seccomp is None, why_seccomp or "", "nearly everything; the sandbox refuses to start"),
        ("no_new_privs", True, "", ""),
        ("rlimits", True, "", ""),
        (
            "user_namespace",
            plan["user_namespace"],
            why_user or "",
            "nothing while the programs run as nobody" if spaces else "see the other namespaces",
        ),
        ("mount_namespace", spaces, why, files or "names of files, not their contents (Landlock)"),
        ("network_namespace", spaces, why, "nothing while seccomp denies sockets"),
        ("ipc_namespace", spaces, why, "nothing while seccomp denies System V IPC"),
        ("uts_namespace", spaces, why, "the host's name"),
        ("pid_namespace", spaces, why, "process numbers; seccomp denies signals to others"),
        (
            "landlock",
            landlock > 0,
            "" if landlock else "the kernel does not offer it",
            "nothing while the mount namespace is on" if spaces else files,
        ),
        (
            "unprivileged_user",
            plan["nobody"] or not root,
            why_nobody or "",
            "files of root, as far as the other rows allow",
        ),
    ]
    return [(name, on, "" if on else reason, "" if on else exposed) for name, on, reason, exposed in rows]
