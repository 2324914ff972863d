"""Defaults that follow from other knobs (`contracts.options.derived`)."""

from __future__ import annotations

from functools import reduce
from typing import Any

from refinerl.contracts.options import Section, default_of


def fill(section: Section, config: Section) -> None:
    """Give every knob of a section that was not set, and that takes the value of another knob, that value.

    Args:
        section: whose knobs are filled in, with those of the sections in it.
        config: the whole configuration, in which the other knobs are looked up.
    """
    for name, field in type(section).model_fields.items():
        value: Any = getattr(section, name)
        if isinstance(value, Section):
            fill(value, config)
        elif value is None and (source := default_of(field)):
            setattr(section, name, reduce(getattr, source.split("."), config))
