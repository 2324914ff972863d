"""Likeness to bare Python in places where the sandbox would show.

Streams by name, memory maps, semaphores, stacks, the depth of recursion, files that the program left open. It is set up
before the first fork. None of it protects anything: a program may undo it all, and gains nothing by it. Functions that
replace built-in ones are static methods, so that as attributes of a class they are not bound to its instances, which
built-in functions are not either.
"""

import _io
import _multiprocessing
import _thread
import builtins
import ctypes
import gc
import io
import mmap
import os
import re
import resource
import sys
import threading
import types

# The streams have no names in the sandbox: there is no /proc, or Landlock denies it.
STREAMS = {
    name.format(number): number
    for number, stream in enumerate(("stdin", "stdout", "stderr"))
    for name in ("/dev/" + stream, "/dev/fd/{}", "/proc/self/fd/{}")
}
# The descriptor of /dev/null, which is opened before the filter where only seccomp denies writing.
SINK = 5
# Frames of ours below the program's first frame; bare Python has none.
DEPTH = {(3, 10): 10, (3, 11): 10}.get(sys.version_info[:2], 9)
MOST_DEPTH = 2**31 - 1
# Stack of a thread for which the program asks for no size. As many threads as a test may have fit the usual memory.
STACK = 3 << 20
ENDS = re.compile(r"__del__|open|\bio\b|codecs|logging|Writer|Wrapper|File|detach")
LIBC = ctypes.CDLL(None)


def prepare(sink, base_memory):
    """Set everything up. With `sink`, each child has a descriptor for /dev/null.

    `base_memory` is the part of a child's limit of memory, in bytes, that the warm interpreter takes.
    """
    open_streams(STREAMS | {"/dev/null": SINK} if sink else STREAMS)
    mmap.mmap = Mapping
    _multiprocessing.SemLock = Semaphore
    _multiprocessing.sem_unlink = lambda name: None
    hide_depth()
    allow_stacks()
    fit_stacks(base_memory)


def open_streams(names):
    """Make `open` and `os.open` duplicate the descriptor of a stream that is given by name."""
    real, real_os = io.open, os.open

    def descriptor(path):
        try:
            return names.get(os.fsdecode(path))
        except TypeError:  # a descriptor, or not a path at all
            return None

    def stream_open(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None):
        number = descriptor(file)
        if number is not None and opener is None:
            opener = lambda path, flags: os.dup(number)  # noqa: E731
        return real(file, mode, buffering, encoding, errors, newline, closefd, opener)

    def os_open(path, flags, mode=0o777, *, dir_fd=None):
        number = descriptor(path)
        return real_os(path, flags, mode, dir_fd=dir_fd) if number is None else os.dup(number)

    stream_open.__module__, os_open.__module__ = "_io", "posix"
    stream_open.__name__ = os_open.__name__ = "open"
    builtins.open = io.open = _io.open = staticmethod(stream_open)
    os.open = staticmethod(os_open)


class Mapping(mmap.mmap):
    """A memory map that is private even if asked to be shared: no limit counts shared memory, and none is needed."""

    def __new__(
        cls, fileno, length, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE, access=0, *rest, **more
    ):
        """Create a map with the arguments of the class that this one replaces."""
        if access in (mmap.ACCESS_READ, mmap.ACCESS_WRITE) and flags == mmap.MAP_SHARED:
            prot = mmap.PROT_READ | (mmap.PROT_WRITE if access == mmap.ACCESS_WRITE else 0)
            access = mmap.ACCESS_DEFAULT
        if access != mmap.ACCESS_COPY and flags & 3 == mmap.MAP_SHARED:
            flags = flags & ~mmap.MAP_SHARED | mmap.MAP_PRIVATE
        return super().__new__(cls, fileno, length, flags, prot, access, *rest, **more)


Mapping.__name__ = Mapping.__qualname__ = "mmap"
Mapping.__module__ = "mmap"


class Semaphore:
    """`_multiprocessing.SemLock` between threads only: no other process could wait for it."""

    SEM_VALUE_MAX = 2**31 - 1
    handle = 0

    def __init__(self, kind, value, maxvalue, name, unlink):
        self.kind, self.maxvalue, self.name = kind, maxvalue, None
        self.value, self.owner, self.depth = value, None, 0
        self.changed = threading.Condition()

    def acquire(self, block=True, timeout=None):
        """Acquire the semaphore, or with kind 0 the lock that this thread holds once more."""
        me = threading.get_ident()
        with self.changed:
            if self.kind == 0 and self.owner == me:
                self.depth += 1
                return True
            if not self.changed.wait_for(lambda: self.value > 0, (timeout if block else 0)):
                return False
            self.value, self.owner, self.depth = self.value - 1, me, 1
            return True

    def release(self):
        """Release it. Only the owner may release a lock, and a semaphore has a highest value."""
        with self.changed:
            if self.kind == 0:
                if not self._is_mine():
                    raise AssertionError("attempt to release recursive lock not owned by thread")
                self.depth -= 1
                if self.depth:
                    return
            elif self.value >= self.maxvalue:
                raise ValueError("semaphore or lock released too many times")
            self.value, self.depth = self.value + 1, 0
            self.owner = None
            self.changed.notify()

    def __enter__(self):
        return self.acquire()

    def __exit__(self, *_):
        self.release()

    def _count(self):
        return self.depth

    def _is_mine(self):
        return self.depth > 0 and self.owner == threading.get_ident()

    def _get_value(self):
        return self.value

    def _is_zero(self):
        return self.value == 0

    def _after_fork(self):
        pass


def hide_depth():
    """Raise the recursion limit by the number of our frames, which it counts too, and report it without them."""
    get, put = sys.getrecursionlimit, sys.setrecursionlimit
    shown = get()
    put(shown + DEPTH)

    def getrecursionlimit():
        return shown

    def setrecursionlimit(limit, /):
        nonlocal shown
        put(min(limit + DEPTH, MOST_DEPTH) if isinstance(limit, int) and 0 < limit <= MOST_DEPTH else limit)
        shown = limit

    sys.getrecursionlimit, sys.setrecursionlimit = staticmethod(getrecursionlimit), staticmethod(setrecursionlimit)


def fit_stacks(base_memory):
    """Give threads smaller stacks, because a stack counts as memory in full: never more than half of the limit."""
    attributes = ctypes.create_string_buffer(64)
    LIBC.pthread_attr_init(attributes)
    LIBC.pthread_attr_setstacksize(attributes, ctypes.c_size_t(STACK))
    LIBC.pthread_setattr_default_np(attributes)
    real, asked = _thread.stack_size, 0

    def stack_size(*size):
        nonlocal asked
        before = asked
        if size:
            # A larger size is reported but not set: it would leave too little memory for the rest.
            most = (resource.getrlimit(resource.RLIMIT_AS)[0] - base_memory) // 2
            real(min(*size, most) if isinstance(size[0], int) else size[0], *size[1:])
            asked = size[0]
        return before

    threading.stack_size = _thread.stack_size = staticmethod(stack_size)


def allow_stacks():
    """Grant the hard limit where a program asks for a larger stack, as deeply recursive programs do first."""
    real = resource.setrlimit

    def setrlimit(kind, limits, /):
        if kind == resource.RLIMIT_STACK and len(limits) == 2:
            most = resource.getrlimit(kind)[1]
            if most != resource.RLIM_INFINITY:
                limits = tuple(most if limit < 0 or limit > most else limit for limit in limits)
        real(kind, limits)

    resource.setrlimit = staticmethod(setrlimit)


def tear_down(source):
    """Do what bare Python does to the objects of a program at its end: run finalisers, flush buffered output.

    The search through many objects takes time, so it is made only if the source has a word that hints at them.
    """
    if not ENDS.search(source):
        return
    try:
        kinds = set(map(type, gc.get_objects()))
    except MemoryError:
        return
    finalisers = any(isinstance(getattr(kind, "__del__", None), types.FunctionType) for kind in kinds)
    files = any(issubclass(kind, _io._IOBase) for kind in kinds)
    # A class keeps the objects of its module alive.
    del kinds
    if finalisers:
        sys.modules.pop("__main__", None)
        gc.collect()
    if files:
        still_open = [thing for thing in gc.get_objects() if isinstance(thing, _io._IOBase)]
        # Flush text streams before the byte streams below them.
        for thing in sorted(still_open, key=lambda file: not isinstance(file, _io._TextIOBase)):
            try:
                if not thing.closed:
                    thing.flush()
            except BaseException:
                continue  # as in a finaliser
