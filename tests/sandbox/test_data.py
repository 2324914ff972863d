"""Real problems: reference solutions pass, injected faults are caught, the official checker's verdicts are met."""

from __future__ import annotations

import ast
import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest

from outside import DATA, needs_data
from refinerl.sandbox import Limits, Outcome, Program, Sandbox, Test

pytestmark = [pytest.mark.slow, needs_data]


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox(limits=Limits(wall_seconds=60, cpu_seconds=20, memory_mb=1024)) as box:
        yield box


def rows(name: str) -> list[dict[str, Any]]:
    path = DATA / name
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        return [json.loads(line) for line in lines]


def apps_program(row: dict[str, Any], solution: int, **options: Any) -> Program:
    data = row["input_output"]
    tests = [Test(given, expected) for given, expected in zip(data["inputs"], data["outputs"], strict=True)]
    return Program(row["solutions"][solution], tests, fn_name=data.get("fn_name"), **options)


@pytest.mark.parametrize("name", ["apps_original", "apps_stdin", "apps_call_a", "apps_call_b", "leetcode_call"])
def test_reference_solutions_of_apps(box: Sandbox, name: str) -> None:
    isolate = "program" if "call" in name else "test"
    problems = [row for row in rows(f"apps/{name}.jsonl") if row.get("solutions_verified", [True])[0]]
    for compare in ("strict", "apps"):
        programs = []
        for row in problems:
            stdin = "fn_name" not in row["input_output"]
            programs.append(apps_program(row, 0, compare=compare, isolate="test" if stdin else isolate))
        failed = [row["problem_id"] for row, v in zip(problems, box.judge(programs), strict=True) if v.pass_rate < 1]
        assert failed == []


def test_every_verified_human_solution(box: Sandbox) -> None:
    """apps_original says for each solution whether strict comparison accepts it."""
    pairs = [(row, i) for row in rows("apps/apps_original.jsonl") for i in range(len(row["solutions_verified"]))]
    verdicts = box.judge([apps_program(row, i) for row, i in pairs])
    said = [row["solutions_verified"][i] for row, i in pairs]
    assert [verdict.outcome is Outcome.passed for verdict in verdicts] == said


def test_golden_verdicts_of_the_official_checker(box: Sandbox) -> None:
    golden = rows("apps_checker_golden.jsonl")
    programs = []
    for row in golden:
        if row["type"] == "stdin":
            source, test, name = f"import sys\nsys.stdout.write({row['output']!r})", Test("", row["expected"]), None
        else:
            source, test, name = f"def f(): return {row['output']}", Test([], row["expected"]), "f"
        programs.append(Program(source, [test], fn_name=name, compare="apps"))
    accepted = [verdict.outcome is Outcome.passed for verdict in box.judge(programs)]
    assert accepted == [row["accepted"] for row in golden]


FAULT = """
def _fault(value):
    if isinstance(value, bool): return not value
    if isinstance(value, (int, float, complex)): return value + 1
    if isinstance(value, str): return value + "x"
    return [value, "fault"]
_right = {name}
def {name}(*arguments): return _fault(_right(*arguments))
"""


def check_canonical(box: Sandbox, problems: list[tuple[str, str, list[list[Any]]]]) -> None:
    """(source, function, inputs): expected values from `run`, kept outside; then the truth and a fault are judged."""

    def programs(tests: list[list[Test]], fault: str = "") -> list[Program]:
        return [
            Program(source + fault.replace("{name}", name), given, fn_name=name, isolate="program")
            for (source, name, _), given in zip(problems, tests, strict=True)
        ]

    runs = box.run(programs([[Test(arguments) for arguments in inputs] for _, _, inputs in problems]))
    assert [problems[i][1] for i, run in enumerate(runs) if run.outcome is not Outcome.passed] == []
    tests = [
        [Test(arguments, test.value) for arguments, test in zip(inputs, run.tests, strict=True)]
        for (_, _, inputs), run in zip(problems, runs, strict=True)
    ]
    verdicts = box.judge(programs(tests))
    assert [problems[i][1] for i, verdict in enumerate(verdicts) if verdict.outcome is not Outcome.passed] == []
    faulty = box.judge(programs(tests, FAULT))
    assert [problems[i][1] for i, verdict in enumerate(faulty) if verdict.pass_rate > 0] == []


def test_humaneval_plus(box: Sandbox) -> None:
    problems = rows("humanevalplus/HumanEvalPlus.jsonl.gz")
    check_canonical(box, [(p["prompt"] + p["canonical_solution"], p["entry_point"], p["base_input"]) for p in problems])


# JSON has no tuples and no complex numbers: the assertions show the arguments of these as they are.
NOT_JSON = ("Mbpp/106", "Mbpp/124", "Mbpp/580", "Mbpp/720")
# These return a match object, of which the problem means the truth.
MATCHES = ("Mbpp/737", "Mbpp/787", "Mbpp/794")


def test_mbpp_plus(box: Sandbox) -> None:
    problems = []
    for row in rows("mbppplus/MbppPlus.jsonl.gz"):
        source, name, inputs = row["canonical_solution"], row["entry_point"], row["base_input"]
        if row["task_id"] in NOT_JSON:
            inputs = [arguments_of(line, name) for line in row["assertion"].splitlines() if name in line]
        if row["task_id"] in MATCHES:
            source += f"\n_match = {name}\ndef {name}(text): return bool(_match(text))"
        problems.append((source, name, inputs))
    check_canonical(box, problems)


def arguments_of(assertion: str, name: str) -> list[Any]:
    """The literal arguments of the call of `name` in an assert statement."""
    calls = [node for node in ast.walk(ast.parse(assertion.strip())) if isinstance(node, ast.Call)]
    (call,) = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == name]
    return [ast.literal_eval(argument) for argument in call.args]


def test_programs_with_their_own_asserts(box: Sandbox) -> None:
    """HumanEval's `check` runs with the program, under `run`: `passed` means that nothing was raised.

    Not covered, and shown here: such a verdict can be forged by ending early.
    """
    sources, forged = [], []
    for row in rows("humaneval/HumanEval.jsonl.gz"):
        check = f"\n{row['test']}\ncheck({row['entry_point']})"
        sources.append(row["prompt"] + row["canonical_solution"] + check)
        forged.append("import os\nos._exit(0)\n" + check)
    runs = box.run([Program(source, [Test("")]) for source in sources + forged])
    assert {run.outcome for run in runs} == {Outcome.passed}
