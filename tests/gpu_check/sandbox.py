"""What holds untrusted programs on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

from gpu_check.site import Fact, Site


def run(site: Site) -> Iterator[Fact]:
    command = [sys.executable, "-m", "refinerl.sandbox", "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=40, env={**os.environ, "COLUMNS": "200"})
    table = [line.strip("│ ").split("│") for line in done.stdout.splitlines() if line.startswith("│")]
    fact: Fact = {"status": done.returncode, "doctor": [" | ".join(cell.strip() for cell in row) for row in table]}
    if done.returncode not in (0, 1):
        fact["wrong"] = f"ended with status {done.returncode}: {done.stderr[-300:]}"
    yield fact
