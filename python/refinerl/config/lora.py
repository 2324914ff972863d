"""The section `lora`."""

from __future__ import annotations

from pydantic import model_validator

from refinerl.contracts.options import Count, CountOrZero, Reads, Section, When, derived


class LoraConfig(Section):
    """A LoRA adapter for the policy. The same weights without the adapter serve as reference and refiner."""

    read_when = Reads(
        dict.fromkeys(
            ("alpha", "dropout", "targets", "merge"),
            When("lora.rank above 0, such as lora.rank=16", lambda own, run: own.rank > 0),
        )
    )

    rank: CountOrZero = 0
    """Rank of the adapter. 0: no adapter, all weights are trained."""
    alpha: Count = derived("2 × lora.rank")
    """LoRA's alpha: the adapter is scaled by alpha / rank."""
    dropout: float = 0.0
    """Must be 0: PPO's ratio compares two forward passes."""
    targets: tuple[str, ...] = ()
    """Names of the linear layers to adapt, such as q_proj. Empty: all but the head."""
    merge: bool = False
    """Also write final/merged, the model with the adapter merged into its weights."""

    @model_validator(mode="after")
    def _resolve(self) -> LoraConfig:
        if "alpha" not in self.model_fields_set:
            self.alpha = 2 * max(self.rank, 1)
        if self.dropout:
            raise ValueError(
                f"lora.dropout must be 0, got {self.dropout:g}: the ratio of two forward passes would compare masks"
            )
        if self.merge and not self.rank:
            raise ValueError("lora.merge must be false if lora.rank is 0: there is no adapter to merge")
        return self
