"""The zygote: a warm interpreter that forks once per test, and reads neither programs nor inputs.

It talks to its parent over descriptor 0, a SOCK_SEQPACKET socket:
    order:  b"n": a child is wanted
    answer: b"p" + pid, with a pidfd of the child and the other ends of its streams, control and results;
            b"e" + text, if it could not fork
            b"x" + pid, wait status, processor seconds, once a child is gone
A child waits for its job on its control socket, so that the next one can be ready before it is needed. End-of-file on
the command socket, or the end of the parent, ends the zygote and its children.
"""

import gc
import marshal
import os
import select
import signal
import socket
import struct
import traceback
from functools import partial

import child
import jail
import warm

BORN = struct.Struct("<ci")
EXIT = struct.Struct("<ciid")
HIGHEST_SCORE = b"1000"


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
    try:
        bear = prepare(config, command, packages, landlock[0] if landlock else None)
    except LookupError as error:
        refuse(command, str(error))
    except BaseException:
        # Not on standard error, which is a program's by now.
        refuse(command, "no sandbox process: " + traceback.format_exc())
    command.send(b"r")
    gc.freeze()
    serve(command, lifeline, bear)


def prepare(config, command, packages, landlock):
    """Get warm, and give up everything that programs must not have; returns what makes a child."""
    warm.standard_streams()
    sink = [os.open(os.devnull, os.O_RDWR)] if config["plan"]["confine_writes"] else []
    life = child.Child(config["plan"]["processes"], packages, bool(sink))
    warm.settle()
    score = Score(jail.enter(config["plan"], landlock, config["first_filter"]))
    life.second_filter = jail.second_filter(config["second_filter"])
    os.environ.clear()
    return partial(bear, command, life, score, sink)


def refuse(command, reason):
    """Say why there will be no zygote, and end."""
    command.send(b"f" + reason.encode())
    os._exit(1)


class Score:
    """The zygote's rank for the out-of-memory killer: children are born with the highest, and die before all others."""

    def __init__(self, descriptor):
        self.descriptor = descriptor
        self.own = os.pread(descriptor, 16, 0) if descriptor is not None else b""

    def set(self, score):
        """Of this process, and of those that it forks from now on."""
        if self.own:
            os.pwrite(self.descriptor, score, 0)


def serve(command, lifeline, bear):
    """One order after the other, until the parent is gone; then all children end, also where no namespace ends them."""
    children = {}  # pidfd -> pid
    try:
        follow(command, lifeline, bear, children)
    except OSError:
        pass  # the parent went while it was told something
    finally:
        for pidfd in children:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os._exit(0)


def follow(command, lifeline, bear, children):
    """The orders, and the children's ends."""
    waiting = select.poll()
    waiting.register(command, select.POLLIN)
    waiting.register(lifeline, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in waiting.poll()}
        if lifeline in ready or (command.fileno() in ready and not command.recv(16)):
            return
        if command.fileno() in ready:
            pid, pidfd = bear()
            if pidfd is not None:
                children[pidfd] = pid
                waiting.register(pidfd, select.POLLIN)
        for pidfd in ready & children.keys():
            waiting.unregister(pidfd)
            os.close(pidfd)
            _, status, usage = os.wait4(children[pidfd], 0)
            command.send(EXIT.pack(b"x", children.pop(pidfd), status, usage.ru_utime + usage.ru_stime))


def bear(command, life, score, sink):
    """Fork a child, and hand the parent what it talks to the child with; its pid and a pidfd, or twice None."""
    (from_stdout, stdout), (from_stderr, stderr), (from_results, results) = (os.pipe() for _ in range(3))
    # Sockets, because their end can be told, whoever else holds a copy of them. Programs only read from theirs.
    reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    reader.shutdown(socket.SHUT_WR)
    stdin, to_stdin = reader.detach(), writer.detach()
    control, to_control = (end.detach() for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM))
    theirs = [stdin, stdout, stderr, control, results]
    ours = [to_stdin, from_stdout, from_stderr, to_control, from_results]
    pid = pidfd = None
    score.set(HIGHEST_SCORE)
    try:
        pid = os.fork()
    except OSError as error:
        command.send(b"e" + str(error).encode())
    if pid == 0:
        life.live(theirs + sink)
    score.set(score.own)
    if pid is not None:
        pidfd = os.pidfd_open(pid)
        socket.send_fds(command, [BORN.pack(b"p", pid)], [pidfd, *ours])
    for descriptor in theirs + ours:
        os.close(descriptor)
    return pid, pidfd
