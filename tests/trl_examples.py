"""The reward functions of TRL's documentation, by their behaviour, and what each is called on.

Source: TRL, “GRPO Trainer”, section “Using a custom reward function”, and “Reward Functions”. Names and numbers of the
examples are the documentation's; the code is ours. Run as a program, the module prints, as JSON, what TRL's own method
`GRPOTrainer._calculate_rewards` makes of every example, what the dialogue task makes of it, and what is expected.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from refinerl.data.conversations import dialogues_of
from refinerl.records import Completion, Reward
from refinerl.tasks.dialogue import DialogueTask
from refinerl.tasks.reward_sum import RewardSum
from refinerl.tasks.trl import Progress
from refinerl.tasks.user_reward import UserReward

STEP, STEPS = 30, 120
"""The finished steps and all steps of the run in which the rewards are asked for."""


@dataclass(frozen=True)
class Example:
    """A call: rows of a data set, a completion for each, and the reward functions."""

    name: str
    rows: Sequence[dict[str, Any]]
    completions: Sequence[str]
    rewards: Sequence[Callable[..., Any]]
    expected: Sequence[Sequence[float | None]]
    """For each completion, the value of each function, as the documentation has it or as follows from its text."""
    columns: dict[str, list[Any]] = field(default_factory=dict)
    """Columns that are logged for the completions, perhaps among others."""


def ids(text: str) -> list[int]:
    """Stand for a tokenizer: a token for each byte."""
    return list(text.encode())


def messages(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def longer_in_tokens(completion_ids: Any, **kwargs: Any) -> list[float]:
    """Example 1: reward the number of tokens."""
    return [float(len(tokens)) for tokens in completion_ids]


def longer_in_characters(completions: Any, **kwargs: Any) -> list[float]:
    """Example 1.1: reward the number of characters of a completion in the standard format."""
    return [float(len(text)) for text in completions]


def right_format(completions: Any, **kwargs: Any) -> list[float]:
    """Example 2: reward thoughts and an answer in their tags, in the conversational format."""
    shape = re.compile(r"^<think>.*?</think><answer>.*?</answer>$")
    return [1.0 if shape.match(turns[0]["content"]) else 0.0 for turns in completions]


def as_the_reference(completions: Any, ground_truth: Any, **kwargs: Any) -> list[float]:
    r"""Example 3: compare what is in \boxed{} with a column of the data set."""
    found = [re.search(r"\\boxed\{(.*?)\}", text) for text in completions]
    answers = [match.group(1) if match else "" for match in found]
    return [1.0 if answer == right else 0.0 for answer, right in zip(answers, ground_truth, strict=True)]


def only_maths(prompts: Any, completions: Any, task: Any, **kwargs: Any) -> list[float | None]:
    """Example 4: give problems of maths a reward, and no others."""
    sums = [str(eval(re.search(r"\d.*\d", prompt)[0])) for prompt, kind in zip(prompts, task, strict=True)
            if kind == "math"]  # fmt: skip
    left = iter(sums)
    return [
        (1.0 if next(left) in text else -1.0) if kind == "math" else None
        for text, kind in zip(completions, task, strict=True)
    ]


def only_code(prompts: Any, completions: Any, task: Any, **kwargs: Any) -> list[float | None]:
    """Example 4: give problems of programming a reward, and no others."""
    return [
        (1.0 if "def " in text else -1.0) if kind == "coding" else None
        for text, kind in zip(completions, task, strict=True)
    ]


async def slow_and_not_empty(prompts: Any, completions: Any, **kwargs: Any) -> list[float]:
    """Example 5: wait for something, then reward what is not empty."""
    await asyncio.sleep(0.01)
    return [1.0 if completion else 0.0 for completion in completions]


def harder_with_time(completions: Any, trainer_state: Any, **kwargs: Any) -> list[float]:
    """Follow the course of the training, for which the documentation names `trainer_state`."""
    share = trainer_state.global_step / trainer_state.max_steps
    return [len(text) * (1.0 - share) for text in completions]


def logs(completions: Any, answer: Any, log_extra: Any = None, log_metric: Any = None, **kwargs: Any) -> list[float]:
    """Keep columns and a metric beside the rewards."""
    right = [wanted in text for text, wanted in zip(completions, answer, strict=True)]
    if log_extra:
        log_extra("wanted", answer)
    if log_metric:
        log_metric("accuracy", sum(right) / len(right))
    return [float(each) for each in right]


def columns_alone(answer: Any, prompts: Any) -> list[float]:
    """Ask for two arguments and no others; TRL gives all, so the trainer is called with a function that takes them."""
    return [float(len(text)) for text in answer]


SKY = [{"prompt": "The sky is"}, {"prompt": "The sun is"}]
IN_THE_SKY = [" blue.", " in the sky."]
TOGETHER = [
    {"prompt": "What is 2+2?", "task": "math"},
    {"prompt": "Write a function that returns the sum of two numbers.", "task": "coding"},
    {"prompt": "What is 3*4?", "task": "math"},
]

EXAMPLES = [
    Example("1", SKY, IN_THE_SKY, [longer_in_tokens], [[6.0], [12.0]]),
    Example("1.1", SKY, IN_THE_SKY, [longer_in_characters], [[6.0], [12.0]]),
    Example(
        "2",
        [{"prompt": messages(f"What is the result of {sum_}?")} for sum_ in ("(1 + 2) * 4", "(3 + 1) * 2")],
        ["<think>1 + 2 is 3, times 4 is 12.</think><answer>(1 + 2) * 4 = 12</answer>", "3 + 1 is 4, so it is 8."],
        [right_format],
        [[1.0], [0.0]],
    ),
    Example(
        "3",
        [
            {"prompt": "Problem: Solve the equation $2x + 3 = 7$. Solution:", "ground_truth": "2"},
            {"prompt": "Problem: Solve the equation $3x - 5 = 10$.", "ground_truth": "5"},
        ],
        [r" The solution is \boxed{2}.", r" The solution is \boxed{6}."],
        [as_the_reference],
        [[1.0], [0.0]],
    ),
    Example(
        "4",
        TOGETHER,
        [" It is 4.", "def add(a, b): ...", " It is 13."],
        [only_maths, only_code],
        [[1.0, None], [None, 1.0], [-1.0, None]],
    ),
    Example("5", SKY, [" blue.", ""], [longer_in_tokens, slow_and_not_empty], [[6.0, 1.0], [0.0, 0.0]]),
    Example("trainer_state", SKY, IN_THE_SKY, [harder_with_time], [[4.5], [9.0]]),
    Example(
        "log_extra",
        [{"prompt": "2 + 2 =", "answer": "4"}, {"prompt": "3 + 3 =", "answer": "6"}],
        [" 4", " 5"],
        [logs],
        [[1.0], [0.0]],
        {"wanted": ["4", "6"]},
    ),
]


def shipped() -> list[Example]:
    """The examples of “Reward Functions”, with TRL's own functions."""
    from trl.rewards import (
        accuracy_reward,
        get_repetition_penalty_reward,
        get_soft_overlong_punishment,
        think_format_reward,
    )

    asked = [{"prompt": messages("Why?")}] * 2
    thought = ["<think>\nThis is my reasoning.\n</think>\nThis is my answer.", "<think>\nThis is my answer."]
    thirds = [{"prompt": messages("?"), "solution": each} for each in (r"\frac{1}{3}", r"\frac{1}{3}", "no formula")]
    answers = [rf"My answer is \boxed{{{each}}}" for each in (r"\frac{1}{3}", r"\frac{1}{2}", "3")]
    return [
        Example(
            "accuracy_reward",
            thirds,
            answers,
            [accuracy_reward],
            [[1.0], [0.0], [None]],
            {"solution": [row["solution"] for row in thirds]},
        ),
        Example("think_format_reward", asked, thought, [think_format_reward], [[1.0], [0.0]]),
        Example(
            "get_soft_overlong_punishment",
            SKY,
            ["x" * 90, "x" * 70],
            [get_soft_overlong_punishment(max_completion_len=100, soft_punish_cache=20)],
            [[-0.5], [0.0]],
        ),
        Example(
            "get_repetition_penalty_reward",
            SKY,
            ["abcd", "aaaaa"],
            [get_repetition_penalty_reward(ngram_size=2, max_penalty=-1.0)],
            [[0.0], [-0.75]],
        ),
    ]


def rewards(example: Example) -> list[Reward | None]:
    """Score an example's completions with the dialogue task, in step STEP + 1 of STEPS."""
    progress = Progress(STEPS)
    progress.at(STEP + 1)
    functions = [UserReward(function, progress=progress) for function in example.rewards]
    task = DialogueTask(
        dialogues_of([*example.rows]),
        lambda turns: ids(turns[-1]["content"]),
        reward=RewardSum(functions),
        encode_text=ids,
    )
    answers = [Completion(tuple(ids(text)), (), text, "stop") for text in example.completions]
    return task.score([task.prompts()[i] for i in range(len(answers))], answers)


def values(example: Example) -> list[list[float | None]]:
    """For each completion, the value of each reward function."""
    found = rewards(example)
    if len(example.rewards) == 1:
        return [[None if reward is None else reward.value] for reward in found]
    return [[*reward.parts.values()] if reward else [None] * len(example.rewards) for reward in found]


def by_trl(example: Example) -> list[list[float | None]]:
    """Call the rewards as `GRPOTrainer` does, with its own method."""
    import math
    from types import SimpleNamespace

    import torch
    from transformers import TrainerState
    from trl import GRPOTrainer
    from trl.trainer import utils

    thread, loop, ready = utils.start_event_loop_in_daemon(name="rewards")
    ready.wait()
    extra: dict[str, list[Any]] = {}
    trainer = SimpleNamespace(
        accelerator=SimpleNamespace(device=torch.device("cpu"), is_main_process=True),
        args=SimpleNamespace(report_to=[]),
        state=TrainerState(global_step=STEP, max_steps=STEPS),
        environments=None,
        reward_funcs=list(example.rewards),
        reward_processing_classes=[None] * len(example.rewards),
        reward_func_names=[getattr(each, "__name__", "reward") for each in example.rewards],
        async_loop=loop,
        _log_completion_extra=lambda column, values: extra.setdefault(column, []).extend(values),
        _log_metric=lambda name, value: None,
    )
    prompts = [row["prompt"] for row in example.rows]
    completions: list[Any] = [
        [{"role": "assistant", "content": text}] if isinstance(prompt, list) else text
        for prompt, text in zip(prompts, example.completions, strict=True)
    ]
    rewards = GRPOTrainer._calculate_rewards(
        trainer, list(example.rows), prompts, completions, [ids(text) for text in example.completions]
    )
    utils.shutdown_event_loop_in_daemon(thread, loop)
    assert extra.items() >= example.columns.items(), extra
    return [[None if math.isnan(value) else value for value in row] for row in rewards.tolist()]


if __name__ == "__main__":
    sys.modules["vllm"] = None  # type: ignore[assignment]  # TRL would import it, for which it has no use here
    every = [*EXAMPLES, *shipped()]
    found = {
        "trl": {example.name: by_trl(example) for example in every},
        "ours": {example.name: values(example) for example in every},
        "expected": {example.name: example.expected for example in every},
    }
    print(json.dumps(found))
