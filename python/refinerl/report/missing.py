"""The packages of the extra `report`, without which the rest works."""

from __future__ import annotations

import importlib
from typing import Any

from refinerl.errors import UserError, pip_install


class MissingError(UserError):
    """A package is not installed. The message says what cannot be made without it, and how to install it."""


def find(module: str, what: str) -> Any:
    """Import a module of the extra `report`, without which `what` (in the plural) cannot be made.

    Raises:
        MissingError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingError(
            f"{what} need {module} of the extra `report`, which is not installed: "
            f"{pip_install('jinja2', 'matplotlib')}, then run the same command again"
        ) from error
