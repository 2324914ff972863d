"""The models that a run has written: final/, and those of its checkpoints."""

from __future__ import annotations

import json
import os
import re
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from refinerl.errors import UserError

_RUNS_OWN = ("trainer_state.json", "refinerl.json", "rng-*.pt", "policy", "critic")
"""Names in a checkpoint, or in final/, that are not part of the model."""


def is_run(folder: str | Path) -> bool:
    """Return True if the folder holds a run."""
    return (Path(folder) / "config.yaml").is_file()


def find_model(run: Path, step: str = "final") -> tuple[Path, int]:
    """Return the folder of a run's model for `from_pretrained`, and its step.

    Args:
        run: the run's folder.
        step: `last`, `best` (by the evaluations during training), or the step of a checkpoint. `final`: final/, or the
            last checkpoint of a run that has not ended, or that goes on and has left its final/ behind.

    Raises:
        UserError: the folder holds no run, or no such model.
    """
    if not is_run(run):
        raise UserError(f"{run} is not the folder of a run: it lacks config.yaml")
    steps = _checkpoints(run)
    final = run / "final"
    if step == "final" and final.is_dir() and not _is_behind(final, steps):
        return final, _step_of_final(final, steps)
    if not steps:
        raise UserError(f"{run} holds no model yet: no checkpoint was written")
    match step:
        case "final" | "last":
            number = steps[-1]
        case "best":
            number = _best(run, steps[-1])
        case _:
            if not step.isdecimal() or int(step) not in steps:
                found = ", ".join(map(str, steps))
                raise UserError(f"--step must be last, best or one of the checkpoints of {run} ({found}), got {step}")
            number = int(step)
    folder = run / f"checkpoint-{number}"
    if not _holds_model(folder):
        raise UserError(
            f"{folder} was written by a version whose checkpoints hold no model for from_pretrained: go on with "
            f"`python -m refinerl.train --output-dir {run} --resume`, which writes {final}, or with more steps "
            "(trainer.steps=…), whose checkpoints hold one"
        )
    return folder, number


def export_model(run: Path, step: str, output: Path | None = None, *, merge: bool = False) -> str:
    """Copy a run's model after `step` (`find_model`) into a folder; return a line that names it.

    Args:
        run: the run's folder.
        step: `last`, `best` or a number.
        output: a folder that does not exist or is empty; None: RUN/model-STEP.
        merge: write a LoRA run's base model with the adapter merged into its weights, in their type.

    Raises:
        UserError: there is no such model, it has no adapter to merge, or the folder cannot be written.
    """
    source, number = find_model(run, step)
    output = output or run / f"model-{number}"
    if not output.name:
        raise UserError(f"--output {output} names no new folder: choose one, such as --output model")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output} exists and is not empty: choose another --output")
    is_adapter = (source / "adapter_config.json").is_file()
    if merge and not is_adapter:
        raise UserError(f"--merge is for a LoRA run's adapter, and {source} holds a whole model")
    partial = output.with_name(f".{output.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.parent.mkdir(parents=True, exist_ok=True)
        _copy(source, partial, adapter=not merge)
        if merge:
            _write_merged(source, partial)
        if output.exists():
            output.rmdir()
        os.replace(partial, output)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise UserError(f"cannot write {output}: {error.strerror or error}; choose another --output") from error
    what = "adapter" if is_adapter and not merge else "model"
    return f"{output}: the {what} after step {number}, for from_pretrained"


def _copy(source: Path, target: Path, *, adapter: bool) -> None:
    target.mkdir()
    for path in contents(source):
        if not adapter and (fnmatch(path.name, "adapter_*") or path.name == "merged"):
            continue
        if path.is_dir():
            shutil.copytree(path, target / path.name)
        else:
            shutil.copy(path, target)


def contents(source: Path) -> list[Path]:
    """Return the files and folders of a model, without those that only the run reads."""
    return sorted(path for path in source.iterdir() if not any(fnmatch(path.name, own) for own in _RUNS_OWN))


def _write_merged(source: Path, target: Path) -> None:
    # Imported here, so that reports are written without the model library.
    import yaml

    from refinerl.engines.models import load_model, quiet

    dtype = yaml.safe_load((source.parent / "config.yaml").read_text()).get("dtype", "float32")
    model = load_model(str(source), dtype=dtype)
    with quiet():
        model.save_pretrained(target)


def _checkpoints(run: Path) -> list[int]:
    found = (re.fullmatch(r"checkpoint-(\d+)", path.name) for path in run.iterdir())
    return sorted(int(match[1]) for match in found if match)


def _holds_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("config.json", "adapter_config.json"))


def _best(run: Path, last: int) -> int:
    best = _read(run / f"checkpoint-{last}" / "trainer_state.json").get("best_step")
    if best is None:
        raise UserError(f"{run} has no best step: no evaluation (evaluate.every) had a score; choose --step last")
    if not (run / f"checkpoint-{best}").is_dir():
        raise UserError(f"{run}/checkpoint-{best}, the best step's, is missing; choose --step last")
    return int(best)


def _is_behind(final: Path, steps: list[int]) -> bool:
    """Return True if a resumed run has written checkpoints after final/; that of earlier versions does not tell."""
    known = final / "refinerl.json"
    ended = _read(known).get("last") if known.is_file() else None
    return ended is not None and bool(steps) and steps[-1] > int(ended)


def _step_of_final(final: Path, steps: list[int]) -> int:
    known = final / "refinerl.json"  # of earlier versions it is the last step
    return int(_read(known)["step"]) if known.is_file() else steps[-1] if steps else 0


def _read(path: Path) -> dict[str, Any]:
    try:
        fields: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    return fields
