"""Folders of runs that no model wrote: their files come from the writers of a run, with values that tests choose."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

from refinerl.alignment import align
from refinerl.records import Completion, Prompt, Refinement, Reward, Rollout
from refinerl.report.metrics import metrics_row
from refinerl.report.rows import RolloutRow, rollout_row, to_json

CONFIG = """\
model: made/model
seed: {seed}
algorithm: {{name: dapo}}
constraint: {{name: dynamic, apply: loss, beta: 0.01}}
trainer: {{steps: {planned}}}
telemetry: {{run_name: {name}}}
"""
QUESTION = "Read n numbers, one a line, and print the sum of those that are {} {}."
LINES = ("n = int(input())", "numbers = [int(input()) for _ in range(n)]", "total = 0", "for x in numbers:")
RIGHT = "    if x {} {}:\n        total += x\nprint(total)"


def split(text: str) -> list[str]:
    """Cut a text into tokens of at most four characters."""
    return [text[i : i + 4] for i in range(0, len(text), 4)]


class Vocabulary:
    """Numbers of tokens, as they are met."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def encode(self, text: str) -> tuple[int, ...]:
        for word in split(text):
            if word not in self.words:
                self.words.append(word)
        return tuple(self.words.index(word) for word in split(text))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return [self.words[i] for i in ids]


def write_run(
    folder: Path,
    *,
    steps: int = 12,
    prompts: int = 2,
    samples: int = 4,
    seed: int = 0,
    gain: float = 0.8,
    planned: int | None = None,
    name: str | None = None,
    measured: int = 2,
    ended: bool = True,
) -> Path:
    """Write the folder of a run.

    Args:
        folder: is made.
        steps: that are finished.
        prompts: of a step.
        samples: of a prompt.
        seed: of its numbers.
        gain: of the mean reward over the run.
        planned: steps that it was to have; None: those that are finished.
        name: `telemetry.run_name`.
        measured: refinements of a step with logprobs of their tokens.
        ended: it has its final model.
    """
    draw = random.Random(seed)
    words = Vocabulary()
    (folder / "rollouts").mkdir(parents=True)
    named = "null" if name is None else name
    (folder / "config.yaml").write_text(CONFIG.format(seed=seed, planned=planned or steps, name=named))
    if ended:
        (folder / "final").mkdir()
    rows = []
    for step in range(1, steps + 1):
        done = step / max(steps, 1)
        values = {
            "reward/mean": -0.5 + gain * done + draw.gauss(0, 0.03),
            "reward/pass_rate": 0.2 + 0.5 * done + draw.gauss(0, 0.02),
            "refiner/improved_ratio": 0.5 - 0.3 * done + draw.gauss(0, 0.02),
            "constraint/ce": 0.2 * (1 - 0.7 * done),
            "policy/kl_to_reference": 0.001 * 10 ** (2 * done),
            "policy/entropy": 0.9 - 0.4 * done,
            "refiner/tokens": 900.0,
            "tokens/step": 2000.0 + 10 * step,
            "time/generate": 2.0,
            "time/score": 1.0,
            "time/refine": 1.5,
            "time/update": 3.0,
            "time/sync": 0.25,
            "time/step": 8.0,
            "policy/grad_norm": float("nan") if step == 2 else 1.0 + draw.random(),
        }
        if step % 4 == 0:
            values |= {"evaluate/pass@1": 0.3 + done / 2, "evaluate/pass@1_low": 0.2, "evaluate/pass@1_high": 0.9}
        rows.append(metrics_row(step, values))
        write_step(folder, [to_json(row) for row in made(draw, words, step, prompts, samples, measured)])
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def write_step(folder: Path, lines: Sequence[str], step: int | None = None) -> None:
    """Write the rollouts of a step."""
    step = json.loads(lines[0])["step"] if step is None else step
    (folder / "rollouts" / f"step-{step}.jsonl").write_text("".join(f"{line}\n" for line in lines))


def made(
    draw: random.Random, words: Vocabulary, step: int, prompts: int, samples: int, measured: int
) -> list[RolloutRow]:
    """Make the rollouts of a step: programs with a mistake, and some without."""
    found = []
    for number in range(prompts):
        relation, bound = draw.choice("<>"), draw.randrange(2, 99)
        text = QUESTION.format({"<": "below", ">": "above"}[relation], bound)
        prompt = Prompt(f"{relation}{bound}/{number}", text, (), (1, 2), None)
        for sample in range(samples):
            ending = RIGHT.format(relation, bound)
            if sample % 2 or not sample:
                wrong = ending.replace(relation, "=="), ending.replace("total += x", "total += 1"), "    retrun x"
                written, outcome, value = draw.choice(
                    list(zip(wrong, ("wrong_answer", "wrong_answer", "compile_error"), (0.35, -0.3, -1.0), strict=True))
                )
            else:
                written, outcome, value = ending, "passed", 1.0
            y = "\n".join([*LINES, written])
            z = "\n".join([*LINES, ending])
            completion = Completion(words.encode(y), tuple(-draw.expovariate(4) for _ in split(y)), y, "stop")
            failure = "" if outcome == "passed" else f"Test 1 of 4.\nInput: 2\n1\n5\nExpected output: {bound}"
            rollout = Rollout(prompt, completion, Reward(value, outcome, 0.5, failure=failure), sample)
            refinement = None
            logprobs = None
            if outcome != "passed":
                refined = Completion(words.encode(z), (), z, "stop")
                (alignment,) = align([completion.token_ids], [refined.token_ids])
                better = draw.random() < 0.7
                reward = Reward(1.0, "passed", 1.0) if better else Reward(value, outcome, 0.5)
                refinement = Refinement(rollout, refined, reward, alignment, better, int(better))
                if better and measured:
                    measured -= 1
                    rates = [(200 if kept else 0.6) for kept in alignment.refined_kept]
                    logprobs = [-draw.expovariate(rate) for rate in rates]
            found.append(
                rollout_row(
                    step,
                    rollout,
                    refinement,
                    selected=True,
                    advantage=value - 0.1,
                    logprobs=logprobs,
                    split=words.pieces,
                )
            )
    return found


def read(folder: Path, step: int) -> list[dict]:
    """Read the JSON of a step's rollouts."""
    return [json.loads(line) for line in (folder / "rollouts" / f"step-{step}.jsonl").read_text().splitlines()]
