"""Runs as a page reads them: finished, going on, or cut off; what they lack is said instead of refused."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from refinerl.errors import UserError
from refinerl.report import unfinished
from refinerl.report.page.subject import subject
from refinerl.report.reading import from_json, step_files
from refinerl.report.resumptions import described, resumptions
from refinerl.report.rows import RolloutRow
from refinerl.report.schema import OLDER, ROLLOUTS

Knob = TypeVar("Knob")
_SEED = re.compile(r"seed[-_]?\d+")


@dataclass
class Folder:
    """A run's folder."""

    path: Path
    name: str
    """The run's name: `telemetry.run_name`, else its folder's, or that of the folder around one named seed-N."""
    seed: int | None
    subject: str
    config: str
    """The text of config.yaml."""
    planned: int | None
    """Steps that the run was to have."""
    metrics: Sequence[Mapping[str, Any]]
    """Rows of metrics.jsonl, that of step 0 included."""
    notes: list[str] = field(default_factory=list)
    """Sentences that say what is missing, and where the run was resumed."""

    @property
    def ended(self) -> bool:
        """True if the run has written its final model."""
        return (self.path / "final").is_dir()

    def steps(self) -> Iterator[tuple[int, list[RolloutRow]]]:
        """Read the rollouts step by step, and note what is wrong with them.

        Raises:
            UserError: a file cannot be read, a line other than a file's last is damaged, or another version of refinerl
                wrote it.
        """
        older = False
        files = step_files(self.path)
        if not files:
            self.notes.append("There are no rollouts: no step is finished, or rollouts/ was removed.")
        for step, file in sorted(files.items()):
            rows = []
            for where, line in unfinished.lines(file, (OLDER, ROLLOUTS), self.notes):
                older = older or line["schema"] == OLDER
                rows.append(from_json(where, line))
            yield step, rows
        if older:
            self.notes.append(
                f"Rollouts have schema {OLDER}, of an earlier version of refinerl: there are no advantages, no failing "
                "tests, and no heat maps of the cross-entropy."
            )


def read_folder(path: Path) -> Folder:
    """Read a run's folder, without its rollouts.

    Raises:
        UserError: it is not a run's, a file cannot be read, a line other than the last is damaged, or another version
            of refinerl wrote it.
    """
    file = path / "config.yaml"
    if not file.is_file():
        raise UserError(f"{path} is not the folder of a run: it lacks config.yaml")
    try:
        config = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"cannot read {file}: {reason}") from error
    said = subject(file, config)
    values = yaml.safe_load(config)
    notes: list[str] = []
    metrics = unfinished.metrics(path, notes)
    planned, seed = _knob(values, int, "trainer", "steps"), _knob(values, int, "seed")
    folder = Folder(path, _name(path, values), seed, said, config, planned, metrics, notes)
    done = max((row["step"] for row in metrics), default=0)
    if not done:
        notes.append("No step is finished: there are no curves yet.")
    if resumed := [step for step in resumptions(path) if step < done]:
        notes.append(described(resumed))
    if done and not folder.ended:
        notes.append(
            f"The run has no final/: it goes on, or was stopped after step {done}"
            + (f" of {planned}." if planned else ".")
        )
    return folder


def _name(path: Path, config: Mapping[str, Any]) -> str:
    named = _knob(config, str, "telemetry", "run_name")
    whole = path.resolve()
    return named or (whole.parent.name if _SEED.fullmatch(whole.name) else whole.name)


def _knob(config: Any, kind: type[Knob], *names: str) -> Knob | None:
    """Return a knob of a configuration; None if it is not there, or not of this type."""
    for name in names:
        config = config.get(name) if isinstance(config, Mapping) else None
    return config if isinstance(config, kind) else None
