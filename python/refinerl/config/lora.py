"""The section `lora`."""

from __future__ import annotations

from pydantic import model_validator

from refinerl.contracts.options import Count, CountOrZero, Section, derived


class LoraConfig(Section):
    """An adapter that learns in the place of the policy's weights; reference and refiner are then the same model."""

    rank: CountOrZero = 0
    """0: all weights learn."""
    alpha: Count = derived("2 × lora.rank")
    """The adapter's scale times its rank."""
    dropout: float = 0.0
    """Only 0."""
    targets: tuple[str, ...] = ()
    """Names of linear layers, such as q_proj; none: all but the head."""
    merge: bool = False
    """Write final/merged too, the model with the adapter added to its weights."""

    @model_validator(mode="after")
    def _resolve(self) -> LoraConfig:
        if "alpha" not in self.model_fields_set:
            self.alpha = 2 * max(self.rank, 1)
        if self.dropout:
            raise ValueError(
                f"lora.dropout must be 0, got {self.dropout:g}: the ratio of two forward passes would compare masks"
            )
        if self.merge and not self.rank:
            raise ValueError("lora.merge must be false where lora.rank is 0: there is no adapter to merge")
        return self
