"""The line that describes a run, from its configuration."""

from __future__ import annotations

from pathlib import Path

import yaml

from refinerl.errors import UserError


def subject(path: Path, config: str) -> str:
    """Describe a run in one line, from the text of its config.yaml.

    Raises:
        UserError: the text is not a run's configuration.
    """
    try:
        values = yaml.safe_load(config)
        alone = values["constraint"]
        held = values.get("constraints") or [alone]
        words = [
            c["name"] if c["name"] == "none" else f"{c['name']} in the {c['apply']}, β = {c['beta']:g}" for c in held
        ]
        return f"{_label(values['algorithm']['name'])} on {values['model']}, constraint {' and '.join(words)}"
    except (yaml.YAMLError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is not the configuration of a run: {error}") from error


def _label(algorithm: str) -> str:
    """Name an algorithm: built-in names are acronyms, a plug-in is named by its class."""
    return algorithm.upper() if ":" not in algorithm else algorithm.rpartition(":")[2]
