"""The life of one test, from the fork to its exit. Runs in the child only.

The order matters. First comes what needs no job: file descriptors, the limits that all programs have, the second
filter. Then the limits of the job, reading it, compiling, reporting that it compiled, and closing the socket of that
report. Only then does the program run. From there on this process is hostile: the parent checks whatever it says, and
it holds nothing worth learning or forging.
"""

import _thread
import atexit
import builtins
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
import answer
import warm

CONTROL = 3
# The limits at the head of a job: processor seconds (rounded up), bytes of memory.
HEADER = struct.Struct("<QQ")
OPEN_FILES = 64
NAME = "solution.py"
MEMORY_EXIT = 201
HARD_STACK = 256 << 20


class Child:
    """One test. Created in the zygote, so that everything it needs is bound before a program can replace it."""

    def __init__(self, processes, packages, sink):
        self.preamble = warm.preamble()
        warm.admit(packages)
        self.complaint, self.together = b"", False
        # The limit of threads where the kernel counts them per namespace; 0 leaves them to the memory limit.
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
        """Run one job and exit. `descriptors` become 0 to 4: the streams, control, results."""
        status = 70
        try:
            program = self.prepare(descriptors)
            status = program()
        finally:
            os._exit(status)

    def prepare(self, descriptors):
        """Wait for a job, read and compile it; return the function that runs the program."""
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
            os.close(answer.RESULT)
            return lambda: self.run_script(code, text)
        return lambda: self.run_calls(code, name, preamble, inputs, together=entry == "together")

    def grown(self):
        """Peak resident memory in bytes beyond that of the warm interpreter."""
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - self.base_resident

    def run_script(self, code, source):
        """Run the program as `python solution.py` does."""
        module = sys.modules["__main__"] = types.ModuleType("__main__")
        module.__dict__.update(__builtins__=builtins, __file__=NAME)
        sys.argv = [NAME]
        steps = [partial(exec, code, module.__dict__)]
        # No reference of ours may keep its objects alive when it ends.
        del module
        status = self.guard(steps.pop())
        ending = self.guard(self.finish)
        clearing = self.guard(partial(self.clear, source))
        return status or ending or clearing or 0

    def finish(self):
        """Do what the interpreter does at its end: wait for threads, run exit functions, flush."""
        if self.count_threads():
            self.shutdown()
        self.run_exit_functions()
        self.flush()

    def clear(self, source):
        """Finalise the objects that are left, as the interpreter does after that."""
        alike.tear_down(source)
        self.flush()

    def flush(self):
        """Flush the standard streams, and whatever the program put in place of stdout, unless they are closed."""
        for stream in (sys.stdout, self.stdout, self.stderr):
            if stream is not None and not getattr(stream, "closed", False):
                stream.flush()

    def guard(self, step):
        """Run a step. Return None, or the exit status if it ended by SystemExit, an error, or want of memory."""
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
        """Convert the argument of SystemExit: None is 0, a number is itself, anything else is printed and 1."""
        if code is None or isinstance(code, int):
            return (code or 0) & 0xFF
        print(code, file=self.stderr, flush=True)
        return 1

    def complain(self, error):
        """Keep the traceback from the program's first frame on; print it unless all tests share this child."""
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename != NAME:
            trace = trace.tb_next
        try:
            text = "".join(traceback.format_exception(type(error), error, trace, limit=-50))
        except BaseException:
            # str(error) runs the program's code, which may raise; RecursionError and MemoryError arrive here too.
            text = type(error).__name__
        self.complaint = text.encode("utf-8", "backslashreplace")[-4096:]
        if not self.together:
            os.write(2, self.complaint)

    def run_calls(self, code, name, preamble, inputs, together):
        """Import the program as a module, call it once for each input, and send each result."""
        module = sys.modules["solution"] = types.ModuleType("solution")
        module.__dict__.update(self.preamble if preamble else {}, __builtins__=builtins, __file__=NAME)
        sys.argv = [NAME]
        status = self.guard(lambda: exec(code, module.__dict__))
        if status is not None:
            return status or 1
        self.together = together
        if together:
            answer.send(b"s", b"", 0.0)
        for arguments in inputs:
            start = time.process_time()
            status = self.guard(partial(answer.call_once, module, name, arguments, start))
            if status is not None and not together:
                return status or 1
            if status is not None:
                answer.send(b"m" if status == MEMORY_EXIT else b"e", self.complaint, start)
        self.guard(self.flush)
        return 0


def settle_in(descriptors, processes):
    """Start a session, keep only this child's own descriptors open, and set the limits that all programs have."""
    os.setsid()
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
    # The zygote cannot have any above.
    os.closerange(len(descriptors), 256)
    limit(resource.RLIMIT_CORE, 0, 0)
    limit(resource.RLIMIT_FSIZE, 0, 0)
    limit(resource.RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES)
    if processes:
        limit(resource.RLIMIT_NPROC, processes, processes)
    limit(resource.RLIMIT_STACK, 64 << 20, HARD_STACK)


def limit(kind, soft, hard, setrlimit=resource.setrlimit):
    """Set a limit, or keep the inherited hard limit where that is lower."""
    try:
        setrlimit(kind, (soft, hard))
    except ValueError:
        before = resource.getrlimit(kind)[1]
        setrlimit(kind, (min(soft, before), min(hard, before)))


def limit_job(base_memory):
    """Wait for the job and set the limits at its head; return the limit of memory in bytes."""
    cpu, memory = HEADER.unpack(read_exactly(HEADER.size))
    limit(resource.RLIMIT_CPU, cpu, cpu + 1)
    limit(resource.RLIMIT_AS, base_memory + memory, base_memory + memory)
    return memory


def read_exactly(size):
    """Read exactly `size` bytes of the job."""
    data = os.read(CONTROL, size)
    while len(data) < size:
        more = os.read(CONTROL, size - len(data))
        if not more:
            raise EOFError("the parent closed the job")
        data += more
    return data


def read_job():
    """Read the rest of the job: (entry, source, function name, preamble, inputs)."""
    chunks = []
    while chunk := os.read(CONTROL, 1 << 16):
        chunks.append(chunk)
    return marshal.loads(b"".join(chunks))


def report(kind, text):
    """Tell the parent why the program does not start, and exit."""
    os.write(CONTROL, kind + text.encode("utf-8", "backslashreplace")[-2000:])
    os._exit(0)
