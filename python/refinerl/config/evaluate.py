"""The section `evaluate`."""

from __future__ import annotations

from typing import Literal

from refinerl.contracts.options import Count, CountOrZero, NonNegative, Section


class EvaluateConfig(Section):
    """A benchmark between the steps; the checkpoint with the best pass@1 is kept."""

    every: CountOrZero = 0
    """Steps between evaluations; 0: none."""
    benchmark: Literal["humaneval", "humaneval+", "mbpp", "mbpp+", "apps"] = "humaneval+"
    data: str | None = None
    """Folder with the benchmark's files (for apps also a file, or hub:OWNER/NAME/FILE); None: as published."""
    limit: Count | None = None
    """The first tasks only."""
    n: Count = 1
    """Samples of each task."""
    temperature: NonNegative = 0.0
    """0 is greedy."""
    max_tokens: Count = 512
    prompting: Literal["completion", "chat"] = "chat"
