"""A run's folder and its checkpoints. A run that is killed at any moment can be resumed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Protocol

import torch

from refinerl.contracts import ALONE, Trainer, World
from refinerl.data.files import flush, write
from refinerl.errors import UserError
from refinerl.records import Update
from refinerl.report import resumptions
from refinerl.run.random_states import current, restore

SCHEMA = 1
_NAME = re.compile(r"checkpoint-(\d+)")


class Saves(Protocol):
    """Anything that can save itself into a folder, such as a tokenizer."""

    def save(self, folder: Path) -> None:
        """Save it."""


@dataclass(frozen=True)
class State:
    """The state of a run after a step. With the trainers' files it determines the next step."""

    step: int = 0
    prompts_drawn: int = 0
    """Number of prompts drawn so far, over all passes."""
    skipped_in_a_row: int = 0
    """Optimizer steps that were skipped since the last one that was taken."""
    optimizer_steps: int = 0
    """Optimizer steps that were taken in the whole run."""
    ranks: int = 1
    """Number of ranks, each of which wrote its own shards."""
    best_step: int | None = None
    """The step with the best evaluation. Its checkpoint is always kept."""
    best_score: float | None = None
    """`evaluate/pass@1` at that step."""

    def after(self, step: int, prompts_drawn: int, update: Update, score: float | None) -> State:
        """Return the state one step later. `score` is its evaluation or None; of equal scores the earlier is best."""
        later = replace(
            self,
            step=step,
            prompts_drawn=prompts_drawn,
            skipped_in_a_row=0 if update.steps else self.skipped_in_a_row + len(update.skipped),
            optimizer_steps=self.optimizer_steps + update.steps,
        )
        if score is not None and (self.best_score is None or score > self.best_score):
            return replace(later, best_step=step, best_score=score)
        return later


def check_new(folder: Path) -> None:
    """Check that a new run may use this folder, which need not exist.

    Raises:
        UserError: the folder holds a run already, or something else.
    """
    if (folder / "config.yaml").exists():
        raise UserError(f"{folder} already holds a run: continue it with --resume, or choose another --output-dir")
    if not folder.exists():
        return
    if not folder.is_dir() or any(not fnmatch(path.name, ".config.yaml.*partial") for path in folder.iterdir()):
        raise UserError(f"{folder} exists and is not empty: choose another --output-dir")


def begin(folder: Path, config_yaml: str) -> None:
    """Create a run's folder with its resolved configuration. A resumed run replaces the configuration.

    Raises:
        UserError: the folder cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (NotADirectoryError, PermissionError) as error:
        raise UserError(f"cannot create {folder}: {error.strerror}; choose another --output-dir") from error
    write(folder / "config.yaml", config_yaml)
    (folder / "rollouts").mkdir(exist_ok=True)


def withdraw(folder: Path) -> None:
    """Remove what `begin` wrote if no step is finished: a run whose first step failed may begin again."""
    with contextlib.suppress(OSError):  # rollouts/ is not empty
        (folder / "rollouts").rmdir()
        if {path.name for path in folder.iterdir()} <= {"config.yaml", "metrics.jsonl", "tensorboard"}:  # of step 0
            shutil.rmtree(folder / "tensorboard", ignore_errors=True)
            (folder / "metrics.jsonl").unlink(missing_ok=True)
            (folder / "config.yaml").unlink()


def checkpoints(folder: Path) -> list[int]:
    """Return the steps of the complete checkpoints, in order."""
    found = (_NAME.fullmatch(path.name) for path in folder.iterdir())
    return sorted(int(match[1]) for match in found if match)


def save(
    folder: Path,
    state: State,
    trainers: dict[str, Trainer],
    keep: int,
    world: World = ALONE,
    device: torch.device | str = "cpu",
    *,
    random_states: Mapping[str, Any] | None = None,
    tokenizer: Saves | None = None,
) -> Path:
    """Write checkpoint-N under a temporary name, rename it, then remove all but the last `keep` and the best.

    Every rank writes its shards into the same, shared folder; the first rank does the rest. The folder itself is a
    model for `from_pretrained` (of a LoRA policy its adapter); its subfolders hold what `resume` reads.

    Args:
        folder: the run's.
        state: the state to save.
        trainers: the models to save, by the names of their folders.
        keep: checkpoints to keep, in addition to the best one.
        world: the ranks of the run.
        device: the device whose random state is saved.
        random_states: the random states at the time of `state`; None: the current ones.
        tokenizer: the policy's; None: write no model for `from_pretrained`.
    """
    final = folder / f"checkpoint-{state.step}"
    partial = folder / f".checkpoint-{state.step}.partial"
    first = world.rank == 0
    with _cleared(partial, world):
        if first:
            shutil.rmtree(partial, ignore_errors=True)
            for name in trainers:
                (partial / name).mkdir(parents=True)
            partial.mkdir(exist_ok=True)
        world.barrier()
        for name, trainer in trainers.items():
            trainer.save(partial / name)
        if tokenizer is not None:
            trainers["policy"].export(partial, merge=False)
            if first:
                tokenizer.save(partial)
        states = random_states or current(device)
        torch.save(dict(states), partial / f"rng-{world.rank}.pt")
        world.barrier()
        if first:
            state = replace(state, ranks=world.size)
            write(partial / "trainer_state.json", json.dumps({"schema": SCHEMA, **asdict(state)}, indent=1))
            for path in [*partial.rglob("*"), partial]:
                flush(path)
            _place(partial, final)
    if first:
        for step in checkpoints(folder)[:-keep]:
            if step != state.best_step:
                os.replace(folder / f"checkpoint-{step}", partial)  # a half removed one must not have its name
                shutil.rmtree(partial)
    world.barrier()
    return final


def resume(
    folder: Path, trainers: dict[str, Trainer], world: World = ALONE, device: torch.device | str = "cpu"
) -> State:
    """Load the last checkpoint, if there is one, and remove what was written after it.

    Raises:
        UserError: the checkpoint was written by another version or number of ranks, or lacks a part.
    """
    if world.rank == 0:
        _clear(folder)
    world.barrier()
    steps = checkpoints(folder)
    state = State()
    if steps:
        path = folder / f"checkpoint-{steps[-1]}"
        state = _read_state(path / "trainer_state.json")
        if state.ranks != world.size:
            raise UserError(
                f"{path} was written by {state.ranks} ranks and cannot go on with {world.size}: start the run with "
                f"`deepspeed --num_accelerators {state.ranks}` or `torchrun --nproc-per-node {state.ranks}` (on one "
                "machine), or without a launcher for 1"
            )
        for name, trainer in trainers.items():
            if not (path / name).is_dir():
                raise UserError(f"{path} holds no {name}: it is a checkpoint of another recipe")
            trainer.load(path / name)
        states = torch.load(path / f"rng-{world.rank}.pt", map_location="cpu", weights_only=False)
        restore(states, device)
    if world.rank == 0:
        _truncate(folder, state.step if steps else -1)  # without a checkpoint the run begins anew
        resumptions.note(folder, state.step)
    world.barrier()
    return state


def load_policy(folder: Path, step: int, policy: Trainer) -> None:
    """Load the policy of a checkpoint.

    Raises:
        UserError: there is no such checkpoint.
    """
    path = folder / f"checkpoint-{step}" / "policy"
    if not path.is_dir():
        raise UserError(f"{path} is missing: put it back, or choose checkpoint.final=last")
    policy.load(path)


def standing(folder: Path) -> str:
    """Describe the state that a resumed run continues from, by the checkpoints in its folder."""
    steps = checkpoints(folder) if folder.is_dir() else []
    if not steps:
        return "no checkpoint was written yet, so --resume begins again"
    return f"--resume goes on after step {steps[-1]}, from {folder / f'checkpoint-{steps[-1]}'}"


def export(folder: Path, policy: Trainer, tokenizer: Saves, world: World = ALONE, *, step: int, last: int) -> None:
    """Save model and tokenizer for `from_pretrained`, with the merged model if there is one; all or nothing.

    refinerl.json notes the model's `step`, and the `last` one of the run.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    with _cleared(partial, world):
        if world.rank == 0:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
        world.barrier()
        policy.export(partial)
        if world.rank == 0:
            for place in (partial, partial / "merged"):
                if place.is_dir():
                    tokenizer.save(place)
            write(partial / "refinerl.json", json.dumps({"schema": SCHEMA, "step": step, "last": last}))
            _place(partial, folder)


def _place(partial: Path, folder: Path) -> None:
    """Move a complete folder to its place, and only then remove one that is there.

    If the process is killed between its two renames, `_clear` puts that one back.
    """
    aside = folder.with_name(f".{folder.name}.aside")
    if folder.exists():
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(folder, aside)
    os.replace(partial, folder)
    shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _cleared(partial: Path, world: World) -> Iterator[None]:
    """Remove a folder that is incomplete because of an exception.

    Raises:
        OSError: ENOSPC instead of a library's own error if the disk was full, as the removal frees space on it.
    """
    try:
        yield
    except BaseException as error:
        full = isinstance(error, Exception) and (is_full(partial.parent) or "No space left" in str(error))
        if world.rank == 0:
            shutil.rmtree(partial, ignore_errors=True)
        if full and not isinstance(error, OSError):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(partial)) from error
        raise


def is_full(folder: Path) -> bool:
    """True if the disk that holds a folder has less than 1 MiB left."""
    return folder.exists() and shutil.disk_usage(folder).free < 2**20


def _read_state(path: Path) -> State:
    try:
        fields = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if fields.pop("schema", None) != SCHEMA:
        raise UserError(f"{path} was written by another version of refinerl (schema is not {SCHEMA})")
    # Older checkpoints lack the count. A run that got this far has taken optimizer steps.
    return State(**({"optimizer_steps": fields["step"]} | fields))


def _truncate(folder: Path, step: int) -> None:
    """Remove the rows and files of steps after `step`, which are going to be repeated."""
    metrics = folder / "metrics.jsonl"
    if metrics.exists():
        kept = [line for line in metrics.read_text().splitlines(keepends=True) if _step_of(line) <= step]
        write(metrics, "".join(kept))
    for path in (folder / "rollouts").glob("*"):
        match = re.fullmatch(r"step-(\d+)\.jsonl", path.name)
        if match and int(match[1]) > step:
            path.unlink()


def _clear(folder: Path) -> None:
    """Remove incomplete files of a process that was killed, and put back folders that it was about to replace."""
    for aside in folder.glob(".*.aside"):
        place = folder / aside.name[1 : -len(".aside")]
        if place.exists():
            shutil.rmtree(aside)
        else:
            os.replace(aside, place)
    for path in [*folder.glob(".*.partial"), *(folder / "rollouts").glob(".*.partial")]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _step_of(line: str) -> float:
    """Return a row's step; infinity for an incomplete line of a process that was killed."""
    try:
        return float(json.loads(line)["step"])
    except ValueError:
        return float("inf")
