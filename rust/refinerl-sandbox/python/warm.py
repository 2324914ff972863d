"""The zygote's preparation before its first fork: imports, streams, caches. Every child inherits it."""

import _sitebuiltins
import bisect
import builtins
import ctypes
import gc
import importlib.util
import io
import marshal
import os
import sys
import types

# Modules of the standard library that programs import often.
MODULES = """
    array bisect cmath collections contextlib copy ctypes dataclasses datetime decimal enum fractions functools heapq io
    itertools json math numbers operator queue random re statistics string threading typing
"""

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
    """The module `bisect`, callable like its function of the same name, which the star import would bind instead."""

    __call__ = staticmethod(bisect.bisect)


def preamble():
    """Import what programs often import, and return the names that the preamble defines."""
    for name in MODULES.split():
        __import__(name)
    # Threads need it when they end, and the linker would look for it only then.
    ctypes.CDLL("libgcc_s.so.1")
    # The site module, which defines these, is not loaded.
    builtins.exit, builtins.quit = _sitebuiltins.Quitter("exit", "Ctrl-D"), _sitebuiltins.Quitter("quit", "Ctrl-D")
    builtins.help = _sitebuiltins._Helper()
    names = {}
    # The preamble deletes math's pow: the builtin one also takes a third argument.
    exec(compile(PREAMBLE_SOURCE, "preamble.py", "exec"), names)
    del names["__builtins__"]
    names["bisect"] = Both("bisect")
    names["bisect"].__dict__.update(bisect.__dict__)
    return names


class Packages:
    """A finder that knows packages by name and place, because the folders that hold them cannot be read."""

    def __init__(self, places):
        self.places = places

    def find_spec(self, name, path=None, target=None):
        """Return the spec of a package that was named, None for all others."""
        place = self.places.get(name) if path is None else None
        if place is None or not os.path.isdir(place):
            return place and importlib.util.spec_from_file_location(name, place)
        file = os.path.join(place, "__init__.py")
        return importlib.util.spec_from_file_location(name, file, submodule_search_locations=[place])


def admit(packages):
    """Import packages beside the standard library before the first fork, so that no program has to."""
    sys.meta_path.append(Packages(dict(packages)))
    for name, _ in packages:
        try:
            __import__(name)
        except ModuleNotFoundError as error:
            raise LookupError(
                f"package {name} needs {error.name}: install it if it is missing, and name it among the packages too"
            ) from error


def standard_streams():
    """Create sys.stdin, sys.stdout and sys.stderr on pipes; each child puts its own under descriptors 0 to 2."""
    for target in (0, 1, 2):
        reading, writing = os.pipe()
        os.dup2(reading if target == 0 else writing, target)
        os.close(reading)
        os.close(writing)
    sys.stdin = sys.__stdin__ = stream(0, "r", "surrogateescape", "<stdin>")
    sys.stdout = sys.__stdout__ = stream(1, "w", "surrogateescape", "<stdout>")
    sys.stderr = sys.__stderr__ = stream(2, "w", "backslashreplace", "<stderr>")


def stream(descriptor, mode, errors, name):
    """Open a text stream as the interpreter does in UTF-8 mode. Carriage returns are not translated."""
    text = open(descriptor, mode, encoding="utf-8", errors=errors, newline="\n", closefd=False)  # noqa: SIM115
    text.buffer.raw.name = name
    return text


def settle():
    """Finish before the first fork: fill caches, and keep all objects from the garbage collectors of children."""
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
    """Do a few times what every child does, with a program of ours, so that the interpreter's caches are filled."""
    streams = sys.stdin, sys.stdout
    for _ in range(10):
        sys.stdin, sys.stdout = io.StringIO("3 2 1\n41\n"), io.StringIO()
        try:
            code = compile(REHEARSAL, "rehearsal.py", "exec", dont_inherit=True)
            exec(code, {"__name__": "__main__", "__builtins__": builtins})
            marshal.loads(marshal.dumps(("stdin", b"", "", False, []), 2))
        finally:
            sys.stdin, sys.stdout = streams
