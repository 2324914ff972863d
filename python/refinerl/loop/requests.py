"""Requests to the refiner, of which equal ones are made once where their replies are equal too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from refinerl.records import Message


@dataclass(frozen=True)
class Requests:
    """The conversations that are sent, out of one for each y."""

    sent: tuple[int, ...]
    """Indices of the conversations that are sent."""
    number: tuple[int, ...]
    """For each conversation, the number of the equal one among those that are sent."""

    @property
    def users(self) -> list[list[int]]:
        """For each conversation that is sent, the indices of those that share its replies."""
        users: list[list[int]] = [[] for _ in self.sent]
        for index, number in enumerate(self.number):
            users[number].append(index)
        return users


def distinct(conversations: Sequence[Sequence[Message]], *, greedy: bool) -> Requests:
    """Share the replies to equal conversations if the refiner is greedy, so that it answers them alike.

    A sampled refiner is asked for each y with the seed of that y: with shared replies, a mean over the responses would
    have the same expectation, but more variance.

    >>> ask, other = [{"role": "user", "content": "a"}], [{"role": "user", "content": "b"}]
    >>> distinct([ask, other, ask], greedy=True)
    Requests(sent=(0, 1), number=(0, 1, 0))
    >>> distinct([ask, other, ask], greedy=False).sent
    (0, 1, 2)
    """
    numbers: dict[object, int] = {}
    sent: list[int] = []
    found: list[int] = []
    for index, conversation in enumerate(conversations):
        key = tuple(tuple(sorted(turn.items())) for turn in conversation) if greedy else index
        if key not in numbers:
            numbers[key] = len(sent)
            sent.append(index)
        found.append(numbers[key])
    return Requests(tuple(sent), tuple(found))
