"""All knobs of a run, typed and validated. The defaults are the tested setting.

A knob is named as on the command line: `constraint.beta=3e-4`. The sections `task`, `algorithm` and `constraint` hold
the options of the class that their `name` refers to (`contracts.plugins`). A run's `config.yaml` holds the resolved
values.

Each section has a file of its own. `choice` selects the options of a class, `defaults` fills in defaults that follow
from other knobs, and `checks` refuses knobs that contradict each other.
"""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from refinerl.config.checkpoint import CheckpointConfig
from refinerl.config.checks import check
from refinerl.config.choice import DEFAULT as DEFAULT
from refinerl.config.choice import GROUP as GROUP
from refinerl.config.choice import AlgorithmConfig, ConstraintConfig, TaskConfig
from refinerl.config.conditions import PLANNED, RANKS
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
from refinerl.contracts.options import (
    ConstraintOptions,
    CountOrZero,
    ModelPath,
    Positive,
    Reads,
    Section,
    TemplatePath,
    When,
)


class Config(Section):
    """The configuration of a run."""

    read_when = Reads(
        {
            "device_memory": PLANNED,
            "deepspeed": RANKS,
            "constraint": When("constraints=[]", lambda own, run: not run.constraints),
        }
    )

    model: ModelPath = "smollm2-135m-instruct"
    """Hub id, folder, or a bundled model: `miniature`, `miniature-far` or `smollm2-135m-instruct`. Policy, reference
    and refiner start from it."""
    chat_template: TemplatePath | None = None
    """Jinja template, as text or as a file. None: the tokenizer's own."""
    chat_template_date: datetime.date | None = None
    """Date, such as 2026-01-31, for templates that print the current one, such as Llama 3.2's. None: the date on which
    the run starts; a resumed run keeps it."""
    seed: Annotated[CountOrZero, Field(lt=2**63)] = 0
    """Seed of all random choices."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type in which the models compute; in bfloat16, weights that are trained are kept in float32 as well."""
    device: str = "auto"
    """A torch device such as `cuda:1`, or `auto`: the GPU if there is one, else the CPU."""
    device_memory: Positive | None = None
    """GiB of memory of each GPU, for --dry-run only. None: that of the GPU found here, else plan.card_gib."""
    task: TaskConfig = Field(default_factory=dict, validate_default=True)
    reward_model: RewardModelConfig = RewardModelConfig()
    generation: GenerationConfig = GenerationConfig()
    algorithm: AlgorithmConfig = Field(default_factory=dict, validate_default=True)
    constraint: ConstraintConfig = Field(default_factory=dict, validate_default=True)
    constraints: tuple[ConstraintConfig, ...] = ()
    """Several constraints, which are added up and replace `constraint`:
    `[{name: dynamic, beta: 0.01}, {name: static, beta: 0.001}]`."""
    refiner: RefinerConfig = RefinerConfig()
    trainer: TrainerConfig = TrainerConfig()
    critic: CriticConfig = CriticConfig()
    engines: EnginesConfig = EnginesConfig()
    deepspeed: dict[str, Any] = Field(default={})
    """DeepSpeed's own configuration, used with engines.trainer=deepspeed: zero_optimization, bf16, … With
    dtype=bfloat16, zero_optimization.stage defaults to 1."""
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
        if getattr(self.evaluate, "benchmark", None) is None:
            self.evaluate.benchmark = "humaneval+" if self.evaluate.path is None else "task"
        if not self.evaluate.max_tokens:
            self.evaluate.max_tokens = self.generation.max_tokens if self.evaluate.benchmark == "task" else 512
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
        """The constraints in force: `constraints` if any are given, else `constraint`."""
        return self.constraints or (self.constraint,)

    @property
    def refining(self) -> list[ConstraintOptions]:
        """The constraints in force that make refinements; at most one."""
        classes = [plugins.resolve("constraint", c.name) for c in self.held]
        return [c for c, of in zip(self.held, classes, strict=True) if of.needs_refiner or of.makes_refinements]

    @property
    def refines(self) -> bool:
        """True if a constraint or a probe asks the refiner's model."""
        return self.refiner.probe or any(plugins.resolve("constraint", c.name).needs_refiner for c in self.held)

    @property
    def rewrites(self) -> bool:
        """True if the refiner is asked to rewrite responses; `fresh` asks its model for new answers instead."""
        asking = [c.name for c in self.held if plugins.resolve("constraint", c.name).needs_refiner]
        return self.refiner.probe or any(name != "fresh" for name in asking)

    @property
    def probing(self) -> bool:
        """True if the refiner is measured beside the constraints, none of which measures it itself."""
        return self.refiner.probe and not any(plugins.resolve("constraint", c.name).measures_refiner for c in self.held)

    @property
    def refiner_apart(self) -> bool:
        """True if the refiner is a model of its own in this process, not the policy with or without its adapter."""
        source = self.refiner.source
        return self.refines and (source == "model" or (source == "reference" and not self.lora.rank))

    @property
    def no_drafts(self) -> str | None:
        """The reason why the refiner cannot use drafts although it rewrites responses in this process, or None."""
        if not self.rewrites or self.refiner.source == "server" or self.engines.generator != "vllm":
            return None
        if self.refiner.temperature > 0:
            return (
                "vLLM would draw other tokens from the same seeds; refiner.temperature=0 or "
                "engines.generator=transformers can use drafts"
            )
        if not self.refiner_apart:
            return (
                "policy and refiner share a vLLM engine, and guessing would slow down the policy's; a refiner.model or "
                "engines.generator=transformers can use drafts"
            )
        return None

    @property
    def drafts(self) -> int:
        """Most tokens of y that are verified at once: `refiner.drafts`, or 0 where the refiner cannot use drafts."""
        usable = self.rewrites and self.refiner.source != "server" and self.no_drafts is None
        return self.refiner.drafts if usable else 0

    @property
    def on_dropped(self) -> bool:
        """True if rollouts of groups that dynamic sampling dropped are refined as well."""
        return any(getattr(constraint, "on_dropped", False) for constraint in self.held)

    @property
    def accept(self) -> Literal["better", "all", "perfect"]:
        """The rule by which refinements are accepted."""
        return next((getattr(c, "accept", "better") for c in self.held if hasattr(c, "accept")), "better")

    @property
    def accept_truncated(self) -> bool:
        """True if truncated refinements are accepted."""
        return any(getattr(constraint, "accept_truncated", False) for constraint in self.held)

    @property
    def scored_by_model(self) -> bool:
        """True if reward_model.model scores the responses."""
        return "model" in self.task.rewards

    @property
    def judges_programs(self) -> bool:
        """True if the sandbox judges the responses."""
        return self.task.name == "code" and self.task.bounded

    @property
    def grouped(self) -> bool:
        """True if the algorithm compares the responses to a prompt, or is a class of the user's, which may do so."""
        name = self.algorithm.name
        return ":" in name or bool(plugins.resolve("algorithm", name).grouped)

    @property
    def needs_critic(self) -> bool:
        """True if the algorithm trains a value model."""
        return bool(plugins.resolve("algorithm", self.algorithm.name).needs_critic)
