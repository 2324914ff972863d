"""Sums of two numbers; the last number of a response counts as its answer."""

import random
import re
from collections.abc import Iterator

from pydantic import Field

from refinerl.tasks import Task


class MathTask(Task):
    """R(x, y) = 1 if the answer is the sum, else 0."""

    class Options(Task.Options):
        problems: int = Field(default=200, ge=1)
        digits: int = Field(default=2, ge=1)
        """Most digits of each number."""
        seed: int = 0

    max_reward = 1.0

    def examples(self) -> Iterator[tuple[str, int]]:
        """Return questions with their sums."""
        draw = random.Random(self.options.seed)
        for _ in range(self.options.problems):
            a, b = (draw.randrange(10**self.options.digits) for _ in range(2))
            yield f"What is {a} + {b}? End your answer with the number.", a + b

    def extract(self, text: str) -> str:
        """Return the last number, or nothing."""
        return (re.findall(r"-?\d+", text) or [""])[-1]

    def reward(self, known: int, answer: str) -> float:
        """Return 1 if the answer is the sum, else 0."""
        return float(answer == str(known))
