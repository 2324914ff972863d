"""From logits to tokens: inverse-CDF sampling with one uniform number per token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from refinerl.records import Sampling


def uniforms(seed: int, count: int) -> Tensor:
    """Draw the noise of one sample's tokens, (count,) float64 in [0, 1), from Philox keyed by a 64-bit seed.

    >>> bool((uniforms(7, 3) == uniforms(7, 5)[:3]).all())
    True
    """
    bits = np.random.Philox(key=int(seed) & (2**64 - 1))
    return torch.from_numpy(np.random.Generator(bits).random(count))


def draw(logits: Tensor, uniform: Tensor | None, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Choose one token per row of logits (B, V) as a request says: greedily at temperature 0, where `uniform` is None.

    `uniform` may be on another device. Returns and errors as in `greedy` and `sample`.
    """
    if uniform is None:
        return greedy(logits)
    noise = uniform.to(logits.device)
    return sample(logits, noise, sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p)


def draw_several(
    logits: Tensor, uniform: Tensor | None, lengths: Sequence[int], sampling: Sampling, most: int
) -> Iterator[tuple[list[int], list[float]]]:
    """Draw a token after each of the first lengths[i] tokens of row i, from logits (rows, n, V).

    `uniform` has a number for each of them, (Σ lengths,), or is None; `most` are drawn at a time. Gives the tokens and
    logprobs of each row; errors are those of `draw`.
    """
    if logits.shape[1] == 1:
        drawn = draw(logits[:, 0], uniform, sampling)
        return (([token], [logprob]) for token, logprob in zip(*(t.tolist() for t in drawn), strict=True))
    places = [(row, column) for row, length in enumerate(lengths) for column in range(length)]
    row, column = torch.tensor(places, device=logits.device).T
    parts = [slice(first, first + most) for first in range(0, len(places), most)]
    found = [
        draw(logits[row[part], column[part]], None if uniform is None else uniform[part], sampling) for part in parts
    ]
    tokens, logprobs = (torch.cat(each).tolist() for each in zip(*found, strict=True))
    ends = list(accumulate(lengths))
    return ((tokens[end - n : end], logprobs[end - n : end]) for n, end in zip(lengths, ends, strict=True))


def greedy(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Choose the likeliest token of each row (B, V); return it with its logprob at temperature 1.

    Raises:
        FloatingPointError: a row has no finite maximum.
    """
    logits = logits.float()
    top, tokens = logits.max(-1)
    logprobs = top - logits.logsumexp(-1)
    if not torch.isfinite(logprobs).all():
        raise FloatingPointError("the model's logits are not finite")
    return tokens, logprobs


def sample(
    logits: Tensor, uniform: Tensor, temperature: float, *, top_k: int = 0, top_p: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Sample one token per row: the one at which the cumulative distribution passes the row's uniform number.

    A row's token depends on its own logits and number alone, so it is the same in every batch. The distribution is
    accumulated in float64, because float32 is too coarse for a sum over 10⁵ tokens.

    Args:
        logits: (B, V).
        uniform: (B,) float64 in [0, 1).
        temperature: divides the logits, > 0.
        top_k: keep the k likeliest tokens, and those as likely as the last of them; 0 keeps all.
        top_p: of those, keep the likeliest whose probabilities first sum to p.

    Returns:
        (B,) int64 tokens and (B,) float32 logprobs under the distribution that was sampled from, after top_k and top_p.

    Raises:
        FloatingPointError: a row has no finite maximum, so it is no distribution.
    """
    scaled = logits.float() / temperature
    highest = scaled.amax(-1, keepdim=True)
    mass = (scaled - highest).exp_()
    if 0 < top_k < mass.shape[-1]:
        mass.masked_fill_(mass < mass.topk(top_k, dim=-1).values[:, -1:], 0.0)
    if top_p < 1.0:
        mass.masked_fill_(mass < _nucleus_threshold(mass, top_p), 0.0)
    cumulative = mass.cumsum(-1, dtype=torch.float64)
    total = cumulative[:, -1:]
    if not torch.isfinite(total).all():
        raise FloatingPointError("the model's logits are not finite")
    # Strictly below the total, so that the search always ends on a token of positive mass.
    point = torch.minimum(uniform[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    tokens = torch.searchsorted(cumulative, point, right=True)
    logprobs = (scaled - highest).gather(-1, tokens) - total.log()
    return tokens.squeeze(-1), logprobs.squeeze(-1).float()


def _nucleus_threshold(mass: Tensor, top_p: float) -> Tensor:
    """Find the smallest mass in the nucleus of unnormalised probabilities (B, V): (B, 1)."""
    descending = mass.sort(-1, descending=True).values
    cumulative = descending.cumsum(-1, dtype=torch.float64)
    before = cumulative - descending
    size = (before < top_p * cumulative[:, -1:]).sum(-1, keepdim=True)
    return descending.gather(-1, size.clamp_min(1) - 1)
