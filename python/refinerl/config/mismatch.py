"""The section `mismatch`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from refinerl.contracts.options import Section


class MismatchConfig(Section):
    """Engine and trainer disagree a little on the logprobs of the same tokens."""

    correction: Literal["off", "token", "sequence"] = "off"
    """Weigh the surrogate by min(π_old / π_engine, cap), of each token or of each whole response."""
    cap: Annotated[float, Field(ge=1)] = 2.0
