"""refinerl: reinforcement-learning fine-tuning under a dynamic constraint (arXiv:2603.18088).

`fine_tune` trains from Python, `python -m refinerl.train` from the command line. `train.py` is the method on one
screen, and `objective.py` holds its equations. Importing the package is cheap: torch is imported by the first call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from refinerl.errors import TrainingStoppedError, UserError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from refinerl.contracts import Algorithm, Constraint, Task
    from refinerl.run.asked import Model, Tokenizer
    from refinerl.run.library import Run

    __version__: str

__all__ = ["Run", "TrainingStoppedError", "UserError", "__version__", "fine_tune"]


def fine_tune(
    *,
    model: Model = None,
    tokenizer: Tokenizer = None,
    prompts: str | os.PathLike[str] | Iterable[Mapping[str, Any] | str] | None = None,
    reward: str | Callable[..., Any] | Task | Sequence[str | Callable[..., Any]] | None = None,
    reward_weights: Sequence[float] | None = None,
    constraint: str | Constraint | None = None,
    algorithm: str | Algorithm | None = None,
    output_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    on_step: Callable[[Mapping[str, Any]], Any] | None = None,
    recipe: str | Sequence[str] | None = None,
    **knobs: Any,
) -> Run:
    """Fine-tune a language model as `python -m refinerl.train` does, with objects in place of names.

    >>> import refinerl
    >>> run = refinerl.fine_tune(  # doctest: +SKIP
    ...     model="Qwen/Qwen2.5-0.5B-Instruct",
    ...     prompts=["Write a haiku about spring."],
    ...     reward=lambda completions, **_: [-float(len(text)) for text in completions],
    ...     **{"trainer.steps": 50},
    ... )
    >>> run.metrics[-1]["reward/mean"]  # doctest: +SKIP

    Args:
        model: a hub id, a folder, or a model with its `tokenizer`. A `PreTrainedModel` is not changed: policy and
            reference are copies. The LoRA adapter of a `PeftModel` is trained in place; without it the same weights
            are the reference. None: the recipe's model, else the bundled SmolLM2-135M.
        prompts: a `datasets.Dataset` or `IterableDataset`, rows (dicts) or texts, or a path. The column `prompt` holds
            a list of messages, which goes through the chat template, or a text, which is given to the model as it is,
            as in TRL; the other columns are passed to the rewards. With reward="code", rows in the format of APPS.
        reward: a function with TRL's signature, `f(prompts, completions, completion_ids, **columns)`, sync or async,
            which returns a number or None for each completion; or "rule:answer", "rule:matches", "model" (with
            `reward_model.model`), "code" (tests in the sandbox), "module:function"; or several of them, which are
            added up; or a `refinerl.contracts.Task`, which has prompts of its own.
        reward_weights: one for each reward; None: 1 each.
        constraint: "dynamic" (None), "static", "none", "peer", "fresh", or a `refinerl.contracts.Constraint`.
        algorithm: "dapo" (None), "ppo", or a `refinerl.contracts.Algorithm`.
        output_dir: the run's folder, which must be free unless `resume`. None: runs/NAME-TIME.
        resume: continue from the last checkpoint in the folder.
        on_step: called after each step with its row of metrics, in place of a line on the console.
        recipe: a recipe, or a recipe and parts, that the arguments override. None: the defaults of all knobs.
        knobs: any dotted key of `python -m refinerl.train --help`: `**{"trainer.steps": 50}`.

    Raises:
        UserError: an argument cannot be used. The message says which, and what would work.
        TrainingStoppedError: a guard stopped the run, whose state was saved.
        KeyboardInterrupt: on Ctrl-C. The message says where `resume=True` continues.

    In one of several ranks that a launcher started, an error ends all of them: the message is printed once, and the
    exit code is 2 for a UserError and 1 for any other error.
    """
    from refinerl.run import library
    from refinerl.train import train

    asked = library.Asked(
        model, tokenizer, prompts, reward, reward_weights, constraint, algorithm, on_step, recipe, knobs
    )
    return library.fine_tune(train, asked, output_dir, resume=resume)


def __getattr__(name: str) -> Any:
    if name == "Run":
        from refinerl.run.library import Run

        return Run
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("refinerl")
        except PackageNotFoundError:  # a source tree on PYTHONPATH that was never installed
            return "0+source"
    raise AttributeError(f"module 'refinerl' has no attribute {name!r}")
