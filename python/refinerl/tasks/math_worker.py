"""The program of a process in which math-verify compares answers, and which may be killed at any time.

It is run by its path. Each line of standard input is a JSON object: `gold`, the right answer; `answer`, a response, or
null to read `gold` only; `seconds`, the limit of processor time. Each line of output is one: `readable`, whether `gold`
is mathematics; `equal`, whether the response has that answer. The first line is printed when the process is ready.
"""

import sys

if __name__ == "__main__":
    sys.path.pop(0)  # this file's folder, whose modules would be found in place of those of the standard library

import contextlib
import json
import os
import resource
import signal
from functools import lru_cache
from typing import Any, TextIO

MEMORY = 2 * 2**30
"""Bytes of address space; a larger number or expression is no answer."""


def serve(requests: TextIO, replies: TextIO) -> None:
    """Answer requests until there are no more."""
    import logging

    import math_verify

    logging.disable()
    read: Any = math_verify.parse
    gold_of = lru_cache(1024)(lambda text: read(text, parsing_timeout=None))
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)  # whatever the libraries print is no reply
    os.dup2(silent, 2)
    print(json.dumps({"ready": True}), file=replies, flush=True)
    for line in requests:
        request = json.loads(line)
        # The default action of the signal ends the process, whatever it computes; math-verify's own limit is an
        # exception, which code that is not Python's never sees.
        signal.setitimer(signal.ITIMER_PROF, request["seconds"])
        gold, answer = gold_of(request["gold"]), request["answer"]
        equal = answer is not None and math_verify.verify(
            gold, read(answer, parsing_timeout=None), timeout_seconds=None
        )
        signal.setitimer(signal.ITIMER_PROF, 0)
        readable = says_something(request["gold"], gold)
        print(json.dumps({"readable": readable, "equal": bool(equal)}), file=replies, flush=True)


def says_something(text: str, found: list[Any]) -> bool:
    """Return True if math-verify found mathematics in a right answer, or a text with a letter or a digit.

    What it cannot read, it keeps as text, which equals only the same text: good for a name, not for `%%`. It also makes
    `0...` of three dots.
    """
    texts = [part for part in found if isinstance(part, str)]
    return len(texts) < len(found) or (any(map(str.isalnum, text)) and any(map(str.isalnum, "".join(texts))))


if __name__ == "__main__":
    with contextlib.suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the run's, which ends this process
    with os.fdopen(os.dup(1), "w") as output:
        serve(sys.stdin, output)
