"""Resources of each kernel, from the assembler's report: `python cuda/usage.py FOLDER/usage.txt`.

`compile.py` writes the report. The command prints the table of docs/measurements.md.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

ENTRY = re.compile(
    r"Compiling entry function '(?P<kernel>\w+)' for 'sm_(?P<architecture>\d+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Usage:
    """Resources of a kernel on an architecture: registers of a thread, and bytes."""

    kernel: str
    architecture: int
    registers: int
    shared: int
    stack: int  # local memory
    spilled: int


def read(report: str) -> list[Usage]:
    """Parse the assembler's report on every kernel."""
    found = []
    for entry in ENTRY.finditer(report):
        shared = re.search(r"(\d+) bytes smem", entry["rest"])
        found.append(
            Usage(
                entry["kernel"],
                int(entry["architecture"]),
                int(entry["registers"]),
                int(shared[1]) if shared else 0,
                int(entry["stack"]),
                int(entry["stores"]) + int(entry["loads"]),
            )
        )
    return found


def table(usages: list[Usage]) -> str:
    """Format a Markdown table: for each kernel its registers on each architecture and its static shared memory."""
    architectures = sorted({usage.architecture for usage in usages})
    lines = ["| kernel | " + " | ".join(f"sm_{number}" for number in architectures) + " | shared |"]
    lines.append("|---" * (len(architectures) + 2) + "|")
    for kernel in sorted({usage.kernel for usage in usages}):
        own = {usage.architecture: usage for usage in usages if usage.kernel == kernel}
        shared = sorted({usage.shared for usage in own.values()})
        cells = [str(own[number].registers) for number in architectures]
        lines.append(f"| `{kernel}` | " + " | ".join(cells) + f" | {'/'.join(map(str, shared))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(read(Path(sys.argv[1]).read_text(encoding="utf-8"))))
