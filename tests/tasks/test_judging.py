"""Programs that are judged once, and in the background."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from refinerl.sandbox import Limits, Outcome, Program, Sandbox, SandboxError, Test, Verdict
from refinerl.tasks import judging
from refinerl.tasks.judging import Judging, Key

RIGHT, WRONG = "print(int(input()) * 2)", "print(input())"
ENDLESS = "while True: pass"


class Counting(Sandbox):
    """Notes what it is asked to judge, and where."""

    def __init__(self, **options: object) -> None:
        super().__init__(workers=1, **options)  # type: ignore[arg-type]
        self.batches: list[list[str]] = []
        self.threads: set[str] = set()

    def judge(self, programs: Sequence[Program]) -> list[Verdict]:
        self.batches.append([program.source for program in programs])
        self.threads.add(threading.current_thread().name)
        return super().judge(programs)


@pytest.fixture
def box() -> Iterator[Counting]:
    with Counting(limits=Limits(wall_seconds=0.3, cpu_seconds=0.3)) as box:
        yield box


def program(source: str) -> tuple[Key, Program]:
    return Key("double", "test", source), Program(source, [Test("1", "2"), Test("3", "6")])


def judge(judging: Judging, *sources: str) -> list[str]:
    keys, programs = zip(*map(program, sources), strict=True)
    return [verdict.outcome.value for verdict in judging.judge(keys, programs)]


def test_a_program_is_judged_once(box: Counting) -> None:
    judged = Judging(box)
    assert judge(judged, RIGHT, WRONG, RIGHT) == ["passed", "wrong_answer", "passed"]
    assert judge(judged, WRONG, RIGHT, "print(") == ["wrong_answer", "passed", "compile_error"]
    assert box.batches == [[RIGHT, WRONG], ["print("]]
    counts = judged.take_counts()
    assert counts.tests == 6
    assert counts.seconds > 0
    assert judged.take_counts().tests == 0
    other = Key("triple", "test", RIGHT), Program(RIGHT, [Test("1", "3")])
    assert judged.judge([other[0]], [other[1]])[0].outcome is Outcome.wrong_answer


def test_what_depends_on_the_load_of_the_machine_is_judged_again(box: Counting) -> None:
    """Also what timed out in the background, beside an engine that may take the cores."""
    judged = Judging(box)
    assert judge(judged, ENDLESS) == judge(judged, ENDLESS) == ["timeout"]
    judged.expect(*program(ENDLESS))
    assert judge(judged, ENDLESS) == ["timeout"]
    assert box.batches == [[ENDLESS]] * 4


def test_the_verdicts_in_the_background_are_those_of_one_call(box: Counting) -> None:
    sources = [f"print(int(input()) * 2 + {i} % 7)" for i in range(40)] + [RIGHT, "1 / 0", "print("] * 2
    expected = judge(Judging(box), *sources)
    box.batches.clear()
    judged = Judging(box)
    for source in sources:
        judged.expect(*program(source))
    assert judge(judged, *sources) == expected
    assert sorted(source for batch in box.batches for source in batch) == sorted(set(sources))
    assert max(map(len, box.batches)) <= judging.BATCH
    assert box.threads == {"MainThread", "judging"}
    box.batches.clear()
    judged.expect(*program(RIGHT))
    assert judge(judged, RIGHT) == ["passed"]
    assert box.batches == []


def test_the_oldest_verdicts_are_forgotten(box: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "KEPT", 4)
    judged = Judging(box)
    judge(judged, RIGHT, WRONG)
    judge(judged, RIGHT)
    judge(judged, "print(")
    assert judge(judged, RIGHT) == ["passed"]
    assert len(box.batches) == 2
    judge(judged, WRONG)
    assert len(box.batches) == 3


def test_what_is_expected_is_not_forgotten(box: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step with more tests than are remembered judged its first programs again."""
    monkeypatch.setattr(judging, "KEPT", 4)
    judged = Judging(box)
    sources = [f"print({i} * int(input()))" for i in range(10)]
    judge(judged, sources[0])
    for source in [*sources, WRONG]:
        judged.expect(*program(source))
    judge(judged, *sources, WRONG)
    assert sorted(source for batch in box.batches for source in batch) == sorted([*sources, WRONG])
    box.batches.clear()
    judge(judged, RIGHT, sources[-1], WRONG)  # now only the last ones are remembered
    assert box.batches == [[RIGHT]]
    judge(judged, sources[0])
    assert box.batches == [[RIGHT], [sources[0]]]


def test_a_fault_in_the_background_is_raised_where_the_verdicts_are_asked_for(box: Counting) -> None:
    judged = Judging(box)
    box.close()
    judged.expect(*program(RIGHT))
    with pytest.raises(SandboxError, match="closed"):
        judge(judged, RIGHT)


def test_closing_drops_what_waits(box: Counting) -> None:
    judged = Judging(box)
    for i in range(40):
        judged.expect(*program(f"{ENDLESS} # {i}"))
    judged.close()
    assert sum(map(len, box.batches)) <= judging.BATCH
    assert "judging" not in {thread.name for thread in threading.enumerate()}
