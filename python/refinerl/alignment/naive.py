"""The contract of `refinerl.alignment` in plain NumPy: readable, quadratic, and the oracle of its tests.

It replaces the extension where that was not built. Every function gives exactly the native one's results.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32] | NDArray[np.int64]


@dataclass(frozen=True)
class Alignment:
    """The tokens that y (of length L) and ỹ (of length L′) share: see `refinerl.alignment.align`."""

    original_length: int
    refined_length: int
    runs: list[tuple[int, int, int]]
    """Kept runs in order: position in y, position in ỹ, length."""

    @property
    def distance(self) -> int:
        """Insertions plus deletions."""
        return int((~self.original_kept).sum() + (~self.refined_kept).sum())

    @property
    def prefix(self) -> int:
        """Length of the common prefix."""
        return self.runs[0][2] if self.runs and self.runs[0][:2] == (0, 0) else 0

    @cached_property
    def original_kept(self) -> NDArray[np.bool_]:
        """[L] True for tokens of y that ỹ keeps."""
        return _mask(self.original_length, [(original, length) for original, _, length in self.runs])

    @cached_property
    def refined_kept(self) -> NDArray[np.bool_]:
        """[L′] True for tokens of ỹ that are kept from y."""
        return _mask(self.refined_length, [(refined, length) for _, refined, length in self.runs])

    @property
    def copy_ratio(self) -> float:
        """Share of ỹ's tokens that are kept from y."""
        return float(self.refined_kept.mean()) if self.refined_length else float(self.original_length == 0)

    @property
    def refined_to_original(self) -> NDArray[np.int64]:
        """[L′] position in y that each token of ỹ is charged to; all −1 if y is empty."""
        target = np.full(self.refined_length, -1, np.int64)
        if self.original_length == 0:
            return target
        x = y = 0  # start of the change before the next kept run, in y and in ỹ
        for original, refined, length in [*self.runs, (self.original_length, self.refined_length, 0)]:
            target[y:refined] = min(x, self.original_length - 1)
            target[refined : refined + length] = np.arange(original, original + length)
            if length and refined == y:  # the run follows a pure deletion (or nothing, and x is its own partner)
                target[refined] = x
            x, y = original + length, refined + length
        return target


def _mask(size: int, runs: Sequence[tuple[int, int]]) -> NDArray[np.bool_]:
    mask = np.zeros(size, bool)
    for first, length in runs:
        mask[first : first + length] = True
    return mask


def align(originals: Sequence[Ids], refined: Sequence[Ids]) -> list[Alignment]:
    """Compute the canonical alignment of each pair from the table of longest common subsequences."""
    return [_align(a, b) for a, b in zip(originals, refined, strict=True)]


def _align(a: Ids, b: Ids) -> Alignment:
    prefix = _common_prefix(a, b)
    suffix = _common_prefix(a[prefix:][::-1], b[prefix:][::-1])
    core_a, core_b = a[prefix : len(a) - suffix], b[prefix : len(b) - suffix]
    pairs = [(i, i) for i in range(prefix)]
    pairs += [(prefix + i, prefix + j) for i, j in _earliest_pairs(core_a, core_b)]
    pairs += [(len(a) - suffix + i, len(b) - suffix + i) for i in range(suffix)]
    runs: list[tuple[int, int, int]] = []
    for i, j in pairs:
        if runs and (i - runs[-1][2], j - runs[-1][2]) == runs[-1][:2]:
            runs[-1] = (*runs[-1][:2], runs[-1][2] + 1)
        else:
            runs.append((i, j, 1))
    return Alignment(len(a), len(b), runs)


def _common_prefix(a: Ids, b: Ids) -> int:
    shorter = min(len(a), len(b))
    return int(np.argmin(np.append(a[:shorter] == b[:shorter], False)))


def _earliest_pairs(a: Ids, b: Ids) -> list[tuple[int, int]]:
    """Choose the kept pairs: from the last to the first, each as early as possible, first in b, then in a."""
    longest = np.zeros((len(a) + 1, len(b) + 1), np.int64)  # of the common subsequences of prefixes
    for i, token in enumerate(a):
        longest[i + 1, 1:] = np.maximum.accumulate(np.maximum(longest[i, 1:], longest[i, :-1] + (b == token)))
    pairs = []
    i, j = len(a), len(b)
    while longest[i, j]:
        if longest[i, j - 1] == longest[i, j]:
            j -= 1
        elif longest[i - 1, j] == longest[i, j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
    return pairs[::-1]


def charge(costs: NDArray[np.float64], alignments: Sequence[Alignment], lengths: Sequence[int]) -> NDArray[np.float64]:
    """Add up the costs (n, T′) of ỹ's tokens at the positions of y that they are charged to, (n, max(lengths))."""
    charges = np.zeros((len(lengths), max(lengths, default=0)))
    for row, own, alignment in zip(charges, costs, alignments, strict=True):
        if alignment.original_length:
            np.add.at(row, alignment.refined_to_original, own[: alignment.refined_length])
    return charges


def filter_refinements(
    *,
    rewards: NDArray[np.float64],
    refined_rewards: NDArray[np.float64],
    prompts: NDArray[np.int64],
    refined: Sequence[Ids],
    accept: str,
    max_reward: float | None,
) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
    """Return the reason, the representative (−1 for none) and the weight of each row."""
    reasons: list[str] = []
    representative, weight = np.full(len(refined), -1), np.zeros(len(refined), np.int64)
    first: dict[Hashable, int] = {}
    for i, (before, after, ids) in enumerate(zip(rewards, refined_rewards, refined, strict=True)):
        if len(ids) == 0:
            reasons.append("empty")
        elif np.isnan(before) or np.isnan(after):
            reasons.append("masked")
        elif accept != "all" and not after > before:
            reasons.append("not_better")
        elif accept == "perfect" and max_reward is not None and after < max_reward:
            reasons.append("not_perfect")
        else:
            reasons.append("accepted")
            representative[i] = first.setdefault((int(prompts[i]), tuple(ids.tolist())), i)
            weight[representative[i]] += 1
    return reasons, representative, weight
