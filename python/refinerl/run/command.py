"""The command `python -m refinerl.train`: a run from start to end, and its exit code."""

from __future__ import annotations

import argparse
import datetime
import errno
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from refinerl.config import Config
from refinerl.engines import devices
from refinerl.engines.allocator import keep_freed_memory
from refinerl.errors import UserError
from refinerl.report import summary
from refinerl.report.metrics import read_metrics
from refinerl.run import arguments as command_line
from refinerl.run import checkpoint, plan, preflight, recipe
from refinerl.run.evaluation import score_of
from refinerl.run.given import NOTHING, Given
from refinerl.run.interruption import Interrupted
from refinerl.run.launch import EXPECTED, Link, last_words, linked
from refinerl.run.placement import check_abilities
from refinerl.run.wiring import Parts, wire

Loop = Callable[[Parts], checkpoint.State]
"""`refinerl.train.train`. It is passed as an argument, because importing it here would be circular."""


def main(loop: Loop, arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0 done, 1 stopped by a guard, 2 bad input, 130 or 143 interrupted.

    In one of several ranks, an error ends this process and all other ranks with that code.
    """
    try:
        with linked() as link:
            try:
                return _run(loop, command_line.parse(arguments), link)
            except EXPECTED as error:
                return link.end(*last_words(error))
            except KeyboardInterrupt as interrupt:
                code = interrupt.code if isinstance(interrupt, Interrupted) else 130
                return link.end(str(interrupt) or "interrupted before the run began", code)
            except Exception as error:
                return link.fail(error)
    except UserError as error:  # the launcher's environment is wrong
        return Link().end(*last_words(error))


def _run(loop: Loop, args: argparse.Namespace, link: Link) -> int:
    console = Console(quiet=link.rank > 0)
    if args.list:
        command_line.show_recipes(console)
        return 0
    name, overrides = command_line.split(args.words)
    check_resumable(args.output_dir, resume=args.resume)
    if args.resume and not command_line.names_recipe(args.words):
        command_line.check_run(args.output_dir)
        asked = recipe.resolve_run(args.output_dir, overrides)
    else:
        asked = recipe.resolve(name, overrides)
    config = asked.config
    if args.dry_run:
        devices.require_name(config.device)
        devices.require_name(config.reward_model.device, "reward_model.device")
        plan.show(config, console, asked.notes(planning=True), args.output_dir)
        return 0
    device = devices.resolve(config.device)
    if device.type == "cpu":  # with a GPU the host needs little memory, and would never return it
        keep_freed_memory()
    folder = args.output_dir or command_line.new_folder(name)
    notes = asked.notes(device=str(device))
    with run(loop, config, folder, console, link, resume=args.resume, notes=notes, quiet=args.quiet) as parts:
        if link.rank == 0 and not args.quiet:
            close(parts, console)
    return 0


def close(parts: Parts, console: Console) -> None:
    """Print the summary of a finished run. If that fails, say so: the run has succeeded all the same."""
    folder = parts.keeper.folder
    try:
        summary.show(folder, console, parts.tokenizer.decode)
    except Exception as error:
        parts.telemetry.say(
            f"warning: the run is complete, but its summary failed ({type(error).__name__}: {error}); "
            f"the model is in {folder / 'final'}"
        )


def check_resumable(output_dir: object, *, resume: bool) -> None:
    """Check that a folder is given if a run is to be resumed.

    Raises:
        UserError: none is given.
    """
    if resume and output_dir is None:
        raise UserError("--resume needs --output-dir: the folder of the run that is to go on")


@contextmanager
def run(
    loop: Loop,
    config: Config,
    folder: Path,
    console: Console,
    link: Link,
    *,
    resume: bool = False,
    given: Given = NOTHING,
    notes: Sequence[str] = (),
    quiet: bool = False,
) -> Iterator[Parts]:
    """Train from the start, or from the folder's last checkpoint, to the end; yield the trained parts, then close them.

    With several ranks, the first rank's `folder` is used. `notes` are sentences to print before anything is loaded.
    `quiet` leaves only them and warnings of what the run would print. The message of a KeyboardInterrupt says where a
    resumed run continues. SIGTERM has the effect of Ctrl-C.

    Raises:
        UserError: the folder is in use, or a part cannot be loaded.
        TrainingStoppedError: a guard stopped the run.
        KeyboardInterrupt: the run was interrupted.
    """
    device = link.claim(config.device)
    check_abilities(config, device)
    world = link.join(config.engines.timeout, device)
    folder = world.all_gather_object(folder)[0]
    with telling_where_it_goes_on(folder), link.interruption.listening(), calm_about_full_disks(folder):
        date = world.all_gather_object(chat_date(folder, config, resume=resume))[0]
        config = config.model_copy(update={"chat_template_date": date})
        if link.rank == 0:
            check_folder(folder, config, resume=resume)
            preflight.check_writable(folder)
            if not resume:
                preflight.check_disk(config, folder)
        for note in notes:
            console.print(f"[yellow]{escape(note)}[/]", highlight=False, soft_wrap=True)
        world.barrier()
        with wire(config, folder, console, world, link.notice, given, link.interruption, quiet=quiet) as parts:
            keeper = parts.keeper
            link.stand(keeper.standing)
            if link.rank == 0:
                checkpoint.begin(folder, recipe.to_yaml(config))
            state = keeper.resume()
            parts.generator.load(parts.updater.policy.weights())
            if state.step:
                parts.telemetry.say(f"resuming after step {state.step}")
            try:
                link.train_together()
                loop(parts)
                with parts.telemetry.busy("final/"):
                    export(config, parts)
                parts.telemetry.leave()
                yield parts
            except KeyboardInterrupt as interrupt:
                keeper.rescue()
                number = interrupt.number if isinstance(interrupt, Interrupted) else signal.SIGINT
                raise Interrupted(number, keeper.standing()) from None
            except BaseException:
                keeper.rescue()
                if link.rank == 0:
                    parts.telemetry.close(failed=True)  # a tracker must not write into the folder again
                    checkpoint.withdraw(folder)
                raise


def export(config: Config, parts: Parts) -> None:
    """Write final/, of the step that `checkpoint.final` names."""
    keeper = parts.keeper
    last = step = keeper.state.step
    if config.checkpoint.final == "best":
        keeper.take_best()
        step = keeper.state.best_step or last
        if parts.world.rank == 0:
            parts.telemetry.say(_best(keeper.state, step, _before_training(keeper.folder)))
    place, policy = keeper.folder / "final", parts.updater.policy
    checkpoint.export(place, policy, parts.tokenizer, parts.world, step=step, last=last)


def _best(state: checkpoint.State, step: int, before: float | None) -> str:
    """Say which step's model is final/. It is a trained one also if the evaluation `before` training is better."""
    said = f"final/ is the model after step {step}, "
    if state.best_step is None:
        return f"{said}the last: no evaluation had a score"
    if before is not None and state.best_score is not None and before > state.best_score:
        return (
            f"warning: {said}which has the best evaluation of all steps, {state.best_score:.4g}; before training it "
            f"was {before:.4g}, so on these rows the model that the run began with is better"
        )
    return f"{said}which has the best evaluation: {state.best_score:.4g}"


def _before_training(folder: Path) -> float | None:
    """Return the score of the evaluation before the first step; None without one."""
    first = next(iter(read_metrics(folder)), {"step": None})
    return None if first["step"] != 0 else score_of({k: v for k, v in first.items() if v is not None})


@contextmanager
def telling_where_it_goes_on(folder: Path) -> Iterator[None]:
    """Add to an interruption that says nothing yet, such as one during loading, where `--resume` continues."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if str(interrupt):
            raise
        number = interrupt.number if isinstance(interrupt, Interrupted) else signal.SIGINT
        raise Interrupted(number, checkpoint.standing(folder)) from None


def today() -> datetime.date:
    """The current day."""
    return datetime.date.today()


def chat_date(folder: Path, config: Config, *, resume: bool) -> datetime.date:
    """The day that chat templates print: the one that was asked for, else that of the run's start."""
    saved = folder / "config.yaml"
    if config.chat_template_date is None and resume and saved.exists():
        return recipe.load_run(folder).chat_template_date or today()
    return config.chat_template_date or today()


def check_folder(folder: Path, config: Config, *, resume: bool) -> None:
    """Check that the folder of a new run is free, or that a resumed run's configuration still fits its checkpoints.

    Raises:
        UserError: it is not, or it does not.
    """
    saved = folder / "config.yaml"
    if not (resume and saved.exists()):
        return checkpoint.check_new(folder)
    old = recipe.load_run(folder)
    changed = [line for line in recipe.differences(old, config) if not line.startswith(CHANGEABLE)]
    if old.chat_template_date is None:  # the run started before its date was recorded
        changed = [line for line in changed if not line.startswith("chat_template_date:")]
    if changed:
        raise UserError(
            f"{folder} is a run of another recipe, so its checkpoints cannot continue with this one; it differs in\n  "
            + "\n  ".join(changed)
        )
    done = max(checkpoint.checkpoints(folder), default=0)
    if done > config.trainer.steps:
        raise UserError(
            f"{folder} has {done} steps already, more than trainer.steps = {config.trainer.steps}: choose at least "
            f"trainer.steps={done}"
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
    "trainer.share_prefixes",
    "generation.max_batch",
    "engines.timeout",
    "engines.offload_reference",
    "engines.tf32",
    "task.reward_seconds",
    "reward_model.batch",
    "reward_model.device",
    "refiner.drafts",
    "refiner.url",
    "refiner.api_key_env",
    "refiner.timeout",
    "refiner.retries",
    "refiner.concurrency",
    "refiner.max_failures",
    "vllm.max_num_seqs",
    "vllm.memory_",
    "vllm.enforce_eager",
    "vllm.sleep",
    "device_memory",
    "plan.",
)
"""Knobs that a resumed run may change: they affect what is kept and shown, and how much memory is used, so that a run
that ran out of memory can continue. A run with such a change is not bitwise identical to one without: sums are rounded
in another order, and `trainer.steps` also moves the end of the schedule."""


@contextmanager
def calm_about_full_disks(folder: Path) -> Iterator[None]:
    """Turn a write that fails on a full disk into a UserError. torch.save reports it as a RuntimeError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or checkpoint.is_full(folder):
            raise UserError(
                f"the disk that holds {folder} is full; all files written so far are complete: free some space, then "
                "continue with --resume"
            ) from error
        raise
