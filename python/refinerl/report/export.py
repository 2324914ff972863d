"""Export of a run's rollouts as training data: (x, ỹ) for supervised fine-tuning, (x, ỹ over y) for preferences.

The layouts are TRL's: `prompt` and `completion`, or `prompt`, `chosen` and `rejected`. The values are lists of messages
if the policy was prompted with messages, else texts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from refinerl.data.files import write
from refinerl.errors import UserError
from refinerl.report.reading import read_rollouts
from refinerl.report.rows import CompletionRow, RefinementRow, RolloutRow

Format = Literal["sft", "preference"]


@dataclass(frozen=True)
class Exported:
    """The result of an export."""

    path: Path
    rows: int
    """Number of rows written."""
    refinements: int
    """Number of refinements read, over all steps."""
    duplicates: int
    """Number of rows left out because an identical one was written."""


def export(run: Path, form: Format, output: Path | None = None, *, everything: bool = False) -> Exported:
    """Write a run's accepted refinements (all of them with `everything`) as JSON lines, whole or not at all.

    Only refinements ỹ with a strictly higher reward than y make a preference. The file is RUN/sft.jsonl or
    RUN/preference.jsonl unless `output` names another.

    Raises:
        UserError: the folder is not a run's or has another schema, a line is damaged, nothing is left to write, or the
            file cannot be written.
    """
    output = output or run / f"{form}.jsonl"
    lines: dict[str, None] = {}
    made = matching = 0
    for row in read_rollouts(run):
        if row.refinement is None:
            continue
        made += 1
        better = row.gain is not None and row.gain > 0
        if (row.refinement.accepted or everything) and (form == "sft" or better):
            matching += 1
            lines[json.dumps(_row(row, row.refinement, form), ensure_ascii=False)] = None
    if not lines:
        wanted = "was made" if everything else "was accepted"
        raise UserError(
            f"{run}: nothing to export: of {made} refinements none {wanted}" + _hint(made, everything, form)
        )
    save(output, (f"{line}\n" for line in lines))
    return Exported(output, len(lines), made, matching - len(lines))


def _row(row: RolloutRow, refinement: RefinementRow, form: Format) -> dict[str, Any]:
    messages = row.prompt.messages

    def said(completion: CompletionRow) -> Any:
        return [{"role": "assistant", "content": completion.text}] if messages else completion.text

    prompt, refined = messages or row.prompt.text, said(refinement.completion)
    if form == "sft":
        return {"prompt": prompt, "completion": refined}
    assert row.reward is not None
    assert refinement.reward is not None
    return {
        "prompt": prompt,
        "chosen": refined,
        "rejected": said(row.completion),
        "score_chosen": refinement.reward.value,
        "score_rejected": row.reward.value,
    }


def _hint(made: int, everything: bool, form: Format) -> str:
    if not made:
        return "; only constraint.name=dynamic makes refinements"
    if form == "preference":
        return " with a higher reward than its response"
    return "" if everything else "; --all also exports those that were not accepted"


def save(path: Path, text: str | Iterable[str]) -> None:
    """Write a file that the user asked for, as `data.files.write` does.

    Raises:
        UserError: the file cannot be written.
    """
    check_place(path)
    try:
        write(path, text)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def check_place(path: Path) -> None:
    """Check that a file may be written to this place, before the work on its content.

    Raises:
        UserError: it is a folder, or its folder does not exist.
    """
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder; name a file in it")
    if not path.parent.is_dir():
        raise UserError(f"cannot write {path}: there is no folder {path.parent}")
