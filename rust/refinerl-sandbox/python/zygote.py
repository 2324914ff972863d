"""The zygote: a warm interpreter that forks once per test, and reads neither programs nor inputs.

It talks to its parent over descriptor 0, a SOCK_SEQPACKET socket:
    order:  b"n": a child is wanted
    answer: b"p" + pid, with a pidfd of the child and the other ends of its streams, control and results;
            b"e" + text, if it could not fork
            b"x" + pid, wait status, processor seconds, once a child is gone
A child waits for its job on its control socket, so that the next one can be ready before it is needed. End-of-file on
the command socket, or the end of the parent, ends the zygote and its children.
"""

import marshal
import os
import select
import signal
import socket
import struct
import sys

import child
import jail

BORN = struct.Struct("<ci")
EXIT = struct.Struct("<ciid")


def main(packages):
    """From the second packet, the configuration, to the last."""
    # Its own session: Ctrl-C at the terminal is for the parent, which ends its tests in order.
    os.setsid()
    config = marshal.loads(os.read(0, 1 << 18))
    lifeline = os.pidfd_open(config["parent"])
    if os.getppid() != config["parent"]:
        os._exit(0)
    command = socket.socket(fileno=os.dup(0))
    _, landlock, _, _ = socket.recv_fds(command, 1, 1)
    child.standard_streams()
    life = child.Child(config["plan"]["processes"], packages)
    child.settle()
    jail.enter(config["plan"], landlock[0] if landlock else None, config["first_filter"])
    life.second_filter = jail.second_filter(config["second_filter"])
    os.environ.clear()
    for name in ("jail", "child", "zygote"):
        del sys.modules[name]
    command.send(b"r")
    serve(command, lifeline, life)


def serve(command, lifeline, life):
    """One order after the other, until the parent is gone."""
    children = {}  # pidfd -> pid
    waiting = select.poll()
    waiting.register(command, select.POLLIN)
    waiting.register(lifeline, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in waiting.poll()}
        if lifeline in ready or (command.fileno() in ready and not command.recv(16)):
            for pidfd in children:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os._exit(0)
        if command.fileno() in ready:
            pid, pidfd = bear(command, life)
            if pidfd is not None:
                children[pidfd] = pid
                waiting.register(pidfd, select.POLLIN)
        for pidfd in ready & children.keys():
            waiting.unregister(pidfd)
            os.close(pidfd)
            _, status, usage = os.wait4(children[pidfd], 0)
            command.send(EXIT.pack(b"x", children.pop(pidfd), status, usage.ru_utime + usage.ru_stime))


def bear(command, life):
    """Fork a child, and hand the parent what it talks to the child with; its pid and a pidfd, or twice None."""
    (stdin, to_stdin), (from_stdout, stdout), (from_stderr, stderr), (from_results, results) = (
        os.pipe() for _ in range(4)
    )
    control, to_control = (end.detach() for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM))
    theirs = [stdin, stdout, stderr, control, results]
    ours = [to_stdin, from_stdout, from_stderr, to_control, from_results]
    pid = pidfd = None
    try:
        pid = os.fork()
    except OSError as error:
        command.send(b"e" + str(error).encode())
    if pid == 0:
        life.live(theirs)
    if pid is not None:
        pidfd = os.pidfd_open(pid)
        socket.send_fds(command, [BORN.pack(b"p", pid)], [pidfd, *ours])
    for descriptor in theirs + ours:
        os.close(descriptor)
    return pid, pidfd
