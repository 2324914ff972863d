"""The section `refiner`."""

from __future__ import annotations

from refinerl.contracts.options import Count, NonNegative, Section, derived


class RefinerConfig(Section):
    """How the frozen reference rewrites y."""

    temperature: NonNegative = 0.0
    max_tokens: Count = derived("generation.max_tokens")
    template: str | None = None
    """A file, or a name out of tasks/prompts; None: the task's own."""
