"""The method on one screen, and its command.

python -m refinerl.train [RECIPE [PART …]] [key=value …] [--output-dir DIR] [--resume] [--dry-run] [--list]
"""

from __future__ import annotations

import argparse
import errno
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from refinerl.run import arguments as command_line
from refinerl.run import recipe

if __name__ == "__main__":
    command_line.answer_early(sys.argv[1:])  # before torch is imported, which takes seconds

import torch

from refinerl.config import Config
from refinerl.errors import TrainingStoppedError, UserError
from refinerl.loop.batch import collate
from refinerl.loop.metrics import merged, rollout_metrics, summed, why_idle
from refinerl.loop.rollout import collect, revive
from refinerl.records import Update, sample_seed
from refinerl.report import summary
from refinerl.run import checkpoint, plan
from refinerl.run.launch import Link, end_process, linked
from refinerl.run.placement import check_abilities
from refinerl.run.wiring import Parts, wire
from refinerl.sandbox import SandboxError


def train(config: Config, parts: Parts, folder: Path, state: checkpoint.State) -> checkpoint.State:
    """max J(θ) − β·C(θ), from the step after `state` to the end. Returns the last step's state."""
    stream, task, algorithm, constraint = parts.stream, parts.task, parts.algorithm, parts.constraint
    updater, telemetry, world = parts.updater, parts.telemetry, parts.world
    samples = parts.roller.sampling.n
    stream.position = state.prompts_drawn

    for step in range(state.step + 1, config.trainer.steps + 1):
        with telemetry.step(step):
            # y ~ π_θ, scored; DAPO resamples groups without a signal.
            collected = collect(
                parts.roller,
                algorithm,
                world,
                stream.draw,
                prompts=config.trainer.batch // samples,
                max_resamples=config.algorithm.max_resamples,
                step=step,
            )
            if not world.all_reduce(torch.tensor(len(collected.groups))):
                telemetry.say(f"the data ended after trainer.epochs = {config.trainer.epochs} passes")
                checkpoint.save(folder, state, parts.trainers, config.checkpoint.keep, world, parts.device)
                break
            groups = list(collected.kept)
            if config.constraint.on_dropped:
                seed = sample_seed(config.seed, step, "on_dropped", 0)
                groups += revive(collected.dropped, config.trainer.batch, task.max_reward, seed, world)

            # ỹ ~ π_ref(· | refine(x, y)): refined, scored, aligned, filtered.
            anchors = constraint.anchor(groups, step)

            with telemetry.clock("update"):
                split = constraint.apply == "reward" or config.trainer.minibatch != config.trainer.batch
                batch = collate(groups, anchors.refinements, merge=not split)
                batch, measured = updater.measure(batch, kl=(step - 1) % config.telemetry.kl_every == 0)
                penalty, charged = updater.penalty(batch, anchors)
                batch = algorithm.advantages(batch, penalty, world)
                update = updater.update(batch, step)
            with telemetry.clock("sync"):
                parts.generator.load(updater.policy.weights())

            evaluated: Mapping[str, float] = {}
            if parts.evaluator is not None and step % config.evaluate.every == 0:
                with telemetry.clock("evaluate"):
                    # A slow test may end differently elsewhere, and all ranks have to agree on the best step.
                    evaluated = world.all_gather_object(parts.evaluator.metrics())[0]
            metrics = merged(
                rollout_metrics(collected, anchors, world),
                anchors.metrics,
                {"constraint/beta": constraint.beta},
                measured,
                charged,
                update.metrics,
                {"update/steps": float(update.steps), "update/skipped": float(len(update.skipped))},
                summed(task.telemetry(), world),
                evaluated,
            )
            telemetry.rollouts(collected.groups, collected.kept, anchors)
            telemetry.log(metrics)

        state = state.after(step, stream.position, update, evaluated.get("evaluate/pass@1"))
        for name in update.skipped:
            telemetry.say(f"[yellow]step {step}: an optimizer step was skipped, the {name} is not finite[/]")
        last = step == config.trainer.steps
        stop = reason_to_stop(config, state, update, metrics)
        if stop or last or state.best_step == step or step % config.checkpoint.every == 0:
            with telemetry.busy(f"checkpoint-{step}"):
                saved = checkpoint.save(folder, state, parts.trainers, config.checkpoint.keep, world, parts.device)
        if stop:
            raise TrainingStoppedError(f"step {step}: {stop}; the state is in {saved}")
    return state


def reason_to_stop(config: Config, state: checkpoint.State, update: Update, metrics: Mapping[str, float]) -> str | None:
    """Why a guard ends the run after this step; None if it goes on."""
    guard, steps = config.guard, config.trainer.steps
    skipped = state.skipped_in_a_row
    if update.skipped and skipped >= guard.max_skipped:
        return (
            f"{skipped} optimizer steps in a row were skipped (guard.max_skipped = {guard.max_skipped}), "
            f"the last because the {update.skipped[-1]} is not finite"
        )
    if not state.optimizer_steps and not skipped and state.step >= min(guard.max_idle, steps):
        which = f"any of the {steps} steps" if state.step == steps else f"the first {state.step} steps (guard.max_idle)"
        return f"no optimizer step was taken in {which}: {why_idle(metrics)}"
    return None


# --- the command --------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 0 done, 1 stopped by a guard, 2 bad input, 130 interrupted.

    As one of many ranks it ends the process instead, with that code and all other ranks.
    """
    try:
        with linked() as link:
            try:
                return _run(command_line.parse(arguments), link)
            except UserError as error:
                return link.end(f"error: {error}", 2)
            except (TrainingStoppedError, SandboxError, FloatingPointError) as error:
                return link.end(f"stopped: {error}", 1)
            except KeyboardInterrupt:
                return link.end("interrupted; --resume goes on from the last checkpoint", 130)
    except UserError as error:  # the launcher's: nobody is linked yet
        return Link().end(f"error: {error}", 2)


def _run(args: argparse.Namespace, link: Link) -> int:
    console = Console(quiet=link.rank > 0)
    if args.list:
        command_line.show_recipes(console)
        return 0
    name, overrides = command_line.split(args.words)
    if args.resume and args.output_dir is None:
        raise UserError("--resume needs --output-dir: the folder of the run that is to go on")
    if args.resume and not args.words and (args.output_dir / "config.yaml").exists():
        name = str(args.output_dir / "config.yaml")
    config = recipe.load(name, overrides)
    if args.dry_run:
        plan.show(config, console)
        return 0
    device = link.claim(config.device)
    check_abilities(config, device)
    world = link.join(config.engines.timeout, device)
    named = args.output_dir or Path("runs") / f"{Path(name).stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder: Path = world.all_gather_object(named)[0]
    with calm_about_full_disks(folder):
        if link.rank == 0:
            check_folder(folder, config, resume=args.resume)
        world.barrier()
        with wire(config, folder, console, world, link.notice) as parts:
            if link.rank == 0:
                checkpoint.begin(folder, recipe.to_yaml(config))
            state = checkpoint.resume(folder, parts.trainers, world, parts.device)
            parts.generator.load(parts.updater.policy.weights())
            if state.step:
                parts.telemetry.say(f"resuming after step {state.step}")
            train(config, parts, folder, state)
            with parts.telemetry.busy("final/"):
                checkpoint.export(folder / "final", parts.updater.policy, parts.tokenizer, world)
            if link.rank == 0:
                summary.show(folder, console, parts.tokenizer.decode)
    return 0


def check_folder(folder: Path, config: Config, *, resume: bool) -> None:
    """A new run's folder must be free, a resumed run's configuration the same where it matters for going on.

    Raises:
        UserError: it is not.
    """
    saved = folder / "config.yaml"
    if not (resume and saved.exists()):
        return checkpoint.check_new(folder)
    old = recipe.load(str(saved))
    changed = [line for line in recipe.differences(old, config) if not line.startswith(CHANGEABLE)]
    if changed:
        raise UserError(
            f"{folder} is a run of another recipe, so its checkpoints cannot go on with this one; it differs in\n  "
            + "\n  ".join(changed)
        )
    return None


CHANGEABLE = (
    "checkpoint.",
    "evaluate.every",
    "telemetry.",
    "guard.",
    "sandbox.workers",
    "trainer.steps",
    "trainer.gradient_checkpointing",
    "trainer.micro_batch",
    "generation.max_batch",
    "engines.timeout",
    "engines.offload_reference",
    "engines.tf32",
    "vllm.max_num_seqs",
    "vllm.memory_",
    "vllm.enforce_eager",
    "vllm.sleep",
    "device_memory",
    "plan.",
)
"""Knobs that a resumed run may change: what is kept, what is shown, and what memory it takes, so that a run that ran
out of it can go on. Sums in another order round otherwise, and `trainer.steps` also moves the schedule's end: such a
run is not the same bit for bit."""


@contextmanager
def calm_about_full_disks(folder: Path) -> Iterator[None]:
    """Turns a write that failed for want of space into a message; torch.save reports it as a RuntimeError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or (folder.exists() and shutil.disk_usage(folder).free < 2**20):
            raise UserError(
                f"the disk that holds {folder} is full; what was written so far is whole: free some space, then go on "
                "with --resume"
            ) from error
        raise


if __name__ == "__main__":
    end_process(main())
