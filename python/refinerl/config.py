"""Every knob, typed and validated; the defaults are the vetted setting.

Names are the paths that the command line takes: `constraint.beta=3e-4`. The sections `algorithm` and `constraint` are
the options of the class that their `name` means (`contracts.plugins`); `config.yaml` of a run holds what they resolved
to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BeforeValidator,
    Field,
    SerializeAsAny,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)

from refinerl.contracts import plugins
from refinerl.contracts.options import (
    AlgorithmOptions,
    ConstraintOptions,
    Count,
    CountOrZero,
    Fraction,
    NonNegative,
    Options,
    Positive,
    Section,
)
from refinerl.errors import UserError

T = TypeVar("T")


def _default(value: T | None, default: T) -> T:
    return default if value is None else value


class TaskConfig(Section):
    """Where prompts and rewards come from."""

    name: str = "code"
    """`code`, `dialogue`, or `module:Class` of your own, which brings its own data and reward."""
    path: str | None = None
    """JSON lines, or for `code` APPS's folder per problem or `hub:OWNER/NAME/FILE`, for `dialogue` Parquet, a folder
    that `datasets` reads, or `hub:OWNER/NAME`; None: the embedded problem set (code only)."""
    reward: str | tuple[str, ...] = "adaptive"
    """`adaptive` (Eq. 8), `coarse` (Eq. 7); for dialogue `model` (reward_model.model), `rule:answer`, `rule:matches`;
    or `module:function` of your own, in TRL's signature. dialogue: several, as [a:b,c:d], are added up."""
    reward_weights: tuple[float, ...] = ()
    """dialogue: one for each reward; none: 1 each."""
    column: str | None = None
    """dialogue: where the prompts are; None: the first there is of prompt, context_messages, messages."""
    split: str = "train"
    """dialogue: which part of a data set that `datasets` reads."""
    max_prompt_tokens: Count | None = None
    """Longer prompts are left out and counted; None: those that leave no room for generation.max_tokens."""
    template: str | None = None
    """Question template: a file, or a name out of tasks/prompts; None: the task's own."""
    system: str | None = None
    """System message before each question."""
    max_tests: Count | None = None
    """Tests per problem at most, a deterministic choice."""
    difficulty: str | None = None
    """Only problems of this difficulty."""
    embedded: Literal["all", "trivial", "easy"] = "all"
    """Which of the embedded problems, where no path is given."""
    prompt_format: Literal["chat", "apps", "text"] = "chat"
    """code: the question in the template, or APPS's own text (`QUESTION: … ANSWER:`). dialogue: a prompt that is a text
    becomes a message of the user's, or (`text`) goes to the model as it is, and rewards get texts, as TRL has it."""
    options: dict[str, Any] = Field(default={})
    """Of a class of your own: its options, such as `task.options.split=train`."""

    @property
    def rewards(self) -> tuple[str, ...]:
        """The names of the rewards that are added up."""
        return (self.reward,) if isinstance(self.reward, str) else self.reward

    @field_validator("name")
    @classmethod
    def _exists(cls, name: str) -> str:
        _class("task", name)
        return name

    @field_validator("options")
    @classmethod
    def _options(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        name = info.data.get("name", "")
        if name.startswith(plugins.OBJECT) or not name:
            return options
        if ":" not in name:
            if options:
                raise ValueError(f"task.options must be left out for task.name={name}, whose knobs are task.path, …")
            return {}
        dumped: dict[str, Any] = _class("task", name).Options.model_validate(options).model_dump(mode="json")
        return dumped


class RewardModelConfig(Section):
    """dialogue: the model that scores, for task.reward=model."""

    model: str | None = None
    """A hub id or a folder: AutoModelForSequenceClassification with one label, or OpenRLHF's layout."""
    device: str = "auto"
    """`auto`: the run's; or a torch device of its own."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """None: the run's."""
    batch: Count = 8
    """Conversations that go through it at once."""
    max_length: Count | None = None
    """Tokens of a conversation; longer ones are cut at their start. None: the model's context."""
    normalize: bool | None = None
    """(score − mean) / std, both from its config.json. None: where it has them."""
    chat_template: str | None = None
    """Jinja text or a file, for tokenizers that bring none."""


class GenerationConfig(Section):
    """How the policy samples y."""

    max_tokens: Count = 512
    temperature: Positive = 1.0
    stop: tuple[str, ...] = ()
    max_batch: Count = 32
    """Samples that transformers generates at once; for vLLM see vllm.max_num_seqs."""


def _class(kind: plugins.Kind, name: str) -> type[Any]:
    """The class that a name means; pydantic reports a ValueError with the key."""
    try:
        return plugins.resolve(kind, name)
    except UserError as error:
        raise ValueError(str(error)) from None


DEFAULT = {"algorithm": "dapo", "constraint": "dynamic"}
"""The part of each kind where a recipe names none."""


def _chosen(kind: plugins.Kind, given: Any) -> Any:
    """The section as the options of the class that it names.

    A key that only another built-in part has is checked and then left out: recipes are laid over each other, and a
    `config.yaml` of an earlier version holds the knobs of all parts.
    """
    if not isinstance(given, Mapping):
        return given
    name = given.get("name") or DEFAULT[kind]
    if not isinstance(name, str):
        raise ValueError(f"{kind}.name must be a name, got {name!r}")
    found = _class(kind, name)
    model: type[Options] = found.Options
    if name.startswith(plugins.OBJECT):
        model = type(model.__name__, (model,), {"model_config": {"extra": "allow"}})
    own: dict[str, Any] = {}
    for key, value in given.items():
        other = None if key in model.model_fields or key == "options" else _of_another(kind, key)
        if other is None:
            own[key] = value
        elif value is not None:
            _check(kind, other, key, value)
    options = model.model_validate({**own, "name": name})
    if isinstance(options, AlgorithmOptions) and getattr(found, "grouped", False) and options.samples_per_prompt < 2:
        if "samples_per_prompt" in options.model_fields_set:
            raise ValueError(
                f"algorithm.samples_per_prompt must be at least 2 for {name}, which compares the members of a group, "
                f"got {options.samples_per_prompt}"
            )
        options.samples_per_prompt = GROUP
    return options


GROUP = 8
"""Responses to a prompt where an algorithm compares them and nobody says how many."""


def _of_another(kind: plugins.Kind, key: str) -> type[Options] | None:
    """The options of a built-in part that have the key."""
    models: list[type[Options]] = [plugins.resolve(kind, name).Options for name in plugins.names(kind)]
    return next((model for model in models if key in model.model_fields), None)


def _check(kind: plugins.Kind, model: type[Options], key: str, value: Any) -> None:
    field = model.model_fields[key]
    definition: dict[str, Any] = {key: (field.annotation, field)}
    one = create_model("One", __base__=Section, **definition)
    one.model_validate({key: value})


def _algorithm(given: Any) -> Any:
    return _chosen("algorithm", given)


def _constraint(given: Any) -> Any:
    return _chosen("constraint", given)


AlgorithmConfig = Annotated[SerializeAsAny[AlgorithmOptions], BeforeValidator(_algorithm)]
ConstraintConfig = Annotated[SerializeAsAny[ConstraintOptions], BeforeValidator(_constraint)]


class RefinerConfig(Section):
    """How the frozen reference rewrites y."""

    temperature: NonNegative = 0.0
    max_tokens: Count | None = None
    """None: generation.max_tokens."""
    template: str | None = None
    """A file, or a name out of tasks/prompts; None: the task's own."""


class TrainerConfig(Section):
    """Batches and the optimizer."""

    steps: Count = 100
    """Batches of rollouts; they end the run."""
    epochs: Count | None = None
    """Passes over the prompts at most; None: as many as the steps need."""
    batch: Count = 64
    """Rollouts per step."""
    minibatch: Count | None = None
    """Rollouts per optimizer step; None: batch."""
    micro_batch: Count | None = None
    """Rows that go through the model at once, at most; None: as many as micro_batch_tokens allows."""
    micro_batch_tokens: Count = 4096
    """Tokens, padding included, that go through the model at once; a longer row goes alone."""
    learning_rate: Positive = 1e-6
    weight_decay: NonNegative = 0.0
    betas: tuple[Fraction, Fraction] = (0.9, 0.95)
    warmup: Fraction = 0.03
    """Share of the optimizer steps over which the learning rate rises."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    min_learning_rate: Fraction = 0.1
    """Where the schedule ends, as a share of learning_rate."""
    max_grad_norm: Positive = 1.0
    gradient_checkpointing: bool = False

    @model_validator(mode="after")
    def _resolve(self) -> TrainerConfig:
        self.minibatch = _default(self.minibatch, self.batch)
        if self.batch % self.minibatch:
            raise ValueError(f"trainer.minibatch must divide trainer.batch = {self.batch}, got {self.minibatch}")
        return self


class CriticConfig(Section):
    """PPO's value model."""

    model: str | None = None
    """None: initialised from the policy, with a zero scalar head."""
    learning_rate: Positive = 9e-6


class EnginesConfig(Section):
    """What generates and what trains, in one process or in many."""

    generator: Literal["transformers", "vllm"] = "transformers"
    """transformers: in this process, on the trainer's own weights; vllm: an engine with weights of its own."""
    trainer: Literal["torch", "deepspeed"] = "torch"
    """torch: one process; deepspeed: one or many, started by torchrun or DeepSpeed's launcher."""
    timeout: Positive = 1800.0
    """Seconds that ranks wait for each other before the run ends: more than the longest phase of a step."""
    tf32: bool = True
    """On a GPU float32 products round their factors to TF32's 11 bits, which is faster; false: all 24."""
    offload_reference: bool = False
    """Keep the frozen reference in the host's memory while nobody uses it."""


class KernelsConfig(Section):
    """Which implementation of the fused cross-entropy runs."""

    impl: Literal["auto", "cuda", "cpu", "torch"] = "auto"


class SandboxConfig(Section):
    """Limits for each test of a program."""

    workers: Count | None = None
    """None: the cores."""
    wall_seconds: Positive = 4.0
    cpu_seconds: Positive = 4.0
    memory_mb: Count = 512
    output_kb: Count = 1024
    require: Literal["best_effort", "full"] = "best_effort"
    """full: refuse to start where a protection is missing."""
    packages: tuple[str, ...] = ()
    """Installed packages that programs may import beside the standard library, such as numpy."""


class VllmConfig(Section):
    """vLLM's engines, where engines.generator=vllm."""

    tensor_parallel: Count = 1
    """Ranks that share an engine."""
    memory_policy: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the device's memory for the policy's engine. None: 0.3; on a CPU a cache of 1 GiB."""
    memory_refiner: Annotated[float, Field(gt=0, le=1)] | None = None
    """The same for the refiner's engine; a LoRA policy has one engine for both."""
    max_model_len: Annotated[int, Field(ge=2)] | None = None
    """Tokens of prompt and completion that fit; None: the model's."""
    max_num_seqs: Count = 256
    """Completions that an engine writes at a time, as far as its cache holds them. More give more tokens a second, and
    take memory from the cache: rows × vocabulary × 4 bytes for each of a few tensors."""
    enforce_eager: bool = False
    """No CUDA graphs: starts faster, generates slower. Always so on a CPU."""
    sleep: bool = True
    """Free the engines' memory while they wait, where the device can; a CPU cannot."""
    prefix_caching: bool = True
    """Compute a prompt once for all its samples."""
    speculate: CountOrZero = 0
    """dynamic: tokens that the refiner's engine guesses at a time by copying from its prompt; 0 is off, 8 a start."""

    @model_validator(mode="after")
    def _resolve(self) -> VllmConfig:
        shares = (self.memory_policy or 0.0) + (self.memory_refiner or 0.0)
        if shares > 1 and not self.sleep:
            raise ValueError(
                f"vllm.memory_policy and vllm.memory_refiner must sum to at most 1, got {shares:g}: with "
                "vllm.sleep=false both engines keep their memory, and 0.3 each leaves the trainer the rest"
            )
        return self


class LoraConfig(Section):
    """An adapter that learns in the place of the policy's weights; reference and refiner are then the same model."""

    rank: CountOrZero = 0
    """0: all weights learn."""
    alpha: Count | None = None
    """The adapter's scale times its rank. None: twice the rank."""
    dropout: float = 0.0
    """Only 0."""
    targets: tuple[str, ...] = ()
    """Names of linear layers, such as q_proj; none: all but the head."""
    merge: bool = False
    """Write final/merged too, the model with the adapter added to its weights."""

    @model_validator(mode="after")
    def _resolve(self) -> LoraConfig:
        self.alpha = _default(self.alpha, 2 * max(self.rank, 1))
        if self.dropout:
            raise ValueError(
                f"lora.dropout must be 0, got {self.dropout:g}: the ratio of two forward passes would compare masks"
            )
        if self.merge and not self.rank:
            raise ValueError("lora.merge must be false where lora.rank is 0: there is no adapter to merge")
        return self


class MismatchConfig(Section):
    """Engine and trainer disagree a little on the logprobs of the same tokens."""

    correction: Literal["off", "token", "sequence"] = "off"
    """Weigh the surrogate by min(π_old / π_engine, cap), of each token or of each whole response."""
    cap: Annotated[float, Field(ge=1)] = 2.0


class GuardConfig(Section):
    """When a run ends itself."""

    max_skipped: Count = 5
    """Optimizer steps in a row that were skipped for a loss or gradient that is not finite."""
    max_idle: Count = 5
    """Steps at the run's start without any optimizer step, because no response taught anything."""
    max_sandbox_errors: Fraction = 0.01
    """Share of a batch that our own sandbox may fail."""


class CheckpointConfig(Section):
    """When to save."""

    every: Count = 50
    """Steps between checkpoints; the last step always has one."""
    keep: Count = 2
    """Older ones are removed."""


class EvaluateConfig(Section):
    """A benchmark between the steps; the checkpoint with the best pass@1 is kept."""

    every: CountOrZero = 0
    """Steps between evaluations; 0: none."""
    benchmark: Literal["humaneval", "humaneval+", "mbpp", "mbpp+", "apps"] = "humaneval+"
    data: str | None = None
    """Folder with the benchmark's files (for apps also a file, or hub:OWNER/NAME/FILE); None: as published."""
    limit: Count | None = None
    """The first tasks only."""
    n: Count = 1
    """Samples of each task."""
    temperature: NonNegative = 0.0
    """0 is greedy."""
    max_tokens: Count = 512
    prompting: Literal["completion", "chat"] = "chat"


class TelemetryConfig(Section):
    """What is measured and where it goes, beside metrics.jsonl."""

    kl_every: Count = 1
    """Steps between measurements of the KL to the reference; static measures it in each."""
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()


OURS_IN_DEEPSPEED = {
    "train_batch_size": "trainer.batch and trainer.minibatch",
    "train_micro_batch_size_per_gpu": "trainer.micro_batch or trainer.micro_batch_tokens",
    "gradient_accumulation_steps": "trainer.minibatch and trainer.micro_batch_tokens, whose quotient it is",
    "managed_gradient_accumulation": "trainer.minibatch and trainer.micro_batch_tokens",
    "gradient_clipping": "trainer.max_grad_norm",
    "optimizer": "trainer.learning_rate, trainer.betas and trainer.weight_decay",
    "scheduler": "trainer.schedule, trainer.warmup and trainer.min_learning_rate",
    "fp16": "deepspeed.bf16.enabled=true",
    "amp": "deepspeed.bf16.enabled=true",
}
"""Keys of DeepSpeed's configuration that the recipe says elsewhere, and where."""


class PlanConfig(Section):
    """The machine that a recipe is written for, which `--dry-run` counts with where it sees none. No run reads it."""

    gpus: Count | None = None
    """GPUs, one for each rank. None: as many as ranks were started, or one."""
    card: str | None = None
    """A GPU's name."""
    card_gib: Positive | None = None
    """And its memory."""


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
    task: TaskConfig = TaskConfig()
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
    def _check_deepspeed(self) -> Config:
        for key in self.deepspeed:
            if key in OURS_IN_DEEPSPEED:
                raise ValueError(f"deepspeed.{key} must be left out: use {OURS_IN_DEEPSPEED[key]}")
        for key in ("bf16", "data_types"):
            if not isinstance(given := self.deepspeed.get(key, {}), dict):
                example = {"bf16": "enabled=true", "data_types": "grad_accum_dtype=fp32"}[key]
                raise ValueError(
                    f"deepspeed.{key} must hold keys of its own, as deepspeed.{key}.{example}, got {given!r}"
                )
        zero = self.deepspeed.get("zero_optimization", {})
        stage = zero.get("stage", 0) if isinstance(zero, dict) else None
        if stage not in (0, 1, 2, 3):
            raise ValueError(f"deepspeed.zero_optimization.stage must be 0, 1, 2 or 3, got {stage!r}")
        bf16 = self.deepspeed.get("bf16", {})
        if stage == 0 and isinstance(bf16, dict) and bf16.get("enabled"):
            raise ValueError("deepspeed.zero_optimization.stage must be 1, 2 or 3 with deepspeed.bf16, got 0")
        # Of a LoRA policy the adapter is float32, but a critic learns whole.
        whole = not self.lora.rank or self.needs_critic
        if self.engines.trainer == "deepspeed" and self.dtype == "bfloat16" and stage == 0 and whole:
            if "stage" in zero:
                raise ValueError(
                    "deepspeed.zero_optimization.stage must be 1, 2 or 3 with dtype=bfloat16, got 0: there DeepSpeed "
                    "keeps no float32 weights, and small steps would be lost"
                )
            self.deepspeed = {**self.deepspeed, "zero_optimization": {**zero, "stage": 1}}
        if self.dtype == "bfloat16" and isinstance(bf16, dict) and not bf16.get("enabled", True):
            raise ValueError(
                "deepspeed.bf16.enabled must be true or left out with dtype=bfloat16, got false: gradients that are "
                "not finite would be taken for good ones"
            )
        if self.engines.offload_reference and self.lora.rank:
            raise ValueError(
                "engines.offload_reference must be false where lora.rank is above 0: the reference is the policy's own "
                "model without its adapter"
            )
        if self.engines.offload_reference and self.engines.generator == "vllm" and stage == 3:
            raise ValueError(
                "engines.offload_reference must be false where ZeRO-3 spreads the reference, as it does with "
                "engines.generator=vllm: deepspeed.zero_optimization.offload_param.device=cpu keeps it on the host"
            )
        return self

    @model_validator(mode="after")
    def _resolve(self) -> Config:
        self.refiner.max_tokens = _default(self.refiner.max_tokens, self.generation.max_tokens)
        samples = self.algorithm.samples_per_prompt
        if self.trainer.batch % samples:
            raise ValueError(
                f"trainer.batch must be a multiple of algorithm.samples_per_prompt = {samples}, "
                f"got {self.trainer.batch}"
            )
        cache = getattr(self.algorithm, "overlong_cache", 0)
        if cache >= self.generation.max_tokens:
            raise ValueError(
                f"algorithm.overlong_cache must be less than generation.max_tokens = {self.generation.max_tokens}, "
                f"got {cache}"
            )
        if self.evaluate.n > 1 and self.evaluate.temperature == 0:
            raise ValueError(
                "evaluate.temperature must be above 0 for evaluate.n above 1: greedy samples are all alike"
            )
        self._check_reward()
        self._check_constraints()
        own_engine = self.engines.generator == "vllm" and self.refines and not self.lora.rank
        if self.vllm.speculate and not own_engine:
            raise ValueError(
                f"vllm.speculate must be 0 unless the refiner has a vLLM engine of its own, got {self.vllm.speculate}: "
                "it needs engines.generator=vllm, constraint.name=dynamic and lora.rank=0"
            )
        if self.vllm.speculate and self.refiner.temperature > 0:
            raise ValueError(
                f"vllm.speculate must be 0 where the refiner samples, got {self.vllm.speculate}: guesses would change "
                "which tokens a seed draws; refiner.temperature=0 may speculate"
            )
        if self.on_dropped and not getattr(self.algorithm, "dynamic_sampling", False):
            raise ValueError("constraint.on_dropped must be false unless dapo's dynamic sampling drops groups")
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
    def scored_by_model(self) -> bool:
        """Is the reward that of reward_model.model."""
        return "model" in self.task.rewards and ":" not in self.task.name

    @property
    def needs_critic(self) -> bool:
        """Does the algorithm learn values."""
        return bool(plugins.resolve("algorithm", self.algorithm.name).needs_critic)

    def _check_constraints(self) -> None:
        if len(self.refining) > 1:
            names = " and ".join(c.name for c in self.refining)
            raise ValueError(f"constraints must hold at most one that refines, got {names}")
        if len({c.penalty_in_group for c in self.held if c.apply == "reward"}) > 1:
            raise ValueError("constraints that apply in the reward must have the same penalty_in_group")

    def _check_reward(self) -> None:
        task, perfect = self.task, self.accept == "perfect"
        if ":" in task.name:  # its reward is its own, and so is its highest
            return
        if task.name == "dialogue":
            if task.path is None:
                raise ValueError(
                    "task.path must be given for task.name=dialogue: JSON lines with a `prompt` column, or a data set"
                )
            if wrong := [name for name in task.rewards if name != "model" and ":" not in name]:
                raise ValueError(
                    f"task.reward must be model, rule:NAME or module:function for task.name=dialogue, got {wrong[0]!r}"
                )
        elif len(task.rewards) != 1 or (task.rewards[0] not in ("adaptive", "coarse") and ":" not in task.rewards[0]):
            raise ValueError(f"task.reward must be adaptive, coarse or module:function, got {task.reward!r}")
        if task.name == "code" and (task.reward_weights or task.prompt_format == "text"):
            raise ValueError("task.reward_weights and task.prompt_format=text are for task.name=dialogue, not for code")
        if not task.rewards:
            raise ValueError("task.reward must name at least one reward, got none")
        if task.reward_weights and len(task.reward_weights) != len(task.rewards):
            raise ValueError(
                f"task.reward_weights must have one weight for each reward: {len(task.rewards)}, "
                f"got {len(task.reward_weights)}"
            )
        if "model" in task.rewards and self.reward_model.model is None:
            raise ValueError("reward_model.model must be given for task.reward=model: a hub id or a folder")
        bounded = all(name in ("adaptive", "coarse") or name.startswith("rule:") for name in task.rewards)
        if perfect and not (bounded and all(weight >= 0 for weight in task.reward_weights)):
            raise ValueError("constraint.accept must be better or all where the reward has no known highest value")
