"""The section `evaluate`."""

from __future__ import annotations

from typing import Literal

from refinerl.contracts.options import Count, CountOrZero, NonNegative, Section


class EvaluateConfig(Section):
    """A benchmark that runs during training; the checkpoint with the best pass@1 is kept."""

    every: CountOrZero = 0
    """Steps between evaluations. 0: no evaluation."""
    benchmark: Literal["humaneval", "humaneval+", "mbpp", "mbpp+", "apps"] = "humaneval+"
    """Benchmark to run."""
    data: str | None = None
    """Folder with the benchmark's files; for apps also a file or hub:OWNER/NAME/FILE. None: download them."""
    limit: Count | None = None
    """Number of tasks to use, from the first on. None: all."""
    n: Count = 1
    """Samples per task."""
    temperature: NonNegative = 0.0
    """Sampling temperature; 0 is greedy decoding."""
    max_tokens: Count = 512
    """Maximum tokens of a completion."""
    prompting: Literal["completion", "chat"] = "chat"
    """Complete the code of the task, or ask for it in a conversation."""
