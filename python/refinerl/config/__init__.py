"""Every knob, typed and validated; the defaults are the vetted setting.

Names are the paths that the command line takes: `constraint.beta=3e-4`. The sections `task`, `algorithm` and
`constraint` are the options of the class that their `name` means (`contracts.plugins`); `config.yaml` of a run holds
what they resolved to.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from refinerl.config.checkpoint import CheckpointConfig
from refinerl.config.checks import check
from refinerl.config.choice import DEFAULT as DEFAULT
from refinerl.config.choice import GROUP as GROUP
from refinerl.config.choice import AlgorithmConfig, ConstraintConfig, TaskConfig
from refinerl.config.critic import CriticConfig
from refinerl.config.deepspeed import check_deepspeed
from refinerl.config.defaults import fill
from refinerl.config.engines import EnginesConfig
from refinerl.config.evaluate import EvaluateConfig
from refinerl.config.generation import GenerationConfig
from refinerl.config.guard import GuardConfig
from refinerl.config.kernels import KernelsConfig
from refinerl.config.lora import LoraConfig
from refinerl.config.mismatch import MismatchConfig
from refinerl.config.plan import PlanConfig
from refinerl.config.refiner import RefinerConfig
from refinerl.config.reward_model import RewardModelConfig
from refinerl.config.sandbox import SandboxConfig
from refinerl.config.telemetry import TelemetryConfig
from refinerl.config.trainer import TrainerConfig
from refinerl.config.vllm import VllmConfig
from refinerl.contracts import plugins
from refinerl.contracts.options import ConstraintOptions, CountOrZero, Positive, Section


class Config(Section):
    """A whole run."""

    model: str = "smollm2-135m-instruct"
    """A hub id, a folder, or the bundled `smollm2-135m-instruct`. Policy, reference and refiner start from it."""
    chat_template: str | None = None
    """Jinja text or a file, for tokenizers that bring none."""
    seed: CountOrZero = 0
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = "auto"
    """`auto`, or a torch device."""
    device_memory: Positive | None = None
    """GiB of each GPU, for --dry-run alone. None: those of the GPU that is here, else plan.card_gib."""
    task: TaskConfig = Field(default_factory=dict, validate_default=True)
    reward_model: RewardModelConfig = RewardModelConfig()
    generation: GenerationConfig = GenerationConfig()
    algorithm: AlgorithmConfig = Field(default_factory=dict, validate_default=True)
    constraint: ConstraintConfig = Field(default_factory=dict, validate_default=True)
    constraints: tuple[ConstraintConfig, ...] = ()
    """Several, which add up: `[{name: dynamic, beta: 0.01}, {name: static, beta: 0.001}]`. They stand in the place of
    `constraint`."""
    refiner: RefinerConfig = RefinerConfig()
    trainer: TrainerConfig = TrainerConfig()
    critic: CriticConfig = CriticConfig()
    engines: EnginesConfig = EnginesConfig()
    deepspeed: dict[str, Any] = Field(default={})
    """DeepSpeed's own configuration, where engines.trainer=deepspeed: zero_optimization, bf16, … With dtype=bfloat16
    zero_optimization.stage is 1 unless it says 2 or 3."""
    vllm: VllmConfig = VllmConfig()
    lora: LoraConfig = LoraConfig()
    mismatch: MismatchConfig = MismatchConfig()
    kernels: KernelsConfig = KernelsConfig()
    sandbox: SandboxConfig = SandboxConfig()
    guard: GuardConfig = GuardConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    plan: PlanConfig = PlanConfig()

    @model_validator(mode="after")
    def _resolve(self) -> Config:
        fill(self, self)
        if self.reward_model.device == "auto":
            self.reward_model.device = self.device
        return self

    @model_validator(mode="after")
    def _check_deepspeed(self) -> Config:
        check_deepspeed(self)
        return self

    @model_validator(mode="after")
    def _check(self) -> Config:
        check(self)
        return self

    @property
    def held(self) -> tuple[ConstraintOptions, ...]:
        """The constraints: those of `constraints`, else the one of `constraint`."""
        return self.constraints or (self.constraint,)

    @property
    def refining(self) -> list[ConstraintOptions]:
        """Those of them that ask the refiner; at most one."""
        return [c for c in self.held if plugins.resolve("constraint", c.name).needs_refiner]

    @property
    def refines(self) -> bool:
        """Does a constraint ask the refiner."""
        return bool(self.refining)

    @property
    def on_dropped(self) -> bool:
        """Does a constraint also refine rollouts of the groups that dynamic sampling dropped."""
        return any(getattr(constraint, "on_dropped", False) for constraint in self.held)

    @property
    def accept(self) -> Literal["better", "all", "perfect"]:
        """Which refinements teach."""
        return next((getattr(c, "accept", "better") for c in self.held if hasattr(c, "accept")), "better")

    @property
    def accept_truncated(self) -> bool:
        """Whether refinements that were cut off teach."""
        return any(getattr(constraint, "accept_truncated", False) for constraint in self.held)

    @property
    def scored_by_model(self) -> bool:
        """Is the reward that of reward_model.model."""
        return "model" in self.task.rewards

    @property
    def needs_critic(self) -> bool:
        """Does the algorithm learn values."""
        return bool(plugins.resolve("algorithm", self.algorithm.name).needs_critic)
