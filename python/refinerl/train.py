"""The training loop: the method on one screen, and its command.

python -m refinerl.train [RECIPE [PART …]] [key=value …] [--output-dir DIR] [--resume] [--quiet] [--dry-run] [--list]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from refinerl.errors import TrainingStoppedError, report_early_interruption

if __name__ == "__main__":
    report_early_interruption()

from refinerl.run import arguments as command_line

if __name__ == "__main__":
    command_line.answer_early(sys.argv[1:])  # before torch is imported, which takes seconds

import torch

from refinerl.loop.batch import collate
from refinerl.loop.details import details
from refinerl.loop.metrics import merged, rollout_metrics, summed
from refinerl.loop.rollout import collect, revive
from refinerl.records import sample_seed
from refinerl.run import command
from refinerl.run.checkpoint import State
from refinerl.run.evaluation import evaluate, score_of
from refinerl.run.launch import end_process
from refinerl.run.pace import reason_to_stop
from refinerl.run.wiring import Parts


def train(parts: Parts) -> State:
    """Maximize J(θ) − β·C(θ), from the step after the keeper's state to the last; return the state at the end."""
    pace, stream, task, algorithm, constraint = parts.pace, parts.stream, parts.task, parts.algorithm, parts.constraint
    updater, keeper, telemetry, world = parts.updater, parts.keeper, parts.telemetry, parts.world
    state = keeper.state
    stream.position = state.prompts_drawn

    if parts.evaluation is not None and not state.step:
        with telemetry.step(0):  # the model before training
            telemetry.log(evaluate(parts.evaluation, telemetry.clock, world))

    for step in range(state.step + 1, pace.steps + 1):
        with telemetry.step(step):
            # y ~ π_θ, scored; DAPO resamples groups without a signal.
            collected = collect(
                parts.roller,
                algorithm,
                world,
                stream.draw,
                prompts=pace.prompts,
                max_resamples=pace.max_resamples,
                step=step,
            )
            if not world.all_reduce(torch.tensor(len(collected.groups))):
                telemetry.say(f"the data ended after trainer.epochs = {stream.epochs} passes")
                saved = keeper.save()
                if not state.optimizer_steps:
                    took = f"no optimizer step was taken in any of the {state.step} steps until the data ended"
                    raise TrainingStoppedError(f"{took}; the state is in {saved}")
                break
            groups = list(collected.kept)
            if pace.revive:
                seed = sample_seed(pace.seed, step, "on_dropped", 0)
                groups += revive(collected.dropped, pace.revive, task.max_reward, seed, world)

            # ỹ ~ π_ref(· | refine(x, y)): refined, scored, aligned, filtered.
            anchors = constraint.anchor(groups, step)

            with telemetry.clock("update"):
                rows = collate(groups, anchors.refinements, merge=pace.merge)
                due = (step - 1) % pace.kl_every == 0
                measured, others = updater.measure(rows, collate(collected.others), kl=due, step=step)
                penalty, charged = updater.penalty(measured, anchors)
                watched = updater.watch(measured, anchors)
                batch = algorithm.advantages(measured, penalty, world)
                shown = details(updater, batch, groups, anchors, count=pace.token_costs, step=step)
                with keeper.changing():
                    update = updater.update(batch, step, others, share=due)
            with telemetry.clock("sync"):
                parts.generator.load(updater.policy.weights())

            told = summed(task.telemetry(), world)
            evaluated: Mapping[str, float] = {}
            if parts.evaluation is not None and step % pace.evaluate_every == 0:
                evaluated = evaluate(parts.evaluation, telemetry.clock, world)
            metrics = merged(
                rollout_metrics(collected, anchors, world),
                anchors.metrics,
                {part.metric("beta"): part.beta for part in constraint.parts},
                charged,
                watched,
                update.metrics,
                {"update/steps": float(update.steps), "update/skipped": float(len(update.skipped))},
                told,
                evaluated,
            )
            telemetry.rollouts(collected.groups, collected.kept, anchors, shown)
            telemetry.log(metrics)
            state = keeper.reached(state.after(step, stream.position, update, score_of(evaluated)))

        for name in update.skipped:
            telemetry.say(f"warning: step {step}: an optimizer step was skipped, the {name} is not finite")
        stop = reason_to_stop(pace, state, update, metrics)
        if stop or keeper.due(step) or step == pace.steps:
            with telemetry.busy(f"checkpoint-{step}"):
                saved = keeper.save()
        if stop:
            raise TrainingStoppedError(f"step {step}: {stop}; the state is in {saved}")
    return state


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code (`refinerl.run.command.main`)."""
    return command.main(train, arguments)


if __name__ == "__main__":
    end_process(main())
