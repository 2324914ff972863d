"""Our verdicts and evalplus's, compared one by one: its code judges the same samples.

The samples are canonical solutions, each with a mutation of it, and 200 generations of SmolLM2-135M-Instruct, which
stand beside this file. docs/evaluation.md explains the differences.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from outside import DATA, needs_data
from refinerl.benchmarks.load import Choice, load_suite
from refinerl.benchmarks.scoring import Scorer
from refinerl.benchmarks.suite import CallTask, Result, Sample, Suite
from refinerl.sandbox import Sandbox

HERE = Path(__file__).resolve().parent
GENERATIONS = HERE / "generations.jsonl"
"""100 samples of each, of every outcome there was; docs/evaluation.md says how they were made."""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("evalplus") is None, reason="evalplus is not installed"),
    needs_data,
]

TASKS = 20
# Some extended tests of Mbpp/255 are left out here; Mbpp/793 has none at all; evalplus 0.3.1 fails every solution of
# HumanEval/32, the canonical one too, because its special rule skips the counting of tests.
APART = {"Mbpp/255", "Mbpp/793", "HumanEval/32"}
SECONDS, PATIENCE = 2.0, 20.0
"""For both, and more than evalplus's own 1 s: its clock runs while the machine does other things. What differs is
judged by evalplus once more, with patience: the clock's verdicts change, the others stay."""


class Mutation(ast.NodeTransformer):
    """Change the n-th operator, comparison or small constant of a program."""

    def __init__(self, place: int) -> None:
        self.place = place
        self.seen = 0

    def _hit(self) -> bool:
        self.seen += 1
        return self.seen - 1 == self.place

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, int | float) and self._hit():
            return ast.copy_location(ast.Constant(node.value + 1), node)
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, ast.Add | ast.Sub) and self._hit():
            node.op = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        if self._hit():
            node.ops = [ast.GtE() if isinstance(node.ops[0], ast.Lt | ast.LtE) else ast.Lt(), *node.ops[1:]]
        return node


def mutated(task: CallTask, dice: random.Random) -> str:
    tree = ast.parse(task.canonical)
    counter = Mutation(-1)
    counter.visit(ast.parse(task.canonical))
    return ast.unparse(Mutation(dice.randrange(max(1, counter.seen))).visit(tree))


def canonical_and_mutated(suite: Suite) -> list[Sample]:
    dice = random.Random(0)
    found = []
    for task in suite.used:
        assert isinstance(task, CallTask)
        if task.id not in APART:
            found += [Sample(task.id, 0, task.canonical), Sample(task.id, 1, mutated(task, dice))]
    return found


def generations(suite: Suite) -> list[Sample]:
    rows = [json.loads(line) for line in GENERATIONS.read_text(encoding="utf-8").splitlines()]
    chosen = [row for row in rows if row["task_id"] in suite.by_id]
    assert not APART & {row["task_id"] for row in chosen}
    return [Sample(row["task_id"], number, row["solution"]) for number, row in enumerate(chosen)]


def theirs(suite: Suite, samples: Sequence[Sample], seconds: float) -> list[tuple[bool, bool]]:
    (name,) = suite.files
    request = {
        "family": suite.family,
        "file": str(next(DATA.rglob(name))),
        "samples": [{"task_id": sample.task_id, "solution": sample.program} for sample in samples],
        "seconds": seconds,
    }
    script = [sys.executable, str(HERE / "evalplus_judge.py")]
    said = subprocess.run(script, input=json.dumps(request), capture_output=True, text=True, check=True, timeout=500)
    return [(base, plus) for base, plus in json.loads(said.stdout)]


def ours(result: Result) -> tuple[bool, bool]:
    return result.base, bool(result.plus)


def compared(suite: Suite, samples: Sequence[Sample]) -> tuple[list[tuple[bool, bool]], list[Any]]:
    """Return evalplus's verdicts, and the samples on which ours differ."""
    with Sandbox() as box:
        results = Scorer(suite, box, seconds=SECONDS).score(samples)
    said = theirs(suite, samples, SECONDS)
    doubtful = [i for i, (result, verdict) in enumerate(zip(results, said, strict=True)) if ours(result) != verdict]
    again = theirs(suite, [samples[i] for i in doubtful], PATIENCE) if doubtful else []
    for i, verdict in zip(doubtful, again, strict=True):
        said[i] = verdict
    differ = [
        (result.sample.task_id, result.sample.number, ours(result), verdict, result.failure)
        for result, verdict in zip(results, said, strict=True)
        if ours(result) != verdict
    ]
    passed = sum(base and plus for base, plus in said)
    print(f"{suite.name}: {len(samples)} samples, {passed} pass in evalplus, {len(doubtful)} judged twice: {differ}")
    return said, differ


@pytest.mark.parametrize("name", ["humaneval+", "mbpp+"])
def test_canonical_solutions_and_mutations(name: Any) -> None:
    suite = load_suite(Choice(name, str(DATA), limit=TASKS))
    said, differ = compared(suite, canonical_and_mutated(suite))
    assert differ == []
    assert {(True, True), (False, False)} <= set(said)


@pytest.mark.parametrize("name", ["humaneval+", "mbpp+"])
def test_a_models_generations(name: Any) -> None:
    suite = load_suite(Choice(name, str(DATA)))
    samples = generations(suite)
    said, differ = compared(suite, samples)
    assert differ == []
    assert len(samples) == 100
    assert {(True, True), (True, False), (False, False)} <= set(said)
