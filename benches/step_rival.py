"""Steps of TRL's GRPOTrainer on the prompts, the reward and the model of a recipe; `bench_step.py` starts this program.

Its argument is JSON with the keys `recipe`, `overrides`, `steps`, `beta`, `device` and `output`, the file of the rows.

TRL is given its fastest setting: all responses of a step are generated at once, each optimizer step is one forward and
one backward pass without gradient checkpointing, in float32 as ours, on-policy where the recipe is (then TRL computes
no old logprobs), and nothing is logged, evaluated or saved within a step. The loss is DAPO's, with the recipe's clips,
learning rate and passes. Prompts are the very token ids that ours reads, and programs are judged by our own sandbox.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from refinerl.config import Config
from refinerl.contracts import Task
from refinerl.engines.models import resolve_model
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.records import Completion, Prompt
from refinerl.run import recipe
from refinerl.run.tasks import make_task
from refinerl.run.wiring import make_stream

GIB = 2**30


class Clock:
    """The seconds of each phase of a step, and what was written in it."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.rows: list[dict[str, float]] = []
        self._row: dict[str, float] = {}
        self._begun = 0.0

    def begin(self) -> None:
        self._row = {"generate": 0.0, "score": 0.0, "prompt_tokens": 0.0, "tokens": 0.0}
        self._begun = self._now()

    def end(self) -> None:
        row, step = self._row, self._now() - self._begun
        row |= {"update": step - row["generate"] - row["score"], "step": step}
        row["host_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
        if self.device != "cpu":
            row["device_gib"] = torch.cuda.max_memory_allocated() / GIB
        self.rows.append(row)

    def count(self, name: str, number: float) -> None:
        self._row[name] += number

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begun = self._now()
        yield
        self._row[name] += self._now() - begun

    def _now(self) -> float:
        if self.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()


class Steps(TrainerCallback):
    """Tells the clock where a step begins and ends: several optimizer steps, where the recipe takes several."""

    def __init__(self, clock: Clock, updates: int) -> None:
        self.clock, self.updates, self.done = clock, updates, 0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        if self.done % self.updates == 0:
            self.clock.begin()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.done += 1
        if self.done % self.updates == 0:
            self.clock.end()


class TimedTrainer(GRPOTrainer):  # type: ignore[misc]
    """TRL's trainer with a clock around two of its methods."""

    clock: Clock
    expected: dict[str, tuple[int, ...]]
    """Token ids by prompt."""

    def _tokenize_prompts(self, prompts: list[str]) -> Any:
        ids, *rest = super()._tokenize_prompts(prompts)
        if [tuple(row) for row in ids] != [self.expected[prompt] for prompt in prompts]:
            raise RuntimeError("TRL reads other prompt tokens than ours")
        return ids, *rest

    def _generate_single_turn(self, prompt_ids: list[list[int]], *rest: Any, **named: Any) -> Any:
        with self.clock.phase("generate"):
            written = super()._generate_single_turn(prompt_ids, *rest, **named)
        self.clock.count("prompt_tokens", sum(map(len, prompt_ids)))
        self.clock.count("tokens", sum(map(len, written[0])))
        return written

    def _calculate_rewards(self, *arguments: Any, **named: Any) -> Any:
        with self.clock.phase("score"):
            return super()._calculate_rewards(*arguments, **named)


def reward_of(task: Task, prompts: list[Prompt], tokenizer: ChatTokenizer) -> Callable[..., list[float | None]]:
    """Return the task's reward in TRL's signature; the column `row` numbers the prompts."""

    def reward(completions: list[str], completion_ids: list[list[int]], row: list[int], **_: Any) -> list[float | None]:
        made = [
            Completion(tuple(ids), (), text, "stop" if ids and ids[-1] in tokenizer.eos_token_ids else "length")
            for ids, text in zip(completion_ids, completions, strict=True)
        ]
        rewards = task.score([prompts[number] for number in row], made)
        return [None if reward is None else reward.value for reward in rewards]

    return reward


def settings(config: Config, steps: int, beta: float, device: str, folder: str) -> tuple[GRPOConfig, int]:
    """Return TRL's settings, and the number of optimizer steps that make a step of ours."""
    updates = config.trainer.batch // config.trainer.minibatch
    a: Any = config.algorithm
    made = GRPOConfig(
        output_dir=folder,
        max_steps=steps * updates * a.epochs,
        per_device_train_batch_size=config.trainer.minibatch,
        gradient_accumulation_steps=1,
        steps_per_generation=updates,
        num_iterations=a.epochs,
        num_generations=a.samples_per_prompt,
        max_completion_length=config.generation.max_tokens,
        temperature=config.generation.temperature,
        beta=beta,
        loss_type="dapo",
        epsilon=a.clip_low,
        epsilon_high=a.clip_high,
        learning_rate=config.trainer.learning_rate,
        lr_scheduler_type="constant",
        adam_beta1=config.trainer.betas[0],
        adam_beta2=config.trainer.betas[1],
        max_grad_norm=config.trainer.max_grad_norm,
        use_cpu=device == "cpu",
        bf16=False,
        gradient_checkpointing=False,
        shuffle_dataset=False,
        dataloader_pin_memory=False,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        seed=config.seed,
    )
    return made, updates * a.epochs


def measure(config: Config, steps: int, beta: float, device: str) -> list[dict[str, float]]:
    """Train for so many steps; return a row for each."""
    name = resolve_model(config.model)
    tokenizer = ChatTokenizer.load(name)
    model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
    room = model.config.max_position_embeddings - config.generation.max_tokens
    task = make_task(config, tokenizer, print, room)
    groups = config.trainer.batch // config.algorithm.samples_per_prompt
    prompts = make_stream(task, config).draw(steps * groups)
    texts = [tokenizer.inner.decode(prompt.token_ids) for prompt in prompts]
    clock = Clock(device)
    with tempfile.TemporaryDirectory() as folder:
        arguments, updates = settings(config, steps, beta, device, folder)
        trainer = TimedTrainer(
            model=model,
            reward_funcs=reward_of(task, prompts, tokenizer),
            args=arguments,
            train_dataset=Dataset.from_dict({"prompt": texts, "row": list(range(len(texts)))}),
            processing_class=tokenizer.inner,
            callbacks=[Steps(clock, updates)],
        )
        trainer.clock = clock
        trainer.expected = dict(zip(texts, (prompt.token_ids for prompt in prompts), strict=True))
        trainer.train()
    task.close()
    return clock.rows


def main() -> None:
    asked = json.loads(sys.argv[1])
    config = recipe.load(asked["recipe"], asked["overrides"])
    rows = measure(config, asked["steps"], asked["beta"], asked["device"])
    Path(asked["output"]).write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
