"""Outcomes of all rollouts of a run, counted step by step."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from refinerl.report.rows import RolloutRow

ORDER = ("compile_error", "runtime_error", "timeout", "memory_limit", "output_limit", "wrong_answer", "passed")
"""Outcomes of programs, from the worst to the best."""
UNSCORED = "no reward"
PLAIN = "scored"
"""The outcome of a task that tells a reward only."""
BANDS = 5
"""Intervals into which rewards are sorted where outcomes tell nothing and rewards have more values than this."""


@dataclass
class Outcomes:
    """Counts of a run's outcomes, of its rewards where the task has one outcome, and of its improvements."""

    steps: list[int] = field(default_factory=list)
    improved: int = 0
    """Responses whose refinement, or probe, has a higher reward."""
    probed: bool = False
    _outcomes: list[Counter[str]] = field(default_factory=list)
    _rewards: list[Counter[float]] = field(default_factory=list)

    def add(self, step: int, rows: Iterable[RolloutRow]) -> None:
        """Count the rollouts of a step."""
        outcomes: Counter[str] = Counter()
        rewards: Counter[float] = Counter()
        for row in rows:
            outcomes[UNSCORED if row.reward is None else row.reward.outcome] += 1
            if row.reward is not None and math.isfinite(row.reward.value):
                rewards[row.reward.value] += 1
            self.probed = self.probed or row.probe is not None
            gain = row.as_probe().gain
            self.improved += gain is not None and gain > 0
        self.steps.append(step)
        self._outcomes.append(outcomes)
        self._rewards.append(rewards)

    def table(self) -> dict[str, Any]:
        """Return {steps, names, counts}, counts by name and step; names go from the worst to the best.

        >>> from refinerl.records import Reward
        >>> row = lambda value: type("Row", (), {"reward": Reward(value, "scored"), "probe": None,
        ...     "as_probe": lambda self: self, "gain": None})()
        >>> found = Outcomes()
        >>> found.add(1, [row(0.0), row(1.0), row(1.0)])
        >>> found.table()
        {'steps': [1], 'names': ['reward 0', 'reward 1'], 'counts': [[1], [2]]}
        """
        names = {name for counts in self._outcomes for name in counts}
        if names <= {PLAIN, UNSCORED}:
            return self._by_reward()
        known = {name: place for place, name in enumerate((UNSCORED, *ORDER))}
        ordered = sorted(names, key=lambda name: (known.get(name, 0.5), name))
        return self._table(ordered, [[counts[name] for counts in self._outcomes] for name in ordered])

    def _by_reward(self) -> dict[str, Any]:
        values = sorted({value for counts in self._rewards for value in counts})
        unscored = [sum(of.values()) - sum(by.values()) for of, by in zip(self._outcomes, self._rewards, strict=True)]
        named: dict[str, list[int]] = {UNSCORED: unscored} if any(unscored) else {}
        if len(values) <= BANDS:
            for value in values:
                named[f"reward {value:g}"] = [counts[value] for counts in self._rewards]
        else:
            low, width = values[0], (values[-1] - values[0]) / BANDS
            for band in range(BANDS):
                ends = low + band * width, low + (band + 1) * width
                named[f"reward {ends[0]:.3g} to {ends[1]:.3g}"] = [
                    sum(n for value, n in counts.items() if min(int((value - low) / width), BANDS - 1) == band)
                    for counts in self._rewards
                ]
        return self._table(list(named), list(named.values()))

    def _table(self, names: list[str], counts: list[list[int]]) -> dict[str, Any]:
        return {"steps": self.steps, "names": names, "counts": counts}
