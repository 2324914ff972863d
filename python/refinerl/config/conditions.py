"""Conditions under which runs read knobs, where several sections or knobs have the same one.

A section states the conditions of its knobs in `read_when`; `reading` compares them with what the user set.
"""

from __future__ import annotations

from refinerl.contracts.options import When

PLANNED = When("--dry-run", lambda own, run: False)
"""Met by no run: only a plan reads the knob."""
GPU = When("a GPU", lambda own, run: run.device != "cpu")
RANKS = When("engines.trainer=deepspeed", lambda own, run: run.engines.trainer == "deepspeed")
TRANSFORMERS = When("engines.generator=transformers", lambda own, run: run.engines.generator == "transformers")
VLLM = When("engines.generator=vllm", lambda own, run: run.engines.generator == "vllm")
CRITIC = When("an algorithm that trains a critic, such as algorithm.name=ppo", lambda own, run: run.needs_critic)
SCORED_BY_MODEL = When("task.reward=model", lambda own, run: run.scored_by_model)
JUDGED = When("task.name=code and its rewards adaptive or coarse", lambda own, run: run.judges_programs)
CHOSEN = When(
    "a constraint that makes refinements, such as constraint.name=dynamic, or with refiner.probe=true",
    lambda own, run: run.refines or bool(run.refining),
)
REFINES = When(
    "a constraint that asks the refiner, such as constraint.name=dynamic, or with refiner.probe=true",
    lambda own, run: run.refines,
)
REWRITES = When(
    "a constraint whose refiner rewrites responses, such as constraint.name=dynamic, or with refiner.probe=true",
    lambda own, run: run.rewrites,
)
SERVED = When("refiner.source=server", lambda own, run: run.refines and own.source == "server")
