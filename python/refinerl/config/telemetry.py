"""The section `telemetry`."""

from __future__ import annotations

from typing import Literal

from refinerl.contracts.options import Count, Section


class TelemetryConfig(Section):
    """What is measured and where it goes, beside metrics.jsonl."""

    kl_every: Count = 1
    """Steps between measurements of the KL to the reference; static measures it in each."""
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
