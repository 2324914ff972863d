"""Knobs that a run does not read, by the conditions that the sections state (`contracts.options.When`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from refinerl.config.choice import DEFAULT
from refinerl.config.conditions import PLANNED
from refinerl.contracts import plugins
from refinerl.contracts.options import Options, Section, When


def unread(config: Section, keys: Iterable[str], *, planning: bool = False) -> dict[str, str]:
    """Find the knobs that a run does not read.

    Args:
        config: the whole configuration.
        keys: dotted names of knobs, valid ones.
        planning: leave out those that a plan reads.

    Returns:
        Each knob that is not read, with the setting with which it would be.
    """
    found: dict[str, str] = {}
    for key in keys:
        missing = missing_for(config, key)
        if missing is not None and not (planning and missing is PLANNED):
            found[key] = missing.said
    return found


def missing_for(config: Section, key: str) -> When | None:
    """Return the first condition of a knob that is not met; None if a run reads the knob.

    A knob of another built-in task, algorithm or constraint is read with that one.
    """
    section: Any = config
    for name in key.split("."):
        if isinstance(section, Section):
            if isinstance(section, Options) and name == "options":
                continue
            if (
                unmet := next((w for w in type(section).conditions(name) if not w.holds(section, config)), None)
            ) is not None:
                return unmet
            if name not in type(section).model_fields:
                return _owners(section, name) if isinstance(section, Options) else None
            section = getattr(section, name)
        elif isinstance(section, tuple) and name.isdecimal():
            section = section[int(name)]
        else:  # inside a value
            return None
    return None


def is_default(key: str, value: Any) -> bool:
    """True if a value is the default of a knob in all built-in parts that have it."""
    kind, _, leaf = key.partition(".")
    given = tuple(value) if isinstance(value, list) else value
    parts = _options(cast("plugins.Kind", kind)).values() if kind in DEFAULT else ()
    return bool(parts) and all(
        options.model_fields[leaf].default == given for options in parts if leaf in options.model_fields
    )


def sentences(found: Mapping[str, str]) -> list[str]:
    """Describe unread knobs, one sentence for each reason.

    >>> sentences({"vllm.sleep": "engines.generator=vllm", "vllm.prefix_caching": "engines.generator=vllm"})
    ['vllm.sleep and vllm.prefix_caching change nothing in this run: they are read only with engines.generator=vllm']
    """
    grouped: dict[str, list[str]] = {}
    for key, said in found.items():
        grouped.setdefault(said, []).append(key)
    return [
        f"{keys[0]} changes nothing in this run: it is read only with {said}"
        if len(keys) == 1
        else f"{', '.join(keys[:-1])} and {keys[-1]} change nothing in this run: they are read only with {said}"
        for said, keys in grouped.items()
    ]


def _owners(section: Options, leaf: str) -> When | None:
    """Return the condition of a knob that the section's class lacks, as `task.column` for `task.name=code`."""
    having = [
        name for name, options in _options(cast("plugins.Kind", section.kind)).items() if leaf in options.model_fields
    ]
    if not having:
        return None
    return When(f"{section.kind}.name={' or '.join(having)}", lambda own, run: False)


def _options(kind: plugins.Kind) -> dict[str, type[Options]]:
    return {name: plugins.resolve(kind, name).Options for name in plugins.names(kind)}
