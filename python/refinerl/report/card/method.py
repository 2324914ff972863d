"""A run's method, settings and data in words, from its configuration; local paths are shortened to their last part."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from refinerl.data.terminal import visible

HUB = "https://huggingface.co"
SETTINGS = (
    "seed",
    "trainer.steps",
    "trainer.batch",
    "trainer.minibatch",
    "trainer.learning_rate",
    "trainer.schedule",
    "algorithm.samples_per_prompt",
    "algorithm.epochs",
    "generation.max_tokens",
    "generation.temperature",
    "refiner.temperature",
    "refiner.template",
    "lora.rank",
    "dtype",
    "engines.generator",
    "engines.trainer",
)
"""Knobs that a model card lists."""

Config = Mapping[str, Any]


def value_of(config: Config, knob: str) -> Any:
    """Return the value of a dotted knob; None if the configuration does not have it.

    >>> value_of({"lora": {"rank": 8}}, "lora.rank"), value_of({}, "lora.rank")
    (8, None)
    """
    value: Any = config
    for key in knob.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def constraints(config: Config) -> list[Config]:
    """Return the constraints in force, each with its options."""
    held = config.get("constraints") or [config.get("constraint")]
    return [one for one in held if isinstance(one, Mapping)] if isinstance(held, list) else []


def under(config: Config) -> str:
    """Describe the constraints in a few words: `under the dynamic constraint (β = 0.1)`."""
    names = [
        f"the {code(name) if ':' in name else name} constraint (β = {held.get('beta')})"
        for held in constraints(config)
        if (name := str(held.get("name"))) != "none"
    ]
    return f"under {' and '.join(names)}" if names else "without a constraint"


def sentences(config: Config) -> Iterator[str]:
    """Describe the algorithm and each constraint."""
    algorithm = str(value_of(config, "algorithm.name"))
    named = code(algorithm) if ":" in algorithm else algorithm.upper()
    yield f"The policy's own responses are rewarded, and {named} raises the probability of those with a higher reward."
    for held in constraints(config):
        yield _constraint(held, config)


def _constraint(held: Config, config: Config) -> str:
    name, beta, place = str(held.get("name")), held.get("beta"), held.get("apply", "loss")
    match name:
        case "none":
            return "There is no constraint: only the reward is maximised."
        case "static":
            return f"The KL divergence from the starting model is a penalty in the {place}, with weight β = {beta}."
        case "dynamic":
            better = {"all": "every", "perfect": "every perfect"}.get(str(held.get("accept")), "every better")
            return (
                "Under the dynamic constraint ([arXiv:2603.18088](https://arxiv.org/abs/2603.18088)) "
                f"{_refiner(config)} rewrites each response y minimally into ỹ, and the cross-entropy of the policy on "
                f"{better} ỹ acts in the {place}, with weight β = {beta}."
            )
        case "peer":
            return f"The cross-entropy on the best response to the same prompt acts in the {place}, β = {beta}."
        case "fresh":
            return f"The cross-entropy on better new answers of the starting model acts in the {place}, β = {beta}."
    return f"The constraint {code(name)} acts in the {place}, with weight β = {beta}."


def _refiner(config: Config) -> str:
    match value_of(config, "refiner.source"):
        case "policy":
            return "the policy itself"
        case "model":
            return f"another model ({link(value_of(config, 'refiner.model'))})"
        case "server":
            return "a model behind a server"
    return "the frozen starting model"


def settings(config: Config) -> dict[str, str]:
    """Return the knobs that a card lists, with their values."""
    values = {knob: value_of(config, knob) for knob in SETTINGS}
    if value_of(config, "constraint.name") != "dynamic":
        values = {knob: value for knob, value in values.items() if not knob.startswith("refiner.")}
    return {code(knob): code(short(value)) for knob, value in values.items() if value is not None}


def data(config: Config) -> list[str]:
    """Describe the training prompts, the reward and the held-out data, a line for each."""
    prompts = value_of(config, "task.path")
    embedded = value_of(config, "task.embedded")
    rewards = value_of(config, "task.reward")
    lines = [f"Training prompts ({code(value_of(config, 'task.name'))}): {link(prompts or embedded or 'shipped')}"]
    if rewards is not None:
        every = rewards if isinstance(rewards, list) else [rewards]
        lines.append(f"Reward: {', '.join(code(short(one)) for one in every)}")
    if value_of(config, "evaluate.every"):
        held_out = value_of(config, "evaluate.path") or value_of(config, "evaluate.benchmark")
        lines.append(f"Held out: {link(held_out)}")
    return lines


def datasets(config: Config) -> list[str]:
    """Return the ids of the data sets of the hub that the run was trained on."""
    path = value_of(config, "task.path")
    match = re.fullmatch(r"hub:([\w.-]+/[\w.-]+)(/.*)?", path) if isinstance(path, str) else None
    return [match[1]] if match else []


def hub_id(name: Any) -> str | None:
    """Return the id of a model of the hub; None for a folder or the name of a shipped model.

    >>> hub_id("Qwen/Qwen2.5-0.5B"), hub_id("miniature"), hub_id("/models/mine")
    ('Qwen/Qwen2.5-0.5B', None, None)
    """
    is_id = isinstance(name, str) and re.fullmatch(r"[\w][\w.-]*/[\w][\w.-]*", name) is not None
    return str(name) if is_id and not Path(name).exists() else None


def link(name: Any) -> str:
    """Write a model or a data set as Markdown, with a link if it is on the hub."""
    if (model := hub_id(name)) is not None:
        return f"[{model}]({HUB}/{model})"
    match = re.fullmatch(r"hub:([\w.-]+/[\w.-]+)(/.*)?", str(name))
    return f"[{match[1]}]({HUB}/datasets/{match[1]})" if match else code(short(name))


def short(value: Any) -> str:
    """Write a value; of a local path only its last part, since a card is read elsewhere.

    >>> short("/home/me/prompts.jsonl"), short("my_rewards:brevity"), short([1, "a"])
    ('prompts.jsonl', 'my_rewards:brevity', '1, a')
    """
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(short, value))
    text = str(value)
    path, colon, name = text.rpartition(":")
    if os.sep in path and not text.startswith("hub:"):
        return f"{Path(path).name}{colon}{name}"
    return Path(text).name if os.path.isabs(text) or text.startswith((".", "~")) else text


def code(value: Any) -> str:
    r"""Write a value as code in Markdown, on one line, whatever it holds.

    >>> code("a`b\n<i>|")
    '``a`b\\n<i>\\|``'
    """
    text = "".join(map(visible, str(value)))
    text = text if len(text) <= 200 else f"{text[:199]}…"
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    space = " " if text.startswith("`") or text.endswith("`") or not text.strip() else ""
    return fence + space + text.replace("|", "\\|") + space + fence


def escaped(text: str) -> str:
    r"""Write a text in Markdown as it is, on one line.

    >>> escaped("a_b <script> # c")
    'a\\_b \\<script\\> \\# c'
    """
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~$&-])", r"\\\1", "".join(map(visible, text)))
