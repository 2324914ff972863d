"""The section `telemetry`."""

from __future__ import annotations

from typing import Literal

from refinerl.contracts.options import Count, Section


class TelemetryConfig(Section):
    """Measurements and trackers, in addition to metrics.jsonl."""

    kl_every: Count = 1
    """Steps between measurements of entropy and KL to the reference over all sampled responses, those of dropped groups
    included. A step in which no group was dropped also measures the entropy, and with the constraint static the KL."""
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    """Services that metrics are also sent to."""
