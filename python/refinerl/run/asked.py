"""The arguments of `refinerl.fine_tune`, resolved into a configuration and the objects that it names."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from typing_extensions import get_protocol_members

from refinerl.config import GROUP, Config
from refinerl.contracts import Algorithm, Constraint, Constraints, Task
from refinerl.contracts.options import Options, TaskOptions
from refinerl.contracts.plugins import Kind, hand_over
from refinerl.data.apps import ProblemSet
from refinerl.data.conversations import Dialogues
from refinerl.engines.lora import check_adapted, is_adapted
from refinerl.errors import UserError
from refinerl.run import recipe as recipes
from refinerl.run.given import Given, OnStep, name_of
from refinerl.run.recipe import Recipe
from refinerl.run.tasks import built_in
from refinerl.tasks.base import Task as OwnTask

Model: TypeAlias = str | os.PathLike[str] | nn.Module | None
"""A name, a folder, a `PreTrainedModel` or a `PeftModel`."""

Tokenizer: TypeAlias = PreTrainedTokenizerBase | None

CODE = ("code", "adaptive", "coarse")
"""Rewards of the code task; the first means the default."""


TRLS = {
    "reward_funcs": "reward",
    "train_dataset": "prompts",
    "processing_class": "tokenizer",
    "callbacks": "on_step",
    "peft_config": "a peft model as model, or the knob lora.rank,",
    "args": 'knobs, such as **{"trainer.steps": 50},',
}
"""Arguments of TRL's trainers, and what stands for them."""


@dataclass(frozen=True)
class Asked:
    """The arguments of a call of `refinerl.fine_tune`, where they are documented."""

    model: Any
    tokenizer: Any
    prompts: Any
    reward: Any
    reward_weights: Any
    constraint: Any
    algorithm: Any
    on_step: OnStep | None
    recipe: Any
    knobs: Mapping[str, Any]

    @property
    def recipes(self) -> tuple[str, ...]:
        """The recipe and its parts; empty if none is given."""
        if self.recipe is None:
            return ()
        if isinstance(self.recipe, str | os.PathLike):
            return (os.fspath(self.recipe),)
        if not isinstance(self.recipe, Iterable):
            raise UserError(f"recipe must be a name, a file or a list of them, got {self.recipe!r}")
        return tuple(str(part) for part in self.recipe)

    @property
    def weights(self) -> list[Any]:
        """One for each reward, or nothing."""
        if self.reward_weights is None:
            return []
        if isinstance(self.reward_weights, str) or not isinstance(self.reward_weights, Iterable):
            raise UserError(f"reward_weights must be a list, one for each reward, got {self.reward_weights!r}")
        return list(self.reward_weights)

    @property
    def name(self) -> str:
        """The name that the run's folder starts with."""
        return self.recipes[0] if self.recipes else "fine-tune"

    def resolve(self) -> tuple[Recipe, Given]:
        """Return the recipe, in whose configuration objects have names, and the objects.

        Raises:
            UserError: an argument cannot be used, or two arguments set the same knob.
        """
        if self.on_step is not None and not callable(self.on_step):
            raise UserError(f"on_step must be a function of a row of metrics, got {type(self.on_step).__name__}")
        if inspect.iscoroutinefunction(self.on_step):
            raise UserError("on_step must be a plain function: nothing would await an async one")
        self._check_names()
        task = self.reward if isinstance(self.reward, OwnTask) or _fits(self.reward, Task) else None
        rewards = {} if task is not None else self._named_rewards()
        values = {
            **self._model(),
            **self._task(task, list(rewards)),
            **_choice("algorithm", self.algorithm, self.knobs),
            **_choice("constraint", self.constraint, self.knobs),
        }
        if twice := next((key for key in values if key in self.knobs and key not in _DEFAULTS), None):
            raise UserError(f"{twice} is given twice, as an argument and as a knob: leave one of them out")
        first, *parts = self.recipes or (None,)
        asked = recipes.resolve(first, parts, self.knobs, implied=values)
        config = asked.config
        self._check_task(config)
        model, adapted = (None, self.model) if is_adapted(self.model) else (self.model, None)
        given = Given(
            model=model if isinstance(model, PreTrainedModel) else None,
            adapted=adapted,
            tokenizer=self.tokenizer,
            data=self._data(config, task),
            rewards={name: function for name, function in rewards.items() if function is not None},
            task=task,
            algorithm=None if self.algorithm is None or isinstance(self.algorithm, str) else self.algorithm,
            constraint=None if self.constraint is None or isinstance(self.constraint, str) else self.constraint,
            on_step=self.on_step,
        )
        if config.engines.generator == "vllm" and not (given.model is None and given.adapted is None):
            raise UserError("engines.generator=vllm loads the model itself: give its name or its folder as model")
        return asked, given

    def _check_names(self) -> None:
        """Refuse names of arguments that are not ours; a dotted key is a knob, which the configuration checks."""
        for name in self.knobs:
            if "." in name or name in Config.model_fields:
                continue
            if name in TRLS:
                raise UserError(f"unknown argument {name!r}: what TRL calls so is {TRLS[name]} here")
            ours = [*(field.name for field in fields(self)), "output_dir", "resume"]
            if close := difflib.get_close_matches(name, ours, n=1, cutoff=0.8):
                raise UserError(f"unknown argument {name!r}; closest: {close[0]}")

    def _model(self) -> dict[str, Any]:
        tokenizer, model = self.tokenizer, self.model
        if tokenizer is not None and not isinstance(tokenizer, PreTrainedTokenizerBase):
            raise UserError(f"tokenizer must be a tokenizer of transformers, got {type(tokenizer).__name__}")
        if model is None:
            return {}
        if isinstance(model, str | os.PathLike):
            return {"model": os.fspath(model)}
        adapter = {}
        if is_adapted(model):
            rank, alpha, targets = check_adapted(model)
            adapter = {"lora.rank": rank, "lora.alpha": alpha, "lora.targets": list(targets)}
        elif not isinstance(model, PreTrainedModel):
            raise UserError(
                "model must be a name, a folder, a PreTrainedModel or a peft model with its tokenizer, "
                f"got {type(model).__name__}"
            )
        base: Any = model.get_base_model() if adapter else model
        if not base.can_generate() or base.config.is_encoder_decoder:
            raise UserError(
                f"model must be a causal language model, as AutoModelForCausalLM loads it, got {type(base).__name__}"
            )
        if any(parameter.is_meta for parameter in base.parameters()):
            raise UserError("model has weights on the device meta, which hold nothing: load it without device_map")
        if tokenizer is None:
            raise UserError(
                "model is an object, so its tokenizer must be given too: "
                "tokenizer=AutoTokenizer.from_pretrained(…) of the same name"
            )
        dtype = str(model.dtype).removeprefix("torch.")
        if dtype not in ("float32", "bfloat16"):
            raise UserError(f"model must be in float32 or bfloat16, got {dtype}: model.to(torch.bfloat16)")
        return {"model": name_of(model), "dtype": dtype, **adapter}

    def _named_rewards(self) -> dict[str, Callable[..., Any] | None]:
        """Return the reward functions by their names in the configuration; None for a reward that is given by name."""
        if self.reward is None:
            return {}
        several = self.reward if isinstance(self.reward, list | tuple) else [self.reward]
        if twice := next((one for one in several if several.count(one) > 1), None):
            name = twice if isinstance(twice, str) else getattr(twice, "__name__", type(twice).__name__)
            times = several.count(twice)
            raise UserError(
                f"reward must hold each reward once, got {name} {times} times: reward_weights gives one more weight"
            )
        named: dict[str, Callable[..., Any] | None] = {}
        for one in several:
            if isinstance(one, str):
                named[one] = None
            elif isinstance(one, PreTrainedModel):
                raise UserError('reward must name a reward model: reward="model" with the knob reward_model.model')
            elif callable(one):
                name = name_of(one)
                alike = sum(other.split("#")[0] == name for other in named)
                named[f"{name}#{alike + 1}" if alike else name] = one
            else:
                raise UserError(
                    "reward must be a function in TRL's signature, a name such as rule:answer, or a Task, "
                    f"got {type(one).__name__}"
                )
        if not named:
            raise UserError("reward must hold at least one reward, got none")
        return named

    def _task(self, task: Task | None, rewards: list[str]) -> dict[str, Any]:
        if task is not None:
            if self.prompts is not None:
                raise UserError("prompts must be left out where reward is a Task, which brings its own")
            for knob in self.knobs:
                if knob.startswith("task.options"):
                    name = type(task).__name__
                    raise UserError(f"{knob} must be left out where reward is a Task: give it to the {name}")
            options = getattr(task, "options", None)
            says = options.model_dump(mode="json") if isinstance(options, TaskOptions) else {}
            own = {key: value for key, value in says.items() if key not in TaskOptions.common}
            return {"task.name": hand_over(task), **({"task.options": own} if own else {})}
        if not self.recipes and "task.name" not in self.knobs and (self.prompts is None or not rewards):
            missing = "prompts" if self.prompts is None else "reward"
            raise UserError(f"{missing} must be given, or a recipe that sets it, such as recipe='demo'")
        values: dict[str, Any] = {}
        if rewards:
            code = rewards[0] in CODE and len(rewards) == 1
            values["task.name"] = "code" if code else "dialogue"
            if rewards != ["code"]:
                values["task.reward"] = rewards[0] if len(rewards) == 1 else rewards
        if self.prompts is not None:
            path = isinstance(self.prompts, str | os.PathLike)
            values["task.path"] = os.fspath(self.prompts) if path else name_of(self.prompts)
            if values.get("task.name") == "dialogue":
                values["task.prompt_format"] = None  # the task's default, whatever the recipe says of its own prompts
        if weights := self.weights:
            values["task.reward_weights"] = weights
        return values

    def _check_task(self, config: Config) -> None:
        """Refuse arguments that the task does not read."""
        name = config.task.name
        if self.prompts is not None and ":" in name:
            raise UserError(f"prompts must be left out for task.name={name}, which brings its own")
        if self.weights and not config.task.rewards:
            raise UserError(f"reward_weights must be left out for task.name={name}, which brings its own reward")
        if self.weights and name == "code":
            raise UserError("reward_weights must be left out for task.name=code, which has one reward")

    def _data(self, config: Config, task: Task | None) -> ProblemSet | Dialogues | None:
        if task is not None or self.prompts is None or isinstance(self.prompts, str | os.PathLike):
            return None
        rows = self.prompts
        if hasattr(rows, "iterrows"):  # iterating over a pandas frame gives its column names
            # An absent value is NaN in a frame, and a number to a reward; None is a value that a row lacks.
            rows = rows.astype(object).where(rows.notna(), None).to_dict("records")
        if isinstance(rows, Mapping) and not hasattr(rows, "column_names"):
            raise UserError("prompts must be rows, not columns: datasets.Dataset.from_dict(prompts) makes rows of them")
        try:
            iter(rows)
        except TypeError:
            raise UserError(
                f"prompts must be a data set, a list of rows or texts, or a path, got {type(rows).__name__}"
            ) from None
        return built_in(config).read(rows)


_DEFAULTS = {"task.prompt_format"}
"""Knobs that override what an argument implies."""


CONTRACTS: dict[Kind, tuple[type, ...]] = {"algorithm": (Algorithm,), "constraint": (Constraint, Constraints)}
THE_RUNS = {"samples_per_prompt", "epochs", "entropy_bonus", "max_resamples"}
"""Knobs of the section `algorithm` that the run reads and not the algorithm."""


def _choice(kind: Kind, chosen: Any, knobs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section that an argument stands for: a name, or an object's name and its options.

    Raises:
        UserError: the object lacks a part of its contract, or a knob sets what the object decides.
    """
    if chosen is None:
        return {}
    if kind == "constraint" and any(knob.partition(".")[0] == "constraints" for knob in knobs):
        raise UserError("constraint is given twice, as an argument and as the knob constraints: leave one of them out")
    if isinstance(chosen, str):
        return {f"{kind}.name": chosen}
    if isinstance(chosen, type):
        raise UserError(f"{kind} must be a name or an object, got the class: make one, {chosen.__name__}()")
    if lacking := _lacking(chosen, *CONTRACTS[kind]):
        raise UserError(
            f"{kind} must be a name or an object with all of refinerl.contracts.{CONTRACTS[kind][0].__name__}: "
            f"{type(chosen).__name__} lacks {', '.join(lacking)}"
        )
    for knob in knobs:
        section, _, key = knob.partition(".")
        if section == kind and key not in (THE_RUNS if kind == "algorithm" else ()):
            raise UserError(
                f"{knob} must be left out where {kind} is an object: give it to the {type(chosen).__name__}"
            )
    options = getattr(chosen, "options", None)
    if isinstance(options, Options):
        says = {key: getattr(options, key) for key in type(options).model_fields}
    elif kind == "constraint":
        (says, *_) = ({"beta": part.beta, "apply": part.apply, "reduction": part.reduction} for part in chosen.parts)
    else:
        says = {"samples_per_prompt": GROUP if chosen.grouped else 1}
    return {kind: {**says, "name": hand_over(chosen)}}


def _fits(thing: Any, contract: type) -> bool:
    return thing is not None and not isinstance(thing, str | type) and not _lacking(thing, contract)


def _lacking(thing: Any, *contracts: type) -> list[str]:
    members = set().union(*(get_protocol_members(contract) for contract in contracts))
    return sorted(name for name in members if not hasattr(thing, name))
