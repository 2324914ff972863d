"""The zygote: a warm interpreter that forks once per test, and reads neither programs nor inputs.

It talks to its parent over descriptor 0, a SOCK_SEQPACKET socket:
    order:  b"n": fork a child
    answer: b"p" + pid, with a pidfd of the child and the other ends of its streams, control and results
            b"e" + text, if it could not fork
            b"x" + pid, wait status, processor seconds, after a child has ended
A child waits for its job on its control socket, so that the next one is ready before it is needed. End-of-file on the
command socket, or the end of the parent, ends the zygote and its children.
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
    """Read the configuration, the second packet, and serve until the end."""
    # Ctrl-C at the terminal must reach only the parent, which then ends its tests in order.
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
        # Standard error is a pipe for programs by now.
        refuse(command, "no sandbox process: " + traceback.format_exc())
    command.send(b"r")
    gc.freeze()
    serve(command, lifeline, bear)


def prepare(config, command, packages, landlock):
    """Warm up, and give up everything that programs must not have. Returns the function that forks a child."""
    warm.standard_streams()
    sink = [os.open(os.devnull, os.O_RDWR)] if config["plan"]["confine_writes"] else []
    life = child.Child(config["plan"]["processes"], packages, bool(sink))
    warm.settle()
    score = Score(jail.enter(config["plan"], landlock, config["first_filter"]))
    life.second_filter = jail.second_filter(config["second_filter"])
    os.environ.clear()
    return partial(bear, command, life, score, sink)


def refuse(command, reason):
    """Report why there will be no zygote, and end."""
    command.send(b"f" + reason.encode())
    os._exit(1)


class Score:
    """The zygote's score for the out-of-memory killer. Children inherit the highest one, and are killed first."""

    def __init__(self, descriptor):
        self.descriptor = descriptor
        self.own = os.pread(descriptor, 16, 0) if descriptor is not None else b""

    def set(self, score):
        """Set the score of this process and of its future forks."""
        if self.own:
            os.pwrite(self.descriptor, score, 0)


def serve(command, lifeline, bear):
    """Serve orders until the parent is gone, then kill all children: without a PID namespace nothing else would."""
    children = {}  # pidfd -> pid
    try:
        follow(command, lifeline, bear, children)
    except OSError:
        pass  # the parent ended during a message to it
    finally:
        for pidfd in children:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os._exit(0)


def follow(command, lifeline, bear, children):
    """Follow orders, and report the ends of children."""
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
    """Fork a child and send the parent its descriptors. Returns its pid and a pidfd, or None twice."""
    (from_stdout, stdout), (from_stderr, stderr), (from_results, results) = (os.pipe() for _ in range(3))
    # Sockets, because shutdown ends them whoever else holds a copy. Programs only read from theirs.
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
