"""Outcomes over the steps."""

from __future__ import annotations

from refinerl.records import Reward
from refinerl.report.page.outcomes import Outcomes
from refinerl.report.rows import CompletionRow, PromptRow, RefinementRow, RolloutRow


def row(reward: Reward | None, refined: Reward | None = None, *, probe: bool = False) -> RolloutRow:
    y = CompletionRow("y", (1,), "stop")
    z = None if refined is None else RefinementRow(y, refined, True, 0, 0, 1.0)
    return RolloutRow(1, 0, True, PromptRow("p", "x"), y, reward, None if probe else z, z if probe else None)


def test_outcomes_go_from_the_worst_to_the_best():
    found = Outcomes()
    scored = [Reward(0, "passed"), Reward(0, "exotic"), Reward(0, "compile_error"), Reward(0, "wrong_answer"), None]
    found.add(3, map(row, scored))
    found.add(4, [row(Reward(1, "passed"))])
    assert found.table() == {
        "steps": [3, 4],
        "names": ["no reward", "exotic", "compile_error", "wrong_answer", "passed"],
        "counts": [[1, 0], [1, 0], [1, 0], [1, 0], [1, 1]],
    }


def test_rewards_stand_for_outcomes_that_tell_nothing():
    found = Outcomes()
    found.add(1, [row(Reward(value / 10, "scored")) for value in range(11)] + [row(None)])
    assert found.table()["names"] == [
        "no reward",
        "reward 0 to 0.2",
        "reward 0.2 to 0.4",
        "reward 0.4 to 0.6",
        "reward 0.6 to 0.8",
        "reward 0.8 to 1",
    ]
    assert sum(counts[0] for counts in found.table()["counts"]) == 12


def test_rewards_that_are_not_finite_are_none():
    found = Outcomes()
    found.add(1, map(row, [*(Reward(float(n), "scored") for n in range(9)), Reward(float("nan"), "scored")]))
    table = found.table()
    assert table["names"][0] == "no reward"
    assert table["counts"][0] == [1]
    assert sum(counts[0] for counts in table["counts"]) == 10


def test_improvements_are_counted_with_those_of_probes():
    found = Outcomes()
    found.add(1, [row(Reward(0, "a"), Reward(1, "a")), row(Reward(1, "a"), Reward(1, "a")), row(Reward(1, "a"))])
    assert (found.improved, found.probed) == (1, False)
    found.add(2, [row(Reward(0, "a"), Reward(1, "a"), probe=True)])
    assert (found.improved, found.probed) == (2, True)
