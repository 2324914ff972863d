"""The life of one test, from the fork to its exit. Runs in the child only.

Order matters: file descriptors, limits of all programs and the second filter, which do not wait for a job; then its own
limits, reading, compiling, the report that it compiled, closing the pipe of that report, and only then the program.
From there on this process is hostile: whatever it says about itself is checked by the parent, and nothing that it could
learn or forge is here.
"""

import _sitebuiltins
import _thread
import atexit
import bisect
import builtins
import ctypes
import gc
import importlib.util
import io
import linecache
import marshal
import os
import resource
import struct
import sys
import threading
import time
import traceback
import types
from functools import partial

import alike

CONTROL, RESULT = 3, 4
# Limits that come before everything else: processor seconds (rounded up), bytes of address space.
HEADER = struct.Struct("<QQ")
OPEN_FILES = 64
FRAME = struct.Struct("<cdI")
NAME = "solution.py"
MEMORY_EXIT = 201
MAX_DEPTH = 200
WARM = """
    array bisect cmath collections contextlib copy ctypes dataclasses datetime decimal enum fractions functools heapq io
    itertools json math numbers operator queue random re statistics string threading typing
"""
ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes})
HARD_STACK = 256 << 20

PREAMBLE_SOURCE = """
from typing import *
import sys, math, random, re, string, itertools, collections, functools, heapq, bisect, fractions, operator
from collections import *
from itertools import *
from functools import *
from heapq import *
from bisect import *
from math import *
del pow
inf = float("inf")
"""


class Both(types.ModuleType):
    """The module `bisect`, which the preamble's star import would hide behind its function of the same name."""

    __call__ = staticmethod(bisect.bisect)


def warm():
    """What every program may import without paying for it again; and the names of the preamble."""
    for name in WARM.split():
        __import__(name)
    # Threads end through it, and the linker would look for it only then.
    ctypes.CDLL("libgcc_s.so.1")
    # The site module, which defines these, is not loaded.
    builtins.exit, builtins.quit = _sitebuiltins.Quitter("exit", "Ctrl-D"), _sitebuiltins.Quitter("quit", "Ctrl-D")
    builtins.help = _sitebuiltins._Helper()
    names = {}
    # The builtin pow stays: math's takes no third argument.
    exec(compile(PREAMBLE_SOURCE, "preamble.py", "exec"), names)
    del names["__builtins__"]
    names["bisect"] = Both("bisect")
    names["bisect"].__dict__.update(bisect.__dict__)
    return names


class Packages:
    """Finds packages by name and place: the folders beside them cannot be read."""

    def __init__(self, places):
        self.places = places

    def find_spec(self, name, path=None, target=None):
        """The spec of a package that was named, None for all others."""
        place = self.places.get(name) if path is None else None
        if place is None or not os.path.isdir(place):
            return place and importlib.util.spec_from_file_location(name, place)
        file = os.path.join(place, "__init__.py")
        return importlib.util.spec_from_file_location(name, file, submodule_search_locations=[place])


def admit(packages):
    """Import packages beside the standard library now, so that no program pays for it."""
    sys.meta_path.append(Packages(dict(packages)))
    for name, _ in packages:
        try:
            __import__(name)
        except ModuleNotFoundError as error:
            raise LookupError(f"package {name} needs {error.name}: name it among the packages too") from error


def standard_streams():
    """sys.stdin and its fellows, made once on pipes, so that every child's are ready on descriptors 0 to 2."""
    for target in (0, 1, 2):
        reading, writing = os.pipe()
        os.dup2(reading if target == 0 else writing, target)
        os.close(reading)
        os.close(writing)
    sys.stdin = sys.__stdin__ = stream(0, "r", "surrogateescape", "<stdin>")
    sys.stdout = sys.__stdout__ = stream(1, "w", "surrogateescape", "<stdout>")
    sys.stderr = sys.__stderr__ = stream(2, "w", "backslashreplace", "<stderr>")


def stream(descriptor, mode, errors, name):
    """A text stream as the interpreter makes them under its UTF-8 mode: carriage returns are characters like others."""
    text = open(descriptor, mode, encoding="utf-8", errors=errors, newline="\n", closefd=False)  # noqa: SIM115
    text.buffer.raw.name = name
    return text


class Child:
    """Everything a child needs, bound before any program could replace it."""

    def __init__(self, processes, packages, sink):
        self.preamble = warm()
        admit(packages)
        self.complaint, self.together = b"", False
        # Of threads at once, where the kernel counts them per namespace; 0 leaves them to the memory limit.
        self.processes = processes
        self.second_filter = None
        self.stdout, self.stderr = sys.stdout, sys.stderr
        self.count_threads, self.shutdown = _thread._count, threading._shutdown
        self.run_exit_functions = atexit._run_exitfuncs
        with open("/proc/self/statm") as statm:
            size, resident, *_ = map(int, statm.read().split())
        self.base_memory, self.base_resident = size * resource.getpagesize(), resident * resource.getpagesize()
        alike.prepare(sink, self.base_memory)

    def live(self, descriptors):
        """The whole life; never returns. `descriptors` become 0 to 4: the streams, control, results."""
        status = 70
        try:
            program = self.prepare(descriptors)
            status = program()
        finally:
            os._exit(status)

    def prepare(self, descriptors):
        """Wait for a job, read it, compile it; returns what runs the program."""
        try:
            settle_in(descriptors, self.processes)
            self.second_filter()
            memory = limit_job(self.base_memory)
            entry, source, name, preamble, inputs = read_job()
        except MemoryError:
            report(b"m", "the source or the input does not fit the memory limit")
        except BaseException:
            report(b"f", traceback.format_exc())
        try:
            text = source.decode("utf-8", "surrogatepass").removeprefix("\ufeff")
            code = compile(text, NAME, "exec", dont_inherit=True)
        except MemoryError:
            if self.grown() > memory // 4:
                report(b"m", "the source needs more than the memory limit to be compiled")
            report(b"c", "MemoryError: the source nests too deeply for the parser")
        except BaseException as error:
            report(b"c", "".join(traceback.format_exception_only(error)) or "compilation failed")
        try:
            linecache.cache[NAME] = (len(text), None, text.splitlines(True), NAME)
            os.write(CONTROL, b"r")
            os.close(CONTROL)
        except MemoryError:
            report(b"m", "the source does not fit the memory limit")
        except BaseException:
            report(b"f", traceback.format_exc())
        if entry == "stdin":
            os.close(RESULT)
            return lambda: self.run_script(code, text)
        return lambda: self.run_calls(code, name, preamble, inputs, together=entry == "together")

    def grown(self):
        """Bytes of resident memory, at most, beyond those of the warm interpreter."""
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - self.base_resident

    def run_script(self, code, source):
        """The program as `python solution.py` runs it."""
        module = sys.modules["__main__"] = types.ModuleType("__main__")
        module.__dict__.update(__builtins__=builtins, __file__=NAME)
        sys.argv = [NAME]
        steps = [partial(exec, code, module.__dict__)]
        # Nothing of ours may keep its objects when it ends.
        del module
        status = self.guard(steps.pop())
        ending = self.guard(self.finish)
        clearing = self.guard(partial(self.clear, source))
        return status or ending or clearing or 0

    def finish(self):
        """What the interpreter does at its end: wait for threads, run exit functions, flush."""
        if self.count_threads():
            self.shutdown()
        self.run_exit_functions()
        self.flush()

    def clear(self, source):
        """And then to the objects that are left."""
        alike.tear_down(source)
        self.flush()

    def flush(self):
        """Flush what the program put in place of the streams, and the streams; a closed one has nothing to say."""
        for stream in (sys.stdout, self.stdout, self.stderr):
            if stream is not None and not getattr(stream, "closed", False):
                stream.flush()

    def guard(self, step):
        """None, or what ended a step: the status of SystemExit, 1 after a traceback, that of a memory error."""
        try:
            step()
        except SystemExit as error:
            return self.exit_status(error.code)
        except MemoryError as error:
            self.complain(error)
            return MEMORY_EXIT
        except BaseException as error:
            self.complain(error)
            return 1
        return None

    def exit_status(self, code):
        """As the interpreter reads it: None is 0, a number itself, anything else a complaint and 1."""
        if code is None or isinstance(code, int):
            return (code or 0) & 0xFF
        print(code, file=self.stderr, flush=True)
        return 1

    def complain(self, error):
        """The traceback, from the program's first frame on."""
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename != NAME:
            trace = trace.tb_next
        try:
            text = "".join(traceback.format_exception(type(error), error, trace, limit=-50))
        except BaseException:
            # str(error) is the program's own code, and may raise too; RecursionError and MemoryError arrive here.
            text = type(error).__name__
        self.complaint = text.encode("utf-8", "backslashreplace")[-4096:]
        if not self.together:
            os.write(2, self.complaint)

    def run_calls(self, code, name, preamble, inputs, together):
        """Import the program as a module, call it once for each input, send each result."""
        module = sys.modules["solution"] = types.ModuleType("solution")
        module.__dict__.update(self.preamble if preamble else {}, __builtins__=builtins, __file__=NAME)
        sys.argv = [NAME]
        status = self.guard(lambda: exec(code, module.__dict__))
        if status is not None:
            return status or 1
        self.together = together
        if together:
            send(b"s", b"", 0.0)
        for arguments in inputs:
            start = time.process_time()
            status = self.guard(partial(call_once, module, name, arguments, start))
            if status is not None and not together:
                return status or 1
            if status is not None:
                send(b"m" if status == MEMORY_EXIT else b"e", self.complaint, start)
        self.guard(self.flush)
        return 0


def settle_in(descriptors, processes):
    """A session of its own, nothing open but its own pipes, and the limits of every program."""
    os.setsid()
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
    # The zygote could not open one beyond.
    os.closerange(len(descriptors), 256)
    limit(resource.RLIMIT_CORE, 0, 0)
    limit(resource.RLIMIT_FSIZE, 0, 0)
    limit(resource.RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES)
    if processes:
        limit(resource.RLIMIT_NPROC, processes, processes)
    limit(resource.RLIMIT_STACK, 64 << 20, HARD_STACK)


def limit(kind, soft, hard, setrlimit=resource.setrlimit):
    """Set a limit, or keep what is left of one that was lower from the start."""
    try:
        setrlimit(kind, (soft, hard))
    except ValueError:
        before = resource.getrlimit(kind)[1]
        setrlimit(kind, (min(soft, before), min(hard, before)))


def limit_job(base_memory):
    """Wait for the job; its first bytes are its limits of time and memory. Returns the memory."""
    cpu, memory = HEADER.unpack(read_exactly(HEADER.size))
    limit(resource.RLIMIT_CPU, cpu, cpu + 1)
    limit(resource.RLIMIT_AS, base_memory + memory, base_memory + memory)
    return memory


def read_exactly(size):
    """So many bytes of the job."""
    data = os.read(CONTROL, size)
    while len(data) < size:
        more = os.read(CONTROL, size - len(data))
        if not more:
            raise EOFError("the parent closed the job")
        data += more
    return data


def read_job():
    """(entry, source, function name, preamble, inputs): all that the child is told."""
    chunks = []
    while chunk := os.read(CONTROL, 1 << 16):
        chunks.append(chunk)
    return marshal.loads(b"".join(chunks))


def report(kind, text):
    """Tell the parent why the program does not start, and exit."""
    os.write(CONTROL, kind + text.encode("utf-8", "backslashreplace")[-2000:])
    os._exit(0)


def resolve(module, name):
    """`Solution().name`, or the module's function."""
    solution = module.__dict__.get("Solution")
    if isinstance(solution, type) and hasattr(solution, name):
        return getattr(solution(), name)
    if name not in module.__dict__:
        raise NameError(f"name {name!r} is not defined")
    return module.__dict__[name]


def call_once(module, name, arguments, start):
    """Call, and send what comes back."""
    value = resolve(module, name)(*arguments)
    send(b"v", marshal.dumps(plain(value, 0), 2), start)


def send(tag, payload, start):
    """One frame on the results' pipe."""
    data = memoryview(FRAME.pack(tag, time.process_time() - start, len(payload)) + payload)
    while data:
        data = data[os.write(RESULT, data) :]


def plain(value, depth):
    """The value in exact built-in types, as it is and not as it claims to be: overridden methods are never asked."""
    kind = type(value)
    if kind in ATOMS:
        return value
    if depth > MAX_DEPTH:
        raise ValueError(f"the result is nested deeper than {MAX_DEPTH}")
    for base in (list, tuple, set, frozenset):
        if issubclass(kind, base):
            items = base.__iter__
            if kind is base and ATOMS.issuperset(map(type, items(value))):
                return value
            return base([plain(item, depth + 1) for item in items(value)])
    if issubclass(kind, dict):
        return {plain(key, depth + 1): plain(item, depth + 1) for key, item in dict.items(value)}
    for base, exact in ((int, int.__int__), (float, float.__float__), (str, str.__str__)):
        if issubclass(kind, base):
            return exact(value)
    if issubclass(kind, bytes):
        return bytes.__getitem__(value, slice(None))
    if kind.__module__ == "numpy":
        return plain(value.tolist(), depth + 1)
    raise TypeError(f"a result of type {kind.__name__} is not plain data")


def settle():
    """The last step before the first fork: nothing that is here now will be collected or copied by a child's gc."""
    rehearse()
    gc.collect()
    gc.freeze()


REHEARSAL = """
import sys
def main():
    read = sys.stdin.readline
    n, *rest = map(int, read().split())
    names = {str(n): [n, *rest] for n in range(n)}
    print(len(names), *sorted(rest), sep=" ")
main()
print(int(input()) + 1)
"""


def rehearse():
    """What every child does, a few times with a program of ours, so that caches are filled before the first fork."""
    streams = sys.stdin, sys.stdout
    for _ in range(10):
        sys.stdin, sys.stdout = io.StringIO("3 2 1\n41\n"), io.StringIO()
        try:
            code = compile(REHEARSAL, NAME, "exec", dont_inherit=True)
            exec(code, {"__name__": "__main__", "__builtins__": builtins})
            marshal.loads(marshal.dumps(("stdin", b"", "", False, []), 2))
        finally:
            sys.stdin, sys.stdout = streams
