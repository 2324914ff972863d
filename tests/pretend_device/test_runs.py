"""Whole runs on a device that is not the CPU give the CPU's metrics: mixed devices raise there, as they do on CUDA."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import pretend_device
import refinerl
from refinerl.audition import command as audition
from tiny import write_openrlhf_reward_model
from toy import Toy, metrics, rollouts, timeless, without_tokens, write_problems

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(pretend_device.compiler() is None, reason="no C++ compiler for the pretend device"),
]

WORKER = Path(__file__).with_name("worker.py")
STEPS = ("trainer.steps=4", "trainer.learning_rate=2e-3", "constraint.accept=all", "trainer.micro_batch_tokens=96")
PPO = ("algorithm.name=ppo", "algorithm.samples_per_prompt=2", "algorithm.epochs=2", "trainer.minibatch=4")
DAPO = ("algorithm.name=dapo", "algorithm.max_resamples=1")
CONSTRAINTS = {
    "none": ("constraint.name=none",),
    "static in the reward": ("constraint.name=static", "constraint.apply=reward"),
    "static in the loss": ("constraint.name=static", "constraint.apply=loss", "constraint.estimator=k3"),
    "dynamic in the loss": ("constraint.name=dynamic", "constraint.apply=loss"),
    "dynamic in the reward": ("constraint.name=dynamic", "constraint.apply=reward"),
}


class Elsewhere:
    """A process that has the pretend device and runs our commands there."""

    def __init__(self, folder: Path) -> None:
        source = Path(refinerl.__file__).parents[1]
        path = os.pathsep.join([str(WORKER.parents[1]), str(source), *sys.path])
        self.errors = folder / "errors"
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors.open("w"),
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )

    def run(self, module: str, arguments: list[str]) -> str:
        """What the command printed; fails the test unless it ended with 0."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([module, *arguments]), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        assert answer, self.errors.read_text()[-2000:]
        found = json.loads(answer)
        assert found["code"] == 0, found["shown"]
        return str(found["shown"])

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=60)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    pretend_device.build()
    process = Elsewhere(tmp_path_factory.mktemp("elsewhere"))
    yield process
    process.close()


def both(elsewhere: Elsewhere, toy: Toy, folder: Path, *options: str, reward: str = "toy_rewards:share_of_a") -> None:
    """The same run on the CPU and on the device: metrics to 1e-5, the same responses and refinements.

    Both with PyTorch's cross-entropy, which is all that the device has, so that both round alike. Prefixes are shared
    on both or on neither; `auto` goes by the device.
    """
    options = ("trainer.share_prefixes=never", *options)
    there, here = folder / "device", folder / "cpu"
    elsewhere.run("refinerl.train", toy.arguments(there, *options, "device=pretend", reward=reward))
    assert toy.run(here, *options, "kernels.impl=torch", reward=reward) == 0
    compare(there, here)


WORK = ("refiner/passes", "refiner/tokens_decoded", "refiner/draft_accepted")
"""Metrics of the refiner's engine: how many tokens it guesses at a time depends on what a pass costs on the device."""


def compare(there: Path, here: Path) -> None:
    assert timeless(there)[-1]["update/steps"] > 0
    assert len(timeless(there)) == len(timeless(here))
    for mine, theirs in zip(timeless(there), timeless(here), strict=True):
        assert mine.keys() == theirs.keys()
        for name, value in theirs.items():
            if name in WORK:
                assert (mine[name] is None) == (value is None), name
                continue
            assert mine[name] == (value if value is None else pytest.approx(value, abs=1e-5, rel=1e-5)), name
        if mine["step"]:  # step 0 is an evaluation
            assert texts(rollouts(there, mine["step"])) == texts(rollouts(here, mine["step"]))


def texts(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    rows = without_tokens(rows)
    return [(row["completion"], (row.get("refinement") or {}).get("completion")) for row in rows]


@pytest.mark.parametrize("constraint", CONSTRAINTS)
@pytest.mark.parametrize("algorithm", [PPO, DAPO], ids=["ppo", "dapo"])
def test_the_metrics_are_the_cpus(elsewhere, toy, tmp_path, algorithm, constraint):
    both(elsewhere, toy, tmp_path, *STEPS, *algorithm, *CONSTRAINTS[constraint])


@pytest.mark.parametrize(
    "options",
    [
        ("lora.rank=4",),
        ("trainer.gradient_checkpointing=true",),
        ("mismatch.correction=token",),
        ("mismatch.correction=sequence", "algorithm.entropy_bonus=0.01"),
        ("engines.offload_reference=true",),
        ("constraint.on_dropped=true",),
        (*PPO, "trainer.share_prefixes=always"),
        (*PPO, "algorithm.loss_reduction=sequence", "trainer.max_grad_norm=0.01"),
    ],
    ids=lambda options: options[-1],
)
def test_what_a_recipe_may_switch_on(elsewhere, toy, tmp_path, options):
    both(elsewhere, toy, tmp_path, *STEPS, *options)


def test_a_reward_model_scores_and_the_critic_starts_from_it(elsewhere, toy, tmp_path):
    model = write_openrlhf_reward_model(tmp_path / "rm", alphabet="abcdefgh ")
    options = (*STEPS, *PPO, f"reward_model.model={model}", f"critic.model={model}", "constraint.apply=reward")
    both(elsewhere, toy, tmp_path, *options, reward="model")


def test_code_with_an_evaluation_between_the_steps(elsewhere, toy, tmp_path):
    problems = write_problems(tmp_path)
    code = ("task.name=code", f"task.path={problems}", "trainer.steps=2", "generation.max_tokens=2")
    sizes = ("evaluate.prompting=completion", "evaluate.max_tokens=1", "evaluate.n=4", "evaluate.temperature=2")
    evaluation = ("evaluate.every=1", "evaluate.benchmark=apps", f"evaluate.data={problems}", *sizes)
    both(elsewhere, toy, tmp_path, *code, *evaluation, "algorithm.dynamic_sampling=false", reward="adaptive")


@pytest.mark.parametrize("options", [PPO, ("lora.rank=4",), (*PPO, "dtype=bfloat16")], ids=["ppo", "lora", "bf16"])
def test_a_resumed_run_is_the_one_that_was_never_interrupted(elsewhere, toy, tmp_path, options):
    options = (*STEPS, *options, "trainer.schedule=constant", "checkpoint.every=2", "device=pretend")
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    elsewhere.run("refinerl.train", toy.arguments(whole, *options))
    elsewhere.run("refinerl.train", toy.arguments(halves, *options, "trainer.steps=2"))
    elsewhere.run("refinerl.train", [*toy.arguments(halves, *options), "--resume"])
    assert len(metrics(halves)) == 4
    assert json.dumps(timeless(halves)) == json.dumps(timeless(whole))


def test_an_audition_finds_what_it_finds_on_the_cpu(elsewhere, toy, tmp_path, capsys):
    arguments = toy.arguments(tmp_path / "run")[:-2]  # no folder of a run
    found = []
    for name, run in (("device", elsewhere.run), ("cpu", _audition)):
        output = tmp_path / f"{name}.json"
        device = "pretend" if name == "device" else "cpu"
        run("refinerl.audition.command", [*arguments, f"device={device}", "--n", "4", "--output", str(output)])
        found.append(json.loads(output.read_text())["columns"])
    assert _without_times(found[0]) == _without_times(found[1])


def _audition(_: str, arguments: list[str]) -> None:
    assert audition.main(arguments) == 0


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_times(v) for k, v in value.items() if "second" not in k and "time" not in k}
    if isinstance(value, list):
        return [_without_times(v) for v in value]
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 4)
    return value


def test_the_device_refuses_what_cuda_refuses(elsewhere, tmp_path):
    """Operators of both devices raise, also with a CPU generator; a CPU scalar and CPU indices may take part; tied
    weights stay tied."""
    script = tmp_path / "script.py"
    script.write_text(REFUSALS)
    path = os.pathsep.join([str(WORKER.parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, str(script)], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["add", "stack", "index_put", "where", "linear", *DRAWS, "held"]


DRAWS = ("rand", "randperm", "multinomial", "normal_")

REFUSALS = """
import torch, pretend_device
pretend_device.load()
here, there = torch.ones(3, 3), torch.ones(3, 3, device="pretend")
def refused(name, run, words="same device"):
    try:
        run()
    except RuntimeError as error:
        assert words in str(error), error
        print(name)
refused("add", lambda: there + here)
refused("stack", lambda: torch.stack([there, here]))
refused("index_put", lambda: there.index_put((torch.tensor([0]),), here[:1]))
refused("where", lambda: torch.where(there > 0, there, here))
refused("linear", lambda: torch.nn.functional.linear(there, here))
drawn = {"generator": torch.Generator()}
for name, draw in {
    "rand": lambda: torch.rand(3, device="pretend", **drawn),
    "randperm": lambda: torch.randperm(3, device="pretend", **drawn),
    "multinomial": lambda: torch.multinomial(there, 1, **drawn),
    "normal_": lambda: there.clone().normal_(**drawn),
}.items():
    refused(name, draw, "device type for generator but found 'cpu'")
assert torch.rand(3, device="pretend").shape == torch.rand(3, **drawn).to("pretend").shape
assert (there * torch.tensor(2.0))[torch.tensor([0, 2])].cpu().tolist() == [[2.0] * 3] * 2
from tiny import tiny_model
model = tiny_model(tied=True).to("pretend")
assert model.lm_head.weight is model.model.embed_tokens.weight
before = torch.pretend.memory_allocated()
large = torch.empty(1000, device="pretend")
assert torch.pretend.memory_allocated() - before == 4000
del large
assert torch.pretend.memory_allocated() == before
print("held")
"""


def test_no_device_of_that_name_without_it():
    assert "pretend" not in str(torch._C._get_privateuse1_backend_name())
