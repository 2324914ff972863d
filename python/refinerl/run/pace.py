"""The numbers of the training loop, and the guards that stop it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from refinerl.config import Config
from refinerl.loop.metrics import why_idle
from refinerl.records import Update
from refinerl.run.checkpoint import State


@dataclass(frozen=True)
class Pace:
    """The values of a configuration that `train` reads."""

    steps: int
    prompts: int
    """Prompts drawn in each step, over all ranks."""
    max_resamples: int
    revive: int
    """Maximum number of rollouts of dropped groups that are refined nevertheless."""
    merge: bool
    """True if identical (x, ỹ) share a row, which needs a step of one minibatch."""
    kl_every: int
    token_costs: int
    """Accepted refinements of a step whose logprobs are written, over all ranks."""
    evaluate_every: int
    max_skipped: int
    max_idle: int
    seed: int

    @staticmethod
    def of(config: Config) -> Pace:
        """Read the values from a configuration."""
        trainer, algorithm = config.trainer, config.algorithm
        return Pace(
            steps=trainer.steps,
            prompts=trainer.batch // algorithm.samples_per_prompt,
            max_resamples=algorithm.max_resamples,
            revive=trainer.batch if config.on_dropped else 0,
            merge=trainer.minibatch == trainer.batch and all(c.apply == "loss" for c in config.held),
            kl_every=config.telemetry.kl_every,
            token_costs=config.telemetry.token_costs,
            evaluate_every=config.evaluate.every,
            max_skipped=config.guard.max_skipped,
            max_idle=config.guard.max_idle,
            seed=config.seed,
        )


def reason_to_stop(pace: Pace, state: State, update: Update, metrics: Mapping[str, float]) -> str | None:
    """Return the reason for which a guard stops the run after this step, or None."""
    skipped = state.skipped_in_a_row
    last = f", the last because the {update.skipped[-1]} is not finite" if update.skipped else ""
    if update.skipped and skipped >= pace.max_skipped:
        return f"{skipped} optimizer steps in a row were skipped (guard.max_skipped = {pace.max_skipped}){last}"
    if not state.optimizer_steps and skipped and state.step == pace.steps:
        return f"no optimizer step was taken in any of the {pace.steps} steps: {skipped} were skipped{last}"
    if not state.optimizer_steps and not skipped and state.step >= min(pace.max_idle, pace.steps):
        which = (
            f"any of the {pace.steps} steps"
            if state.step == pace.steps
            else f"the first {state.step} steps (guard.max_idle)"
        )
        return f"no optimizer step was taken in {which}: {why_idle(metrics)}"
    return None
