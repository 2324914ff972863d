"""The section `evaluate`."""

from __future__ import annotations

from typing import Literal

from refinerl.contracts.options import Count, CountOrZero, DataPath, NonNegative, Reads, Section, When, derived

EVALUATES = When("evaluate.every above 0, such as evaluate.every=10", lambda own, run: own.every > 0)


class EvaluateConfig(Section):
    """An evaluation during training; the checkpoint with the best result is kept."""

    read_when = Reads(
        {
            **dict.fromkeys(
                ("benchmark", "path", "split", "subset", "data", "limit", "n", "temperature", "max_tokens"), EVALUATES
            ),
            "prompting": When(
                "evaluate.every above 0 and a benchmark other than task, such as evaluate.benchmark=mbpp+",
                lambda own, run: own.every > 0 and own.benchmark != "task",
            ),
        }
    )

    every: CountOrZero = 0
    """Steps between evaluations; the first is before step 1. 0: no evaluation."""
    path: DataPath | None = None
    """A file with rows like those of task.path, which the run is not trained on: held-out evaluation with the prompts
    and the reward of the run's task."""
    split: str | None = None
    """Split of evaluate.path, if it is a data set, such as `test`. None: task.split."""
    subset: str | None = None
    """Subset of evaluate.path, if it is a data set that has several. None: task.subset."""
    benchmark: Literal["humaneval", "humaneval+", "mbpp", "mbpp+", "apps", "livecodebench", "task"] = derived(
        "task where evaluate.path is given, else humaneval+"
    )
    """Benchmark to run; task: the rows of evaluate.path."""
    data: DataPath | None = None
    """Folder with a benchmark's files; for apps and livecodebench also a file or hub:OWNER/NAME/FILE. None: download
    them."""
    limit: Count | None = None
    """Number of tasks to use, from the first on. None: all."""
    n: Count = 1
    """Samples per task."""
    temperature: NonNegative = 0.0
    """Sampling temperature; 0 is greedy decoding."""
    max_tokens: Count = derived("512; with benchmark=task generation.max_tokens")
    """Maximum tokens of a completion."""
    prompting: Literal["completion", "chat"] = "chat"
    """Complete the code of a benchmark's task, or ask for it in a conversation; not for benchmark=task."""
