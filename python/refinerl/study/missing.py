"""Optional packages: without them a study still has its runs and its table."""

from __future__ import annotations

import importlib
from typing import Any

from refinerl.errors import pip_install


class MissingError(Exception):
    """A package that is not installed. The message says what lacks it and how to install it."""


def find(module: str, what: str) -> Any:
    """Import a module of the extra `report`.

    Raises:
        MissingError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingError(
            f"{what} of a study cannot be made without {module}: {pip_install('jinja2', 'matplotlib')}, then run the "
            "same command again"
        ) from error
