"""The section `telemetry`."""

from __future__ import annotations

from typing import Literal

from refinerl.contracts.options import Count, CountOrZero, Reads, Section, When


class TelemetryConfig(Section):
    """Measurements and trackers, in addition to metrics.jsonl."""

    read_when = Reads(
        dict.fromkeys(
            ("project", "run_name"),
            When(
                "telemetry.trackers=[wandb], [trackio] or [mlflow]",
                lambda own, run: bool({"wandb", "trackio", "mlflow"} & set(own.trackers)),
            ),
        )
        | {
            "completions": When("telemetry.trackers=[…]", lambda own, run: bool(own.trackers)),
            "completions_every": When(
                "telemetry.trackers=[…] and telemetry.completions above 0",
                lambda own, run: bool(own.trackers and own.completions),
            ),
        }
    )

    kl_every: Count = 1
    """Steps between measurements of entropy and KL to the reference over all sampled responses, those of dropped groups
    included. A step in which no group was dropped also measures the entropy, and with the constraint static the KL."""
    token_costs: CountOrZero = 4
    """Accepted refinements of a step, drawn at random, for which rollouts/ holds the logprob of every token of y and ỹ:
    the heat maps of the report. Each takes one row of a forward pass. 0: none."""
    trackers: tuple[Literal["tensorboard", "wandb", "trackio", "mlflow"], ...] = ()
    """Services that metrics and responses are also sent to. A resumed run continues what it began there."""
    project: str = "refinerl"
    """Project of the run in wandb and trackio; its experiment in mlflow."""
    run_name: str | None = None
    """Name of the run in wandb, trackio and mlflow. None: the last part of --output-dir."""
    completions: CountOrZero = 4
    """Responses of a step that are sent to the trackers, with their refinements; those with the greatest gain first."""
    completions_every: CountOrZero = 0
    """Steps between those whose responses are sent to the trackers. 0: a hundredth of trainer.steps."""
