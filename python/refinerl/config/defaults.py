"""Defaults that follow from other knobs (`contracts.options.derived`)."""

from __future__ import annotations

from functools import reduce
from typing import Any

from refinerl.contracts.options import Section, default_of


def fill(section: Section, config: Section) -> None:
    """Fill in the knobs that were not set and whose default is the value of another knob.

    Args:
        section: the section to complete, with the sections inside it.
        config: the whole configuration, from which the values are taken.
    """
    for name, field in type(section).model_fields.items():
        value: Any = getattr(section, name)
        if isinstance(value, Section):
            fill(value, config)
        elif value is None and (source := default_of(field)):
            setattr(section, name, reduce(getattr, source.split("."), config))
