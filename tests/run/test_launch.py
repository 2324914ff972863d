"""How a process of a run ends: with its exit code, its exit handlers and its last words, whatever else still holds."""

from __future__ import annotations

import subprocess
import sys

import pytest

from launching import environment

ENDING = """
import atexit, os, sys, threading, time
from refinerl.engines.world import join_alone, leave
from refinerl.run.launch import end_process

class Late:
    def __del__(self, write=os.write):  # called while the interpreter goes down
        write(1, b"interpreter down")

def work():
    time.sleep(0.2)
    print("thread done")

late = Late()
atexit.register(print, "exit handler")
if sys.argv[1] == "joined":
    join_alone()
    leave()
threading.Thread(target=work).start()
print("main done", end=" ")
end_process(7)
"""


@pytest.mark.parametrize(
    ("how", "last"),
    [
        ("alone", "main done thread done\nexit handler\ninterpreter down"),
        ("joined", "main done thread done\nexit handler\n"),
    ],
)
@pytest.mark.slow
def test_a_process_that_was_in_a_group_does_not_take_its_interpreter_down(how: str, last: str) -> None:
    """Threads of gloo would abort it: their tensors need the interpreter's lock."""
    done = subprocess.run(
        [sys.executable, "-c", ENDING, how], env=environment(), capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (7, last), done.stderr
