"""Whole runs by the real command on a model of nine characters: the first step on the device is the CPU's."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gpu_check.site import Fact, Site, SkipError

Row = Mapping[str, Any]

_DEEPSPEED = ("engines.trainer=deepspeed",)
_PPO = ("algorithm.name=ppo", "algorithm.samples_per_prompt=1")
RUNS: dict[str, tuple[str, ...]] = {
    "dapo": (),
    "bf16": ("dtype=bfloat16",),
    "ppo reward model": (*_PPO, "task.reward=model", "reward_model.model={rewards}", "critic.model={rewards}"),
    "code": ("task.path={problems}", "task.name=code", "task.reward=adaptive"),
    "lora": ("lora.rank=4",),
    "recomputed": ("trainer.gradient_checkpointing=true",),
    "ppo static": (*_PPO, "constraint.name=static", "constraint.apply=reward"),
    "offloaded": ("constraint.apply=reward", "engines.offload_reference=true"),
    "zero 0": _DEEPSPEED,
    "zero 2": (*_DEEPSPEED, "deepspeed.zero_optimization.stage=2"),
    "zero 3": (*_DEEPSPEED, "deepspeed.zero_optimization.stage=3"),
    "zero 2 bf16": (*_DEEPSPEED, "deepspeed.zero_optimization.stage=2", "dtype=bfloat16"),
}
"""Name -> overrides of the recipe `smollm`; the first is the plain run."""

FLOAT32 = {
    "reward/mean": 1e-6,
    "completion/length": 1e-6,
    "policy/entropy": 1e-4,
    "policy/grad_norm": 1e-3,
    "policy/loss": 1e-4,
    "constraint/ce": 1e-4,
}
"""Relative tolerance of the first step's metrics, + 1e-6. TF32 is off in these runs: its products round to 11 bits."""
BFLOAT16 = {
    "reward/mean": 1.0,
    "completion/length": 0.25,
    "policy/entropy": 0.05,
    "policy/grad_norm": 1.0,
    "constraint/ce": 0.25,
}
"""The same where a product is rounded to 8 bits, so that some samples are others."""
STEPS = 3
SECONDS = 80
"""Of one command; in a rehearsal more."""


def run(site: Site, name: str) -> Iterator[Fact]:
    if any(word in _DEEPSPEED for word in RUNS[name]):
        _need_deepspeed()
    toy = Toy.at(site)
    places = [site.device] if site.rehearsing else [site.device, "cpu"]
    with ThreadPoolExecutor(len(places)) as pool:
        done = list(pool.map(lambda place: toy.run(place, name, f"trainer.steps={STEPS}"), places))
    for place, (finished, rows) in zip(places, done, strict=True):
        yield {"device": place, "steps": len(rows), **ended(finished, 0)}
        if len(rows) != STEPS:
            yield {"wrong": f"{len(rows)} of {STEPS} steps on {place}"}
            return
    if len(places) == 2:
        half = "dtype=bfloat16" in RUNS[name]
        yield compare(done[0][1][0], done[1][1][0], BFLOAT16 if half else FLOAT32)


def compare(ours: Row, theirs: Row, tolerance: Mapping[str, float]) -> Fact:
    """The metrics of a step on the device and on the CPU, and those that lie too far apart."""
    far, fact = [], {}
    for key, allowed in tolerance.items():
        a, b = ours.get(key), theirs.get(key)
        fact[key] = [a, b]
        if a is None or b is None:
            close = a is None and b is None
        else:
            close = math.isfinite(a) and abs(a - b) <= allowed * abs(b) + 1e-6
        if not close:
            far.append(f"{key} is {a} on the device and {b} on the CPU (relative tolerance {allowed:g})")
    return {"first_step": fact, **({"wrong": "; ".join(far)} if far else {})}


class Toy:
    """The model, the prompts and the rest of it, in a folder."""

    def __init__(self, folder: Path, seconds: float = SECONDS) -> None:
        from tiny import write_openrlhf_reward_model, write_tiny
        from toy import write_problems

        self.folder, self.seconds = folder, seconds
        write_tiny(folder / "model", alphabet="abcdefgh ", scale=0.1)
        write_openrlhf_reward_model(folder / "rewards", alphabet="abcdefgh ")
        words = ("abc", "bcd", "cde", "fgh", "gab", "hhh", "dad", "bed")
        rows = [{"prompt": [{"role": "user", "content": word}]} for word in words]
        (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        self._names = {"rewards": folder / "rewards", "problems": write_problems(folder)}

    @staticmethod
    def at(site: Site) -> Toy:
        """In the folder of a check."""
        return Toy(site.folder, 3 * SECONDS if site.rehearsing else SECONDS)

    def arguments(self, device: str, name: str, output: Path, *more: str) -> list[str]:
        """The command line."""
        import toy

        overrides = [word.format(**self._names) for word in RUNS[name]]
        arguments = toy.Toy(self.folder).arguments(output, *overrides, f"device={device}", *more)
        return [sys.executable, "-m", "refinerl.train", *arguments]

    def run(
        self, device: str, name: str, *more: str, output: str = ""
    ) -> tuple[subprocess.CompletedProcess[str], list[Row]]:
        """The finished command and the rows of its metrics."""
        folder = self.folder / (output or f"{name.replace(' ', '-')}-{device}")
        command = self.arguments(device, name, folder, *more)
        done = subprocess.run(command, capture_output=True, text=True, timeout=self.seconds, env=environment(device))
        return done, rows(folder)


def rows(folder: Path) -> list[Row]:
    """metrics.jsonl, as far as it is there."""
    file = folder / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def environment(device: str) -> dict[str, str]:
    """Without TF32, and without the GPU where the run is on the CPU."""
    hidden = {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"} if device == "cpu" else {}
    return {**os.environ, "OMP_NUM_THREADS": "1", "NVIDIA_TF32_OVERRIDE": "0", **hidden}


def ended(done: subprocess.CompletedProcess[str], status: int) -> Fact:
    """How a command ended, and what is wrong with that."""
    uncalm = [word for word in ("Traceback", "terminate called", "Segmentation", "core dumped") if word in done.stderr]
    if done.returncode == status and not uncalm:
        return {"status": status}
    said = done.stderr.strip()[-500:]
    return {"status": done.returncode, "wrong": f"ended with status {done.returncode} for {status}: {said}"}


def _need_deepspeed() -> None:
    import importlib.util

    if importlib.util.find_spec("deepspeed") is None:
        raise SkipError("DeepSpeed is not installed")
