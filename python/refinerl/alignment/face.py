"""Alignment of responses y with their refinements ỹ: the typed face of `refinerl-align`.

An alignment keeps as many tokens of y in ỹ as their order allows, so that insertions plus deletions are minimal. Among
alignments of the same length the choice is a fixed function of the input, the same on every machine: the longest common
prefix is kept, of the rest the longest common suffix, and between them each kept pair, from the last to the first, is
placed as early as possible, first in ỹ, then in y. `refinerl.alignment.naive` does the same in plain NumPy.
"""

from __future__ import annotations

import operator
import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray

from refinerl.alignment import naive as alignment_naive
from refinerl.records import Alignment

_native: Any
try:
    from refinerl import _core as _native
except ImportError:  # a source tree whose extension was not built
    warnings.warn("refinerl._core is not built: alignment runs on its slow NumPy twin", RuntimeWarning, stacklevel=2)
    _native = None

_WIDTHS = (np.dtype(np.int64), np.dtype(np.int32))


def align(originals: Sequence[Any], refined: Sequence[Any], *, threads: int | None = None) -> list[Alignment]:
    """Align each y with its ỹ.

    >>> (found,) = align([[1, 2, 3, 4]], [[1, 2, 9, 4, 5]])  # 3 becomes 9, and 5 is new
    >>> found.distance, found.prefix
    (3, 2)
    >>> found.refined_kept.tolist()
    [True, True, False, True, False]
    >>> found.refined_to_original.tolist()
    [0, 1, 2, 3, 3]

    `originals` and `refined` hold one sequence of token ids (0 … 2³¹ − 1) for each pair: one-dimensional arrays or CPU
    tensors (int32 and int64 are read in place, strided views and other integers copied) or sequences of ints. Empty
    sequences are valid. `threads` is None for all cores, 1 for the calling thread alone; the GIL is released in any
    case.

    A pair of n tokens a side and d differences takes O(n + d²) time and memory while d is small, and never more than
    O(n²/64) time; a thread needs at most about 20 MiB for up to 32k tokens a side, O(n√n) bits beyond. Buffers are kept
    for later calls, those of up to 12 MiB a thread and of 32 MiB in all.

    Raises:
        ValueError: counts that do not match, None, floats, negative ids, tensors on another device, other shapes.
    """
    count, others = _count("originals", originals), _count("refined", refined)
    if count != others:
        raise ValueError(f"refined must be as many as originals ({count}), got {others}")
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    found = None if _native is None else _native.align(list(originals), list(refined), threads=threads)
    if found is None:  # the native function does not read some of these sequences
        pairs = _token_arrays("originals", originals), _token_arrays("refined", refined)
        found = alignment_naive.align(*pairs) if _native is None else _native.align(*pairs, threads=threads)
    return cast("list[Alignment]", found)


def charge(costs: Any, alignments: Sequence[Alignment], lengths: Sequence[int]) -> NDArray[np.float64]:
    """Add up the costs of ỹ's tokens at positions of y (docs/equations.md, “Where the penalty acts”).

    >>> alignments = align([[1, 2, 3, 4]], [[1, 2, 9, 4, 5]])
    >>> charge(np.array([[0.5, 1.0, 2.0, 4.0, 8.0]]), alignments, [4]).tolist()
    [[0.5, 1.0, 2.0, 12.0]]

    `costs` is (n, T′) floating, an array or a detached CPU tensor, row i for `alignments[i]`, padded at the right;
    `lengths` are the n lengths of y. Returns (n, max(lengths)) float64: `costs[i, j]` is added at
    `alignments[i].refined_to_original[j]`, so each row keeps its sum. Columns beyond ỹ's length are ignored. An empty y
    has no position: its row is zero and its costs are dropped.

    Raises:
        ValueError: counts or lengths that do not match, or costs that are not floating or not detached.
    """
    if isinstance(costs, torch.Tensor):
        if costs.requires_grad:
            raise ValueError("costs must be detached from the graph, got a tensor that requires grad")
        costs = _on_cpu("costs", costs).double().numpy()
    costs = np.asarray(costs)
    if costs.ndim != 2 or costs.dtype.kind != "f":
        raise ValueError(f"costs must be floating and of shape (n, T), got {costs.dtype} {costs.shape}")
    sizes = len(costs), _count("alignments", alignments), _count("lengths", lengths)
    if len(set(sizes)) > 1:
        got = "{}, {} and {}".format(*sizes)
        raise ValueError(f"costs, alignments and lengths must be equally many, got {got}")
    made = cast("Sequence[alignment_naive.Alignment]", alignments)  # of either twin; both have their lengths
    for index, (alignment, length) in enumerate(zip(made, lengths, strict=True)):
        if alignment.original_length != length:
            raise ValueError(f"lengths[{index}] must be y's length, {alignment.original_length}, got {length}")
        if alignment.refined_length > costs.shape[1]:
            raise ValueError(f"costs[{index}] must cover ỹ's {alignment.refined_length} tokens, got {costs.shape[1]}")
    twin = alignment_naive if _native is None else _native
    charges = twin.charge(costs.astype(np.float64, copy=False), list(alignments), [int(length) for length in lengths])
    return cast("NDArray[np.float64]", charges)


@dataclass(frozen=True)
class Filtered:
    """The n refinements after the filter: which are accepted, and how identical ones are merged."""

    accepted: NDArray[np.bool_]
    """[n] True for rows that passed the filter."""
    representative: NDArray[np.int64]
    """[n] for an accepted row the index of the first accepted row identical to it, perhaps itself; −1 for others."""
    weight: NDArray[np.int64]
    """[n] number of accepted rows that a representative stands for; 0 for other rows. They sum to the accepted rows."""
    counts: Mapping[str, int]
    """Number of rows by reason: accepted, empty, masked, not_better, not_perfect (these sum to n), and merged: accepted
    rows that another row stands for."""


def filter_refinements(
    rewards: Any,
    refined_rewards: Any,
    keys: Sequence[Hashable],
    refined: Sequence[Any],
    *,
    accept: Literal["better", "perfect", "all"] = "better",
    max_reward: float | None = None,
) -> Filtered:
    """Filter a batch of refinements by Eq. 6 or one of its ablations, and merge identical rows.

    >>> found = filter_refinements([0, 0, 1], [1, 1, 1], ["a", "a", "b"], [[5, 6], [5, 6], [7]])
    >>> found.accepted.tolist(), found.weight.tolist()
    ([True, True, False], [2, 0, 0])
    >>> found.counts["not_better"], found.counts["merged"]
    (1, 1)

    `rewards` and `refined_rewards` are n numbers each, R(x, y) and R(x, ỹ); NaN or None where there is no reward.
    `refined` are the token ids of the n ỹ, as for `align`. Accepted rows with equal `keys` and equal ỹ are merged, so a
    key holds what must not be merged: the prompt's id, and the minibatch too where rows belong to one.

    A row is counted under the first reason that applies: `empty` (ỹ), `masked` (a reward is missing), then unless
    `accept` is “all” `not_better` (R(x, ỹ) ≤ R(x, y)), and for “perfect” `not_perfect` (better, but below
    `max_reward`). Under “all” an ỹ equal to its y is accepted, with distance 0.

    Raises:
        ValueError: counts that do not match, an unknown `accept`, “perfect” without `max_reward`, bad token ids.
    """
    if accept not in ("better", "perfect", "all"):
        raise ValueError(f"accept must be one of better, perfect, all, got {accept}")
    if accept == "perfect" and max_reward is None:
        raise ValueError("max_reward must be a number where accept is perfect, got None")
    values = _rewards("rewards", rewards), _rewards("refined_rewards", refined_rewards)
    sizes = len(values[0]), len(values[1]), _count("keys", keys), _count("refined", refined)
    if len(set(sizes)) > 1:
        got = "{}, {}, {} and {}".format(*sizes)
        raise ValueError(f"rewards, refined_rewards, keys and refined must be equally many, got {got}")
    numbers: dict[Hashable, int] = {}
    prompts = np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)
    twin = alignment_naive if _native is None else _native
    arrays = _token_arrays("refined", refined)
    reasons, representative, weight = twin.filter_refinements(
        rewards=values[0],
        refined_rewards=values[1],
        prompts=prompts,
        refined=arrays,
        accept=accept,
        max_reward=max_reward,
    )
    accepted = representative >= 0
    counts = dict.fromkeys(("accepted", "empty", "masked", "not_better", "not_perfect"), 0) | Counter(reasons)
    return Filtered(accepted, representative, weight, counts | {"merged": int((accepted & (weight == 0)).sum())})


def retokenize(
    text: str,
    original_ids: Sequence[int],
    encode: Callable[[str], Sequence[int]],
    decode: Callable[[Sequence[int]], str],
) -> tuple[int, ...]:
    """Encode ỹ's text, beginning with as many of y's own tokens as the text allows.

    `encode` must add no special tokens, `decode` must leave them out. For a copy of y's text the result is y's ids
    without those at the end that add no text (its EOS), even where `encode` would split the text otherwise. Otherwise
    the longest prefix of y's ids that decodes to a prefix of `text` is kept, and the rest is encoded so that the whole
    decodes to `text`; if no split achieves that (with a tokenizer that normalises, say), the result is `encode(text)`.

    >>> tokens = {1: "for", 2: " i", 3: " in"}  # other ids are single characters
    >>> def decode(ids):
    ...     return "".join(tokens.get(i) or chr(i) for i in ids)
    >>> def encode(text):
    ...     return [ord(character) for character in text]
    >>> retokenize("for j in", [1, 2, 3], encode, decode)
    (1, 32, 106, 32, 105, 110)
    >>> retokenize("for i in", [1, 2, 3], encode, decode)
    (1, 2, 3)
    """
    kept = [int(token) for token in original_ids]
    if decode(kept) == text:
        while kept and decode(kept[:-1]) == text:
            kept.pop()
        return tuple(kept)
    low, high = 0, len(kept)
    while low < high:  # bisection: a longer prefix decodes to a text that begins with that of a shorter one
        middle = (low + high + 1) // 2
        low, high = (middle, high) if text.startswith(_whole_characters(decode(kept[:middle]))) else (low, middle - 1)
    for back in _STEPS_BACK:
        prefix = kept[: max(low - back, 0)]
        decoded = decode(prefix)
        if not prefix:
            break
        if text.startswith(decoded):
            for rest in _encodings(text[len(decoded) :], encode):
                if decode([*prefix, *rest]) == text:
                    return (*prefix, *rest)
    return tuple(int(token) for token in encode(text))


_STEPS_BACK = (0, 1, 2, 3, 4, 5, 6, 8, 12, 16, 32, 64)
"""Numbers of tokens to drop from the prefix while a split does not decode to the text: mostly a character is cut in
two, or the tokenizer puts a space before the first word."""


def _encodings(rest: str, encode: Callable[[str], Sequence[int]]) -> list[list[int]]:
    """Encode the text that follows a prefix: on its own, and as it is encoded after a line break."""
    if not rest:
        return [[]]
    alone, anchor, anchored = list(encode(rest)), list(encode("\n")), list(encode("\n" + rest))
    return [alone, anchored[len(anchor) :]] if anchored[: len(anchor)] == anchor else [alone]


def _whole_characters(decoded: str) -> str:
    return decoded.rstrip("\N{REPLACEMENT CHARACTER}")


def _count(name: str, batch: Any) -> int:
    try:
        return len(batch)
    except TypeError:
        raise ValueError(f"{name} must be a sequence, got {batch!r}") from None


def _token_arrays(name: str, sequences: Sequence[Any]) -> list[Any]:
    """Convert to what the native twin reads, lists, tuples and int32 or int64 arrays; it checks the ids itself."""
    if _native is None:
        return [_in_range(f"{name}[{i}]", _array(f"{name}[{i}]", ids)) for i, ids in enumerate(sequences)]
    if {list, tuple}.issuperset(map(type, sequences)):
        return list(sequences)
    return [
        ids if type(ids) is np.ndarray and ids.ndim == 1 and ids.dtype in _WIDTHS else _array(f"{name}[{i}]", ids)
        for i, ids in enumerate(sequences)
    ]


def _array(name: str, ids: Any) -> NDArray[Any]:
    if isinstance(ids, torch.Tensor):
        ids = _on_cpu(name, ids).numpy()
    elif not isinstance(ids, np.ndarray):
        if isinstance(ids, str | bytes) or not isinstance(ids, Sequence):
            raise ValueError(f"{name} must be a sequence of token ids, got {ids!r}")
        ids = np.array([_integer(name, token) for token in ids], np.int64)
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise ValueError(f"{name} must be one-dimensional integers, got {ids.dtype} of shape {ids.shape}")
    if ids.dtype == np.uint64:
        _in_range(name, ids)
    return cast("NDArray[Any]", ids if ids.dtype in _WIDTHS else ids.astype(np.int64))


def _integer(name: str, token: Any) -> int:
    try:
        value = operator.index(token)
    except TypeError:
        value = -1
    if not 0 <= value < 2**31:
        raise ValueError(f"{name} must be token ids from 0 to 2**31 - 1, got {token}")
    return value


def _in_range(name: str, ids: NDArray[Any]) -> NDArray[Any]:
    outside = ids[(ids < 0) | (ids >= 2**31)]
    if len(outside):
        raise ValueError(f"{name} must be token ids from 0 to 2**31 - 1, got {outside[0]}")
    return ids


def _rewards(name: str, values: Any) -> NDArray[np.float64]:
    if isinstance(values, torch.Tensor):
        values = _on_cpu(name, values.detach()).numpy()
    try:
        rewards = np.asarray(values, np.float64, order="C")  # a scalar stays one
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be numbers, NaN or None, got {values!r}") from error
    if rewards.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, got shape {rewards.shape}")
    return rewards


def _on_cpu(name: str, tensor: torch.Tensor) -> torch.Tensor:
    if tensor.device.type != "cpu":
        raise ValueError(f"{name} must be on the CPU, got a tensor on {tensor.device}")
    return tensor.detach()
