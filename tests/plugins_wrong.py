"""Plug-ins that lack something."""

from __future__ import annotations

from refinerl.constraints import Constraint
from refinerl.tasks import Task


class NoCost(Constraint):
    pass


class NoReward(Task):
    pass


class Infinite(Task):
    def examples(self):
        return [("one", None)]

    def reward(self, known, answer):
        return float("inf")
