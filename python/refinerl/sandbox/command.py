"""The commands of the sandbox: `python -m refinerl.sandbox judge PROBLEMS.jsonl` and `… doctor`.

`judge` runs the reference solutions of a file in APPS's layout against their tests: each line has `problem_id`, and
`solutions` and `input_output` as JSON or as JSON in a string. `doctor` prints which protections isolate programs on
this machine, and which are missing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from refinerl import __version__
from refinerl.data.apps import read_problems
from refinerl.data.terminal import safe, visible
from refinerl.errors import UserError
from refinerl.sandbox import Limits, Outcome, Program, Sandbox, SandboxError, Verdict
from refinerl.tasks.code import sandbox_tests

BATCH = 32


@dataclass(frozen=True)
class Reference:
    """A reference solution of a problem, ready to be judged."""

    problem: str
    solution: int
    program: Program


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code: 0 all is well, 1 a solution fails or a protection is off, 2 bad input."""
    options = parse(arguments)
    try:
        return int(options.command(options))
    except (UserError, SandboxError) as error:
        print(f"error: {safe(str(error))}", file=sys.stderr)
        return 2


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m refinerl.sandbox", description=__doc__.split("\n\n")[0])
    parser.add_argument("--version", action="version", version=f"refinerl {__version__}")
    commands = parser.add_subparsers(required=True)
    judging = commands.add_parser("judge", help="judge the reference solutions of a file in APPS's layout")
    judging.add_argument("problems", type=Path, metavar="PROBLEMS.jsonl")
    judging.add_argument("--solutions", type=int, default=1, metavar="N", help="solutions per problem (default: 1)")
    judging.add_argument("--compare", choices=("strict", "apps"), default="strict")
    judging.add_argument("--workers", type=int, default=None, help="default: the cores")
    judging.add_argument("--seconds", type=float, default=10.0, help="for each test (default: 10)")
    judging.add_argument("--memory-mb", type=int, default=1024, help="for each test (default: 1024)")
    judging.add_argument(
        "--packages", nargs="+", default=(), metavar="NAME", help="such as numpy, which programs may import"
    )
    judging.add_argument("--json", action="store_true", help="one line of JSON for each solution, and no progress bar")
    judging.set_defaults(command=judge)
    doctoring = commands.add_parser("doctor", help="print what isolates programs on this machine")
    doctoring.add_argument("--json", action="store_true")
    doctoring.set_defaults(command=doctor)
    return parser.parse_args(arguments)


def judge(options: argparse.Namespace) -> int:
    """Judge a file; return 0 if every solution passes, else 1."""
    if options.solutions < 1:
        raise UserError(f"--solutions must be at least 1, got {options.solutions}")
    try:
        limits = Limits(options.seconds, options.seconds, options.memory_mb)
        sandbox = Sandbox(options.workers, limits, options.compare, packages=options.packages)
    except ValueError as error:
        raise UserError(str(error)) from None
    references, empty = read(options.problems, options.solutions)
    counts: Counter[str] = Counter()
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with sandbox as box, Progress(*columns, console=console, disable=options.json) as progress:
        bar = progress.add_task("judging", total=len(references))
        for batch in batches(references):
            for reference, verdict in zip(batch, box.judge([r.program for r in batch]), strict=True):
                counts[verdict.outcome.value] += 1
                if options.json:
                    print(json.dumps(summary(reference, verdict)), flush=True)
                elif verdict.outcome is not Outcome.passed:
                    progress.console.print(complaint(reference, verdict), markup=False, highlight=False, soft_wrap=True)
            progress.advance(bar, len(batch))
    if not options.json:
        rest = "".join(f", {count} {name}" for name, count in sorted(counts.items()) if name != "passed")
        skipped = f" ({empty} problems without tests or solutions left out)" if empty else ""
        console.print(f"{counts['passed']} of {len(references)} solutions passed{rest}{skipped}", highlight=False)
    return 0 if counts["passed"] == len(references) else 1


def doctor(options: argparse.Namespace) -> int:
    """Print the isolation report; return 0 if everything is on that full isolation needs, else 1."""
    with Sandbox(workers=1) as box:
        rows = box.isolation
    if options.json:
        print(json.dumps([asdict(row) for row in rows]))
    else:
        table = Table("protection", "", "why not", "what that exposes")
        for row in rows:
            table.add_row(row.name, "[green]on[/]" if row.on else "[red]off[/]", row.reason, row.exposed)
        Console().print(table)
    return 0 if all(row.on or row.name == "cgroup" for row in rows) else 1


def read(path: Path, solutions: int) -> tuple[list[Reference], int]:
    """Read the first `solutions` solutions of each problem, and count the problems without tests or solutions."""
    references, empty = [], 0
    for problem in read_problems(path):
        sources = problem.solutions[:solutions] if problem.tests else ()
        tests = sandbox_tests(problem) if sources else []
        for number, source in enumerate(sources):
            references.append(Reference(problem.id, number, Program(source, tests, fn_name=problem.fn_name)))
        empty += not sources
    if not references:
        raise UserError(f"{path}: no problem has both tests and solutions")
    return references, empty


def batches(references: list[Reference]) -> Iterator[list[Reference]]:
    """Split into batches, small enough to show progress and large enough to keep all workers busy."""
    for start in range(0, len(references), BATCH):
        yield references[start : start + BATCH]


def summary(reference: Reference, verdict: Verdict) -> dict[str, Any]:
    """Make the object that `--json` prints for one solution."""
    tests = Counter(test.outcome.value for test in verdict.tests)
    seconds = max(test.wall_seconds for test in verdict.tests)
    return {
        "problem_id": reference.problem,
        "solution": reference.solution,
        "outcome": verdict.outcome.value,
        "pass_rate": verdict.pass_rate,
        "tests": dict(tests),
        "slowest_seconds": round(seconds, 4),
    }


def complaint(reference: Reference, verdict: Verdict) -> str:
    """Describe the first failing test of a solution in one line."""
    index, test = next((i, t) for i, t in enumerate(verdict.tests) if t.outcome is not Outcome.passed)
    if test.expected is not None:
        why = f"expected {test.expected}, got {test.got}"
    else:
        why = (test.stderr.strip().splitlines() or [""])[-1]
    line = f"{reference.problem} solution {reference.solution}: {test.outcome.value} in test {index} {why}".rstrip()
    return "".join(map(visible, line))
