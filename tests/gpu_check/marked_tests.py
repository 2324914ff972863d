"""The tests that are marked `gpu`."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

from gpu_check.site import ROOT, Fact, Site

MARK = re.compile(r"mark\.gpu\b|\bON_A_GPU\b")
SECONDS = 140


def files() -> list[Path]:
    """The test files that have such tests: others may import what this machine has not."""
    return [file for file in sorted((ROOT / "tests").rglob("test_*.py")) if MARK.search(file.read_text())]


def run(site: Site) -> Iterator[Fact]:
    report = site.folder / "report.xml"
    options = ["-q", "-m", "gpu", "-p", "no:cacheprovider", "-p", "no:randomly", f"--junitxml={report}"]
    command = [sys.executable, "-m", "pytest", *options, *map(str, files())]
    try:
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired as late:
        printed = late.stdout or b""
        yield {"wrong": f"more than {SECONDS} s; printed last: {printed[-800:]!r}"}
        return
    print(done.stdout)
    yield from read(report, done.returncode, done.stdout)


def read(report: Path, status: int, printed: str) -> Iterator[Fact]:
    """The counts, and the first lines of each failure."""
    if not report.exists():
        yield {"wrong": f"pytest ended with status {status}: {printed[-800:]}"}
        return
    passed, skipped, failed = [], [], {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        bad = [*case.iter("failure"), *case.iter("error")]
        if bad:
            failed[name] = (bad[0].get("message") or "")[:300]
        else:
            (skipped if case.find("skipped") is not None else passed).append(name)
    fact: Fact = {"passed": len(passed), "skipped": skipped, "failed": failed}
    if failed:
        fact["wrong"] = f"{len(failed)} failed"
    elif not passed:
        fact["wrong"] = f"no test ran (status {status}): {printed[-300:]}"
    yield fact
