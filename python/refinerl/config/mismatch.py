"""The section `mismatch`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from refinerl.contracts.options import Reads, Section, When


class MismatchConfig(Section):
    """Correction for the difference between the engine's and the trainer's logprobs of the same tokens."""

    read_when = Reads(
        {
            "cap": When("mismatch.correction=token or sequence", lambda own, run: own.correction != "off"),
        }
    )

    correction: Literal["off", "token", "sequence"] = "off"
    """Weight the surrogate by min(π_old / π_engine, cap), per token or per response."""
    cap: Annotated[float, Field(ge=1)] = 2.0
    """Largest weight."""
