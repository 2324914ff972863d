"""The section `telemetry`."""

from __future__ import annotations

from typing import Literal

from refinerl.contracts.options import Count, Section


class TelemetryConfig(Section):
    """Measurements and trackers, in addition to metrics.jsonl."""

    kl_every: Count = 1
    """Steps between measurements of the KL to the reference. The constraint static measures it in every step."""
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    """Services that metrics are also sent to."""
