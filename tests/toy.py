"""Runs of the real command on a model of nine characters."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refinerl import train

TOY = (
    "generation.max_tokens=6",
    "refiner.temperature=1",
    "constraint.accept_truncated=true",  # of six tokens most are
    "trainer.batch=8",
    "trainer.learning_rate=5e-3",
    "trainer.steps=2",
)


@dataclass(frozen=True)
class Toy:
    """A tiny model with its prompts."""

    folder: Path

    def arguments(self, output: Path, *overrides: str, reward: str = "toy_rewards:share_of_a") -> list[str]:
        """Return the command line of a run; later overrides win."""
        task = (
            f"model={self.folder / 'model'}",
            "task.name=dialogue",
            f"task.path={self.folder / 'prompts.jsonl'}",
            f"task.reward={reward}",
        )
        return ["smollm", *task, *TOY, *overrides, "--output-dir", str(output)]

    def run(self, output: Path, *overrides: str, reward: str = "toy_rewards:share_of_a", resume: bool = False) -> int:
        """Run the command in this process; return the exit code."""
        extra = ["--resume"] if resume else []
        return train.main([*self.arguments(output, *overrides, reward=reward), *extra])


def write_problems(folder: Path) -> Path:
    """Write problems that a program without output solves, which the toy model writes sometimes."""
    path = folder / "problems.jsonl"
    tests = {"inputs": [""], "outputs": [""]}
    rows = [{"problem_id": n, "question": "abcdefgh"[n], "input_output": tests} for n in range(8)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def metrics(folder: Path) -> list[dict[str, Any]]:
    """Read the rows of metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def timeless(folder: Path) -> list[dict[str, Any]]:
    """Read the rows without what differs between two equal runs."""
    return [
        {k: v for k, v in row.items() if not k.startswith(("time/", "memory/", "sandbox/"))} for row in metrics(folder)
    ]


def without_tokens(rows: Any) -> Any:
    """Leave out what rows tell of single tokens: of a sample, and rounded."""
    if isinstance(rows, list):
        return [without_tokens(row) for row in rows]
    if not isinstance(rows, dict):
        return rows
    return {name: without_tokens(value) for name, value in rows.items() if name not in ("pieces", "logprobs")}


def rollouts(folder: Path, step: int) -> list[dict[str, Any]]:
    """Read the rows of a step's rollouts."""
    return [json.loads(line) for line in (folder / "rollouts" / f"step-{step}.jsonl").read_text().splitlines()]
