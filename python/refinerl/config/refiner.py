"""The section `refiner`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from refinerl.contracts.options import Count, NonNegative, Section, derived


class RefinerConfig(Section):
    """How the frozen reference rewrites y."""

    temperature: NonNegative = 0.0
    max_tokens: Count = derived("generation.max_tokens")
    template: str | None = None
    """A file, or a name out of tasks/prompts; None: the task's own."""
    where: Literal["all", "unsolved", "beyond"] = "all"
    """Which y are refined: all that can be improved (the paper), those in groups in which no member has the highest
    reward, or those that no sibling outdoes."""
    budget: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the rollouts that are refined at most; groups without a signal come first."""
