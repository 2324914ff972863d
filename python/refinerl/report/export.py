"""A run's rollouts as training data: (x, ỹ) for supervised fine-tuning, (x, chosen ỹ, rejected y) for preferences.

The layouts are TRL's: `prompt` and `completion`, or `prompt`, `chosen` and `rejected`; lists of messages where the
policy was prompted with messages, else texts.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from refinerl.data.jsonlines import json_lines
from refinerl.errors import UserError
from refinerl.report.rows import readable

Format = Literal["sft", "preference"]


@dataclass(frozen=True)
class Exported:
    """What an export wrote."""

    path: Path
    rows: int
    refinements: int
    """Refinements that were read, of all steps."""
    duplicates: int
    """Rows left out because an equal one was there."""


def export(run: Path, form: Format, output: Path | None = None, *, everything: bool = False) -> Exported:
    """Writes a run's accepted refinements (`everything`: all that were made) as JSON lines; whole or not at all.

    A preference is written only where ỹ has strictly the higher reward. The file is RUN/sft.jsonl or
    RUN/preference.jsonl unless `output` names another.

    Raises:
        UserError: the folder is no run's or of another schema, a line is damaged, nothing is left to write, or the file
            cannot be written.
    """
    output = output or run / f"{form}.jsonl"
    lines: dict[str, None] = {}
    made = matching = 0
    for _, row in rollouts(run):
        refinement = row["refinement"]
        if refinement is None:
            continue
        made += 1
        if (refinement["accepted"] or everything) and (form == "sft" or _better(row)):
            matching += 1
            lines[json.dumps(_row(row, form), ensure_ascii=False)] = None
    if not lines:
        wanted = "was made" if everything else "was accepted"
        raise UserError(
            f"{run}: nothing to export: of {made} refinements none {wanted}" + _hint(made, everything, form)
        )
    write(output, (f"{line}\n" for line in lines))
    return Exported(output, len(lines), made, matching - len(lines))


def rollouts(run: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(`file:line`, row) for each y of a run, in the order of steps.

    Raises:
        UserError: as `export`.
    """
    if not (run / "config.yaml").is_file() or not (run / "rollouts").is_dir():
        raise UserError(f"{run} is no run's folder: it holds no config.yaml and rollouts/")
    numbered = [(_STEP.fullmatch(path.name), path) for path in (run / "rollouts").iterdir()]
    files = sorted((int(match[1]), path) for match, path in numbered if match)
    if not files:
        raise UserError(f"{run}: no step has been finished yet, rollouts/ is empty")
    for _, path in files:
        for where, row in json_lines(path):
            readable(where, row)
            yield where, row


_STEP = re.compile(r"step-(\d+)\.jsonl")


def _better(row: dict[str, Any]) -> bool:
    before, after = row["reward"], row["refinement"]["reward"]
    return before is not None and after is not None and after["value"] > before["value"]


def _row(row: dict[str, Any], form: Format) -> dict[str, Any]:
    messages = row["prompt"].get("messages")

    def said(completion: dict[str, Any]) -> Any:
        return [{"role": "assistant", "content": completion["text"]}] if messages else completion["text"]

    prompt, refined = messages or row["prompt"]["text"], said(row["refinement"]["completion"])
    if form == "sft":
        return {"prompt": prompt, "completion": refined}
    return {
        "prompt": prompt,
        "chosen": refined,
        "rejected": said(row["completion"]),
        "score_chosen": row["refinement"]["reward"]["value"],
        "score_rejected": row["reward"]["value"],
    }


def _hint(made: int, everything: bool, form: Format) -> str:
    if not made:
        return "; only runs with constraint.name=dynamic refine"
    if form == "preference":
        return " with a higher reward than its response"
    return "" if everything else "; --all exports those that were not, too"


def write(path: Path, lines: Iterable[str]) -> None:
    """A file of text, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.writelines(lines)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror}") from error
