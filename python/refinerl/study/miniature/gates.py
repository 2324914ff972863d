"""Measurement of a base of the miniature: how often it solves, corrects and copies."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from refinerl.data.apps import Problem
from refinerl.engines.models import load_model
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.engines.transformers import TransformersGenerator
from refinerl.loop.author import ModelAuthor
from refinerl.loop.rollout import Roller
from refinerl.records import Completion, Reward, Sampling, sample_seed
from refinerl.sandbox import Sandbox
from refinerl.study.miniature.corpus import TEMPLATE
from refinerl.tasks.code import CodeTask

SAMPLES = 8
"""Sampled answers to each problem."""
LIMIT = 64
"""Most tokens of an answer."""


@dataclass(frozen=True)
class Gates:
    """Success rates of a base on a set of problems, as shares."""

    sampled: float
    """Sampled answers, at temperature 1, that pass all tests."""
    greedy: float
    """Greedy answers that pass all tests."""
    unsolved: float
    """Problems that none of the sampled answers solves."""
    corrected: float
    """Wrong sampled answers whose correction passes all tests."""
    fresh: float
    """Wrong sampled answers to whose problem the next sampled answer is right: what one fresh answer achieves."""
    copied: float
    """Right sampled answers whose correction is a verbatim copy."""

    def lines(self) -> dict[str, str]:
        """Return the rates as text, by their descriptions."""
        return {
            "solved by a sampled answer": f"{self.sampled:.1%}",
            "solved by the greedy answer": f"{self.greedy:.1%}",
            f"not solved by any of {SAMPLES} sampled answers": f"{self.unsolved:.1%}",
            "wrong answers whose correction is right": f"{self.corrected:.1%}",
            "wrong answers replaced by a right one with one fresh answer": f"{self.fresh:.1%}",
            "right answers that are copied verbatim": f"{self.copied:.1%}",
        }


def measure(folder: Path, problems: Sequence[Problem], *, seed: int = 0, temperature: float = 0.0) -> Gates:
    """Measure the base in a folder with the project's own engine, refiner and sandbox.

    Args:
        problems: usually the held-out ones.
        seed: of the sampled answers.
        temperature: of the corrections; 0 is greedy.

    Raises:
        UserError: there is no base in the folder.
    """
    tokenizer = ChatTokenizer.load(folder)
    generator = TransformersGenerator(load_model(str(folder)), tokenizer)
    with Sandbox() as box:
        task = CodeTask(
            problems,
            box,
            tokenizer.encode_chat,
            prompt_format="apps",
            refine_template=TEMPLATE,
            isolate="program",
        )
        sampled = Roller(generator, task, Sampling(LIMIT, 1.0, n=SAMPLES), seed, _untimed).rollout(task.prompts(), 1)
        greedy = Roller(generator, task, Sampling(LIMIT, 0.0), seed, _untimed).rollout(task.prompts(), 1)
        rollouts = [rollout for group in sampled for rollout in group.rollouts]
        seeds = [[sample_seed(seed, 1, f"refine/{rollout.prompt.id}", rollout.sample)] for rollout in rollouts]
        replies = ModelAuthor(generator, tokenizer.encode_chat).reply(
            [task.refine_prompt(rollout) for rollout in rollouts],
            Sampling(LIMIT, temperature, seeds=seeds),
            [rollout.completion.token_ids for rollout in rollouts],
        )
        asked = [(rollout, reply) for rollout, (reply,) in zip(rollouts, replies, strict=True) if reply is not None]
        refined = [
            Completion((), (), task.refined_response(rollout, reply.text), reply.finish_reason)
            for rollout, reply in asked
        ]
        rewards = task.score([rollout.prompt for rollout, _ in asked], refined)
    solved = [[_passed(rollout.reward) for rollout in group.rollouts] for group in sampled]
    pairs = list(zip((rollout for rollout, _ in asked), refined, rewards, strict=True))
    return Gates(
        sampled=_share([passed for row in solved for passed in row]),
        greedy=_share([_passed(group.rollouts[0].reward) for group in greedy]),
        unsolved=_share([not any(row) for row in solved]),
        corrected=_share([_passed(reward) for y, _, reward in pairs if not _passed(y.reward)]),
        fresh=_share([row[(i + 1) % len(row)] for row in solved for i, passed in enumerate(row) if not passed]),
        copied=_share([answer.text == y.completion.text for y, answer, _ in pairs if _passed(y.reward)]),
    )


def _passed(reward: Reward | None) -> bool:
    return reward is not None and reward.outcome == "passed"


def _share(found: Sequence[bool]) -> float:
    return sum(found) / len(found) if found else float("nan")


@contextlib.contextmanager
def _untimed(phase: str, total: int | None = None) -> Iterator[None]:
    yield
