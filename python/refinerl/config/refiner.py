"""The section `refiner`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from refinerl.contracts.options import Count, NonNegative, Section, derived


class RefinerConfig(Section):
    """Generation of refinements ỹ by the frozen reference."""

    temperature: NonNegative = 0.0
    """Sampling temperature; 0 is greedy decoding."""
    max_tokens: Count = derived("generation.max_tokens")
    """Maximum tokens of a refinement."""
    template: str | None = None
    """Prompt template: a file, or a name in tasks/prompts. None: the task's own."""
    where: Literal["all", "unsolved", "beyond"] = "all"
    """Rollouts to refine: all that can be improved (as in the paper); those in groups without a response of the
    highest reward; or those that no other response to the prompt surpasses."""
    budget: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Maximum share of the rollouts that are refined. Groups without a training signal come first."""
