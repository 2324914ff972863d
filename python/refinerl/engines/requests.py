"""The checks of a request that all generators share."""

from __future__ import annotations

from collections.abc import Sequence

from refinerl.records import Sampling


def check(prompts: Sequence[Sequence[int]], sampling: Sampling, context_length: int) -> None:
    """Check that the prompts fit and that every sample has its seed.

    Raises:
        ValueError: a prompt is empty or leaves no room in the context, or the seeds do not match the request.
    """
    if sampling.temperature > 0 and [len(s) for s in sampling.seeds] != [sampling.n] * len(prompts):
        raise ValueError(f"seeds must be {len(prompts)} lists of {sampling.n}, got {sampling.seeds!r:.200}")
    for i, prompt in enumerate(prompts):
        if not 0 < len(prompt) < context_length:
            raise ValueError(f"prompts[{i}] must have 1 to {context_length - 1} tokens, got {len(prompt)}")
