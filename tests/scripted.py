"""A generator and a task whose every answer the test decides: real models cannot be told what to write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from refinerl.contracts import Finished
from refinerl.records import Completion, Decoding, Prompt, Reward, Rollout, Sampling

EOS = 2


def encode(text: str) -> tuple[int, ...]:
    """One token per character."""
    return tuple(map(ord, text))


def decode(ids: Sequence[int]) -> str:
    return "".join(chr(i) for i in ids if i != EOS)


def clock(phase: str, total: int | None = None) -> nullcontext[None]:
    return nullcontext()


class Writer:
    """Answers each prompt with what `script(prompt text, seed)` says; `…` at the end means that it was cut off."""

    def __init__(self, script: Callable[[str, int], str], context_length: int = 1000) -> None:
        self.script = script
        self.context_length = context_length
        self.asked: list[str] = []
        self.decoded = Decoding()

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        finished: Finished | None = None,
        **_: Any,
    ) -> list[list[Completion]]:
        self.asked += [decode(p) for p in prompts]
        found = [
            [self._write(decode(p), seed) for seed in seeds] for p, seeds in zip(prompts, sampling.seeds, strict=True)
        ]
        lengths = [len(each.token_ids) for row in found for each in row]
        self.decoded += Decoding(tokens=sum(lengths), passes=max(lengths, default=0))
        for i, row in reversed(list(enumerate(found))):  # in another order than they were asked for
            for number, completion in enumerate(row):
                if finished is not None:
                    finished(i, number, completion)
        return found

    def sleep(self) -> None:
        """Nothing to free."""

    def wake(self) -> None:
        """Nothing to undo."""

    def _write(self, prompt: str, seed: int) -> Completion:
        text = self.script(prompt, seed)
        if text.endswith("…"):
            return Completion(encode(text[:-1]), (), text[:-1], "length")
        return Completion((*encode(text), EOS), (), text, "stop")


class Points:
    """A reward for each text; texts without one have none."""

    max_reward: float | None = 1.0

    def __init__(self, **points: float) -> None:
        self.points = points
        self.by_heart: tuple[str, ...] = ()
        self.expected: list[str] = []

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Reward | None]:
        found = [self.points.get(c.text) for c in completions]
        return [None if value is None else Reward(value, "scored") for value in found]

    def expect(self, prompt: Prompt, completion: Completion) -> None:
        self.expected.append(completion.text)

    def refine_prompt(self, rollout: Rollout) -> list[dict[str, str]]:
        return [{"role": "user", "content": rollout.completion.text}]

    def refined_response(self, rollout: Rollout, reply: str) -> str:
        return reply

    def hard_coded(self, rollout: Rollout, refined: Completion, reward: Reward | None) -> bool:
        return refined.text in self.by_heart
