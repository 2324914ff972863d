"""How a run ends: exit codes, without a traceback; and that it goes on where it was."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from gpu_check.runs import Toy, compare, ended, environment, rows
from gpu_check.site import Fact, Site

RESUMED = {"reward/mean": 1e-6, "policy/entropy": 1e-4, "policy/grad_norm": 1e-2}
"""Relative tolerance of the first step after a resumption, whose state is the same to the bit."""


def run(site: Site) -> Iterator[Fact]:
    toy = Toy.at(site)
    with ThreadPoolExecutor(3) as pool:
        for facts in pool.map(lambda part: list(part(site, toy)), (_bad_input, _interrupted, _resumed)):
            yield from facts


def _bad_input(site: Site, toy: Toy) -> Iterator[Fact]:
    for override in ("trainer.stepz=3", "model=/nowhere", *(() if site.rehearsing else ("device=cuda:99",))):
        done, _ = toy.run(site.device, "dapo", override, output="bad-input")
        fact = {"given": override, **ended(done, 2), "said": done.stderr.strip()[-200:]}
        yield fact


def _interrupted(site: Site, toy: Toy) -> Iterator[Fact]:
    folder = toy.folder / "interrupted"
    command = toy.arguments(site.device, "dapo", folder, "trainer.steps=100000", "checkpoint.every=100000")
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(site.device),
        # A shell starts its background jobs with SIGINT ignored, and they hand that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + toy.seconds
    while len(rows(folder)) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    try:
        out, err = process.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
    done = subprocess.CompletedProcess(command, process.returncode, out, err)
    yield {"interrupted": True, **ended(done, 130)}


def _resumed(site: Site, toy: Toy) -> Iterator[Fact]:
    steps = ("trainer.steps=4", "checkpoint.every=2")
    done, straight = toy.run(site.device, "dapo", *steps, output="straight")
    yield {"straight": [row["step"] for row in straight], **ended(done, 0)}
    shutil.copytree(toy.folder / "straight", toy.folder / "resumed")
    shutil.rmtree(toy.folder / "resumed" / "checkpoint-4")
    shutil.rmtree(toy.folder / "resumed" / "final")
    done, again = toy.run(site.device, "dapo", *steps, "--resume", output="resumed")
    steps_done = [row["step"] for row in again]
    yield {"resumed": steps_done, **ended(done, 0)}
    if steps_done != [1, 2, 3, 4]:
        yield {"wrong": f"the resumed run has steps {steps_done}"}
    else:
        yield compare(again[2], straight[2], RESUMED)
