"""Whole training steps of the shipped miniature, phase by phase: `benches/bench_step.py` on this device."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator

from gpu_check.site import ROOT, Fact, Site

OURS = ("DAPO", "DAPO + dynamic", "DAPO + dynamic, the paper's way")
RIVAL = "TRL GRPO"


def run(site: Site) -> Iterator[Fact]:
    names = ["DAPO + dynamic"] if site.rehearsing else [*OURS]
    if not site.rehearsing and importlib.util.find_spec("trl") is not None:
        names.append(RIVAL)
    file = site.folder / "steps.json"
    options = ["--case", "miniature", "--device", site.device, "--json", str(file), "--only", *names]
    options += ["--quick", "--threads", "1"] if site.rehearsing else ["--rounds", "1", "--threads", "4"]
    command = [sys.executable, str(ROOT / "benches" / "bench_step.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        yield {"wrong": f"the bench ended with status {done.returncode}: {done.stderr.strip()[-500:]}"}
        return
    for name, rows in json.loads(file.read_text())["miniature"].items():
        yield {"contestant": name, **{key: round(sum(r[key] for r in rows) / len(rows), 4) for key in rows[0]}}
