"""Plug-ins that lack something."""

from __future__ import annotations

from pydantic import BaseModel

from refinerl.algorithms import GroupAlgorithm
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


class NoPairs(Infinite):
    def examples(self):
        return [3]


class Messages(Infinite):
    def examples(self):
        return [([{"role": "user", "content": "one"}], None)]


class ForeignOptions(Constraint):
    class Options(BaseModel):
        margin: float = 0.1

    def cost(self, outputs, batch):
        return outputs.logprobs


class PlainOptions(ForeignOptions):
    class Options:
        margin = 0.1


class Scalar(Constraint):
    def cost(self, outputs, batch):
        return outputs.logprobs.mean()


class NoTensor(Constraint):
    def cost(self, outputs, batch):
        return outputs.logprobs.tolist()


class Unfinished(GroupAlgorithm):
    def advantages(self, batch, penalty, world):
        return batch


class ByResponse(GroupAlgorithm):
    def advantages(self, batch, penalty, world):
        return batch.with_advantages(batch.reward)


class OneLoss(GroupAlgorithm):
    def policy_loss(self, outputs, batch):
        return super().policy_loss(outputs, batch).mean()
