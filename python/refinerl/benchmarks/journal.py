"""The results of an unfinished evaluation on disk, so that the same command goes on after an interruption.

While an evaluation runs, its output folder has a folder `partial/`: `settings.json`, and a file of judged samples from
each rank of each start, in the layout of results.jsonl. They are appended to batch by batch, and removed when the
evaluation is complete. A finished evaluation is read from its own results, so that the same command shows it again.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from refinerl.benchmarks.results import SCHEMA, result_of, row
from refinerl.benchmarks.suite import Result
from refinerl.data import files
from refinerl.data.jsonlines import json_lines, parse
from refinerl.errors import UserError

PARTIAL = "partial"
SETTINGS = "settings.json"


class Journal:
    """The results that an evaluation has so far.

    Args:
        output: the evaluation's folder; None: nothing is kept.
        rank: this process's rank, which names its file.
    """

    def __init__(self, output: Path | None, rank: int = 0) -> None:
        self._output = output
        self._rank = rank
        self._file: Path | None = None
        self.count = 0
        """Samples that this process has kept since it started."""

    def settings(self) -> dict[str, Any] | None:
        """Read the settings of the evaluation that the folder holds, finished or not; None if it holds none.

        Raises:
            UserError: the file is damaged.
        """
        if self._output is None:
            return None
        for path in (self._output / PARTIAL / SETTINGS, self._output / "summary.json"):
            if path.is_file():
                found = parse(str(path), path.read_text(encoding="utf-8"))
                if isinstance(found, dict) and found.get("schema") == SCHEMA:
                    return found
                raise UserError(f"{path} was written by another version of refinerl: choose another --output")
        return None

    def begin(self, settings: Mapping[str, Any]) -> list[Result]:
        """Record the settings of a new evaluation, or check those of an earlier start; return its results.

        Raises:
            UserError: the folder holds an evaluation with other settings, or it cannot be written to.
        """
        if self._output is None:
            return []
        settings = json.loads(json.dumps(settings))
        found = self.settings()
        if found is not None and not (self._output / PARTIAL).is_dir():
            self.refuse_others(settings)
        if found is not None and (results := self._read()):  # one that failed before its first sample begins anew
            self.refuse_others(settings)
            return results
        try:
            (self._output / PARTIAL).mkdir(parents=True, exist_ok=True)
            text = json.dumps({"schema": SCHEMA, **settings}, indent=1) + "\n"
            files.write(self._output / PARTIAL / SETTINGS, text)
        except OSError as error:
            raise UserError(f"cannot write to {self._output}: {error.strerror or error}") from error
        return []

    def refuse_others(self, settings: Mapping[str, Any]) -> None:
        """Check that the folder holds no evaluation, finished or not, with other settings.

        Raises:
            UserError: it does; the message names what differs.
        """
        found = self.settings()
        if found is None:
            return
        names = ["benchmark"] if found.get("benchmark") != settings.get("benchmark") else list(settings)
        plain = json.loads(json.dumps(settings))
        changed = [
            f"{name} was {json.dumps(found.get(name))} and is {json.dumps(plain.get(name))}"
            for name in names
            if found.get(name) != plain.get(name)
        ]
        if changed:
            raise UserError(
                f"{self._output} has an evaluation with other settings: {'; '.join(changed)}. Choose another --output, "
                "or delete that folder"
            )

    def _read(self) -> list[Result]:
        """Read the results; the last line of a process that was killed may be incomplete and is left out."""
        assert self._output is not None
        partial = self._output / PARTIAL
        if not partial.is_dir():
            return [result_of(where, row) for where, row in json_lines(self._output / "results.jsonl")]
        found: list[Result] = []
        for path in sorted(partial.glob("*.jsonl")):
            whole, _, _ = path.read_bytes().rpartition(b"\n")
            lines = [line for line in whole.split(b"\n") if line]
            found += [result_of(f"{path}:{n}", parse(f"{path}:{n}", x.decode())) for n, x in enumerate(lines, 1)]
        return found

    def keep(self, results: Sequence[Result]) -> None:
        """Append judged samples, and flush them to the disk.

        Raises:
            UserError: the file cannot be written.
        """
        if self._output is None or not results:
            return
        try:
            if self._file is None:
                self._file = self._output / PARTIAL / f"{time.time_ns()}-{os.getpid()}-rank-{self._rank}.jsonl"
            with self._file.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row(result)) + "\n" for result in results)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(f"cannot write to {self._output}: {error.strerror or error}") from error
        self.count += len(results)

    def finish(self) -> None:
        """Remove what only an unfinished evaluation needs."""
        if self._output is not None:
            shutil.rmtree(self._output / PARTIAL, ignore_errors=True)

    def standing(self) -> str:
        """Describe what an interrupted evaluation leaves behind."""
        if self._output is None:
            return "nothing was kept; --output DIR keeps what is done, and the same command goes on"
        return f"the same command goes on from the samples in {self._output / PARTIAL}"
