"""A model on a benchmark, over ranks: a generator whose every answer is known."""

from __future__ import annotations

import pytest

from refinerl.benchmarks.evaluator import Evaluator
from refinerl.benchmarks.prompting import Prompting
from refinerl.benchmarks.scoring import Scorer
from refinerl.benchmarks.suite import CallTask, Suite
from refinerl.contracts import ALONE, World
from refinerl.records import Sampling
from refinerl.sandbox import Sandbox
from scripted import Writer, encode
from threads import on_ranks

TASKS = tuple(CallTask(f"T/{n}", str(n), "", "f", f"def f(x): return x + {n}", base=([1],)) for n in range(5))
SUITE = Suite("small", TASKS, {})


def evaluator(box: Sandbox, world: World = ALONE, context: int = 1000) -> Evaluator:
    """The model solves the tasks with even numbers, the second sample of task 0 apart."""

    def script(prompt: str, seed: int) -> str:
        seeds.setdefault(prompt, []).append(seed)
        good = int(prompt) % 2 == 0 and not (prompt == "0" and len(seeds[prompt]) == 2)
        return f"def f(x): return x + {prompt}" if good else "def f(x): return None"

    seeds: dict[str, list[int]] = {}
    asked = Prompting("chat", (), "all", lambda task: encode(task.prompt), lambda task, text: text)
    return Evaluator(Scorer(SUITE, box), Writer(script, context), asked, Sampling(8, 1.0, n=2), 3, world)


@pytest.fixture(scope="module")
def box():
    with Sandbox(2) as box:
        yield box


def test_each_rank_generates_its_share_and_all_have_the_results(box):
    """In training every rank used to generate everything."""
    alone = evaluator(box)
    expected = alone.evaluate()
    assert [(r.sample.task_id, r.sample.number) for r in expected] == [(t.id, n) for t in TASKS for n in range(2)]
    assert [r.passed for r in expected] == [True, False, False, False, True, True, False, False, True, True]
    assert alone.metrics()["evaluate/pass@1"] == pytest.approx(3 / 5)

    asked: dict[int, list[str]] = {}

    def rank(world: World) -> object:
        mine = evaluator(box, world)
        found = mine.evaluate()
        asked[world.rank] = mine.generator.asked
        return found

    for size in (2, 7):  # with seven ranks, two have no task
        for found in on_ranks(size, rank):
            assert found == expected
        assert sorted(text for texts in asked.values() for text in texts) == [str(n) for n in range(5)]
        asked.clear()


def test_prompts_that_fill_the_context_have_no_program(box):
    assert {result.outcome for result in evaluator(box, context=1).evaluate()} == {"no_room"}
