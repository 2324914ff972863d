"""The Protocol of a tracker, and the optional package that one needs."""

from __future__ import annotations

import contextlib
import importlib.util
import netrc
import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

from refinerl.errors import UserError, pip_install
from refinerl.run.trackers.examples import Example


class Tracker(Protocol):
    """A service that metrics and responses are also sent to. Steps come in their order."""

    name: str
    takes_earlier: bool
    """True if it keeps what is sent for a step after a later one."""

    def lacks(self, step: int) -> bool:
        """Return True if a step before this start of the run is to be sent now."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Send one step's metrics, without those that have no value."""

    def tell(self, examples: Sequence[Example], step: int) -> None:
        """Send responses of a step, after its metrics."""

    def close(self, *, failed: bool) -> None:
        """Send what is pending. `failed` is True if the run ends with an error or is interrupted."""


def module(name: str, package: str) -> Any:
    """Import a tracker's module.

    Raises:
        UserError: its package is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"telemetry.trackers asks for {package}, which is not installed: {pip_install(package)}"
        ) from error


def why_not(name: str) -> str | None:
    """Return the reason for which a tracker would not start on this machine; None if none is known."""
    if importlib.util.find_spec(name) is None:
        return f"which is not installed: {pip_install(name)}"
    offline = os.environ.get("WANDB_MODE", "") in ("offline", "disabled", "dryrun")
    if name != "wandb" or offline or "WANDB_API_KEY" in os.environ:
        return None
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    for place in (os.environ.get("NETRC", "~/.netrc"), "~/_netrc"):
        with contextlib.suppress(OSError, netrc.NetrcParseError):
            if netrc.netrc(os.path.expanduser(place)).authenticators(host or "") is not None:
                return None
    return "for which no login is found: `wandb login`, or WANDB_MODE=offline in the environment"


def cannot_start(name: str, error: Exception, remedy: str) -> UserError:
    """Make the error of a tracker that cannot start, from the first line of its own error's message."""
    reason = next(iter(str(error).strip().split("\n")), "") or type(error).__name__
    return UserError(f"telemetry.trackers={name} cannot start: {reason}; {remedy}")
