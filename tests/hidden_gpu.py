"""Runs a module, or a script, without a GPU, though DeepSpeed's launcher names one: `python -m hidden_gpu NAME …`.

The launcher puts `--local_rank=N` before all other arguments.
"""

from __future__ import annotations

import os
import runpy
import sys

from devices import hide

if __name__ == "__main__":
    hide(os.environ)
    name = sys.argv.pop(next(i for i, word in enumerate(sys.argv) if i and not word.startswith("--")))
    if name.endswith(".py"):
        runpy.run_path(name, run_name="__main__")
    else:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
