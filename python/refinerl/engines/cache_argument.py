"""The name of the argument of a model that is its cache of keys and values; transformers 5.24 has renamed it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from torch import nn

NAMES = ("past_key_values", "cache")
"""Names before and since 5.24. A model that has both means something else by the later one."""


def cache_argument(model: nn.Module, store: Any) -> dict[str, Any]:
    """Return a cache as the argument of a model's `forward`; the earlier name costs a warning, and later an error."""
    kind: Any = type(model)  # which mypy does not take for hashable
    return {_name(kind, kind.forward): store}


@lru_cache
def _name(kind: type[nn.Module], forward: Callable[..., Any]) -> str:
    """Return the first name in the signatures of a class's `forward` and of those that it may hand its arguments on to.

    `forward` is the class's, which decides together with the class what is remembered.
    """
    for base in kind.__mro__:
        if "forward" in vars(base):
            parameters = inspect.signature(vars(base)["forward"]).parameters
            if found := next((name for name in NAMES if name in parameters), None):
                return found
    return NAMES[0]
