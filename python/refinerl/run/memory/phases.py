"""The memory of each phase of a run, on each GPU and on the host."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from refinerl.engines.guesses import LOGITS
from refinerl.run.memory.learning import OnHost, Training, held, on_host
from refinerl.run.memory.passing import Pass, gathered, logits, reading, staying
from refinerl.run.memory.shapes import Shape

GIB = 2**30
ROOM = 0.95
"""Share of a card that a plan may fill; the rest is for fragmentation. An assumption, as are the next three."""
CONTEXT = GIB
"""Bytes of a GPU that hold no tensors: CUDA's context, and the workspaces of NCCL and cuBLAS."""
ASLEEP = GIB // 2
"""Bytes that a sleeping vLLM engine keeps: CUDA graphs, and memory outside its pool."""
ENGINE = 3 * GIB // 2
"""Bytes that an active vLLM engine needs in addition to weights, cache and sampler."""

AHEAD = 4
"""Divisor of the cache that gives what prompts may have which are computed ahead, as in `engines.transformers`."""


@dataclass(frozen=True)
class Run:
    """The properties of a run that determine its memory."""

    policy: Shape
    training: Training
    tokens: int
    """Maximum tokens of a micro-batch: number of rows times the longest row, or those of a tree."""
    row: int
    """Tokens of the longest row."""
    written: int
    """Maximum tokens of a completion."""
    generator: Literal["transformers", "vllm"] = "transformers"
    rows: int = 32
    """Completions that transformers generates at once."""
    guesses: int = 0
    """Most tokens of a refinement that are guessed at a time."""
    critic: Shape | None = None
    reward: Shape | None = None
    reward_width: int = 2
    """Bytes per weight of the reward model."""
    reward_rows: int = 8
    """Conversations that the reward model scores at once."""
    adapter: int = 0
    """Weights of a LoRA adapter; 0 without one."""
    refines: bool = True
    """True if refinements are generated on these GPUs."""
    refiner: Shape | None = None
    """The refiner, if it is neither the reference nor the policy."""
    policy_refines: bool = False
    """True if the policy refines its own responses."""
    constraint_rows: bool = True
    """True if refinements are rows of the loss."""
    offload_reference: bool = False
    share_policy: float = 0.3
    """Share of the card for the policy's vLLM engine; 0 on a CPU."""
    share_refiner: float = 0.3
    tensor_parallel: int = 1
    engine_rows: int = 256
    """Completions that a vLLM engine generates at once (`vllm.max_num_seqs`)."""
    engine_context: int = 0
    """Tokens of the longest request that the cache must hold; 0: the longest row and a completion."""
    sleeps: bool = True
    card: float | None = None
    """Bytes of each GPU; None: unknown, or the CPU's memory."""
    local_ranks: int = 1
    """Number of ranks on a machine."""
    sandbox: int = 0
    """Bytes that all programs in the sandbox may use together."""

    @property
    def width(self) -> int:
        """Bytes per weight."""
        return self.training.width

    @property
    def second_engine(self) -> bool:
        """True if the refiner has a vLLM engine of its own."""
        apart = self.refiner is not None or not (self.adapter or self.policy_refines)
        return self.generator == "vllm" and self.refines and apart

    @property
    def writes_refinements(self) -> Shape:
        """The model that refines."""
        return self.refiner or self.policy

    @property
    def learners(self) -> list[tuple[int, Training]]:
        """Numbers of trained weights with their training, the policy first."""
        if self.adapter:  # trained in float32
            return [(self.adapter, replace(self.training, dtype="float32"))]
        return [(self.policy.parameters, self.training)] + ([(self.critic.trunk, self.training)] if self.critic else [])


@dataclass(frozen=True)
class Phase:
    """Bytes on each rank's GPU at the peak of a phase."""

    name: str
    weights: int
    """Weights of the models in training."""
    gradients: int
    """Gradients, and DeepSpeed's permanent buffers for them."""
    optimizer: int
    frozen: int
    """Reference, reward model, base model of a LoRA policy, and the copy with which transformers generates."""
    engines: int
    """vLLM's engines."""
    passing: int
    """Temporary memory of the phase."""
    context: int

    @property
    def total(self) -> int:
        """The sum."""
        return sum(
            (self.weights, self.gradients, self.optimizer, self.frozen, self.engines, self.passing, self.context)
        )


def phases(run: Run) -> Iterator[Phase]:
    """Iterate over the phases of a step, after the loading before the first."""
    passes = [Pass(run.policy, run.training, run.tokens, "policy", run.constraint_rows, run.adapter)]
    if run.critic is not None:
        passes.append(Pass(run.critic, run.training, run.tokens, "value"))
    yield _phase(run, "load", passing=_loading(run))
    yield _phase(run, "generate", awake="policy", passing=_writing(run, run.row))
    if run.refines:
        passing = _writing(run, run.row + run.written, run.refiner) + _verifying(run)
        by_reference = run.refiner is None and not run.policy_refines
        yield _phase(run, "refine", awake="refiner", passing=passing, reference=by_reference)
    if run.reward is not None:
        yield _phase(run, "score", passing=reading(run.reward, run.reward_rows * run.row, run.reward_width))
    reads = max(reading(p.shape, run.tokens, run.width) for p in passes) + logits(run.policy, run.tokens)
    reads += max(gathered(p.shape.parameters, run.training) for p in passes)
    yield _phase(run, "measure", passing=reads, reference=True)
    yield _phase(run, "update", passing=max(p.peak() for p in passes), gradient=True)
    # vLLM allocates a new layer before it copies. The largest is the embedding, which ZeRO-3 has gathered as well.
    layer = run.width * run.policy.embedding if run.generator == "vllm" and not run.adapter else 0
    gathers = run.width * run.policy.embedding if run.training.stage == 3 else 0
    yield _phase(run, "sync", awake="weights", passing=layer + gathers)


def _phase(
    run: Run,
    name: str,
    *,
    passing: int,
    awake: Literal["policy", "refiner", "weights"] | None = None,
    reference: bool = False,
    gradient: bool = False,
) -> Phase:
    """Make a phase with what is on the GPU in all phases; `reference`: an offloaded reference is there too."""
    shares = [held(p, t, gradient=gradient) for p, t in run.learners]
    shapes = [run.policy, run.critic or run.policy]
    kept = sum(staying(shape, t, p) for shape, (p, t) in zip(shapes, run.learners, strict=False))
    return Phase(
        name,
        weights=sum(s.weights for s in shares),
        gradients=sum(s.gradients for s in shares) + kept,
        optimizer=sum(s.optimizer for s in shares),
        frozen=_frozen(run, reference=reference, refiner=awake == "refiner"),
        engines=_engines(run, awake),
        passing=passing,
        context=0 if run.card is None else CONTEXT,
    )


def _frozen(run: Run, *, reference: bool, refiner: bool) -> int:
    t, model = run.training, run.width * run.policy.parameters
    pieces = 0 if t.offload_weights else -(-model // t.ranks)
    scorer = 0 if run.reward is None else run.reward_width * run.reward.trunk
    if run.refiner is not None and run.generator == "transformers" and (refiner or not run.offload_reference):
        scorer += run.width * run.refiner.parameters
    copy = model if t.stage == 3 and run.generator == "transformers" else 0  # generates, as partitions cannot
    if run.adapter:
        return scorer + copy + (pieces if t.stage == 3 else model)
    if t.stage == 3 and run.generator == "vllm":
        return scorer + pieces
    return scorer + copy + (model if reference or not run.offload_reference else 0)


def _engines(run: Run, awake: Literal["policy", "refiner", "weights"] | None) -> int:
    if run.generator != "vllm":
        return 0
    sizes = {"policy": engine_size(run, run.share_policy)}
    if run.second_engine:
        sizes["refiner"] = engine_size(run, run.share_refiner, run.refiner)
    if not run.sleeps:
        return sum(sizes.values())
    rest = 0 if run.card is None else ASLEEP * len(sizes)
    if awake is None:
        return rest
    if awake == "weights":
        return rest + -(-run.width * run.policy.parameters // run.tensor_parallel)
    return rest + sizes.get(awake, sizes["policy"]) - (0 if run.card is None else ASLEEP)


def engine_size(run: Run, share: float, shape: Shape | None = None) -> int:
    """Return the bytes of an active vLLM engine: its share of the card, or its minimum if no card is known."""
    return engine_needs(run, shape) if run.card is None else int(share * run.card)


def engine_needs(run: Run, shape: Shape | None = None) -> int:
    """Return the minimum bytes of a vLLM engine: weights, a cache for the longest request, logits, workspaces.

    `shape` is the engine's model; None: the policy.
    """
    model = shape or run.policy
    cache = _cache_of_a_token(run, model) * (run.engine_context or run.row + run.written)
    least = -(-(run.width * model.parameters + cache) // run.tensor_parallel)
    if run.card is None:
        return least
    sampler = 4 * 4 * model.vocabulary * run.engine_rows  # float32, four copies
    return least + sampler + ENGINE


def _cache_of_a_token(run: Run, model: Shape) -> int:
    return 2 * run.width * model.layers * model.kv


def _writing(run: Run, length: int, shape: Shape | None = None) -> int:
    """Count the bytes that transformers needs to generate: keys, values and float32 logits, and prompts ahead."""
    if run.generator == "vllm":
        return 0
    model = shape or run.policy
    cache = run.rows * _cache_of_a_token(run, model) * length
    return cache + cache // AHEAD + run.rows * 8 * model.vocabulary


def _verifying(run: Run) -> int:
    """Count the bytes of the logits with which transformers verifies guesses."""
    if run.generator == "vllm":
        return 0
    return run.width * min(LOGITS, run.rows * run.guesses * run.writes_refinements.vocabulary)


def _loading(run: Run) -> int:
    """Count the additional bytes while models are loaded: the whole models, before ZeRO partitions them."""
    t = run.training
    if t.engine == "torch" or not t.stage:
        return 0
    apart = t.stage == 3 and run.generator == "vllm" and not run.adapter  # the reference is partitioned as well
    first = (1 + apart) * run.policy.parameters
    return run.width * max(first, 0 if run.critic is None else run.critic.trunk)


def _offloads_refiner(run: Run) -> bool:
    return run.offload_reference and run.refiner is not None and run.generator == "transformers"


def host(run: Run) -> dict[str, OnHost]:
    """Count the bytes in host memory of all ranks of a machine, by purpose."""
    model = run.width * run.policy.parameters
    learning = OnHost()
    for parameters, training in run.learners:
        learning += on_host(parameters, training)
    sleeping = run.width * run.writes_refinements.parameters
    asleep = -(-sleeping // run.tensor_parallel) if run.generator == "vllm" and run.sleeps else 0
    parts = {
        "what learns": learning,
        # The policy's engine receives new weights in every step, so it keeps none.
        "sleeping refiner": OnHost(pinned=asleep if run.second_engine or run.adapter else 0),
        "reference": OnHost(pageable=model if run.offload_reference else 0),
        "refiner": OnHost(pageable=sleeping if _offloads_refiner(run) else 0),
    }
    if run.training.offload_weights and not run.adapter:
        parts["reference"] = OnHost(pinned=-(-model // run.training.ranks))
    found = {name: OnHost(run.local_ranks * p.pinned, run.local_ranks * p.pageable) for name, p in parts.items()}
    found["sandbox"] = OnHost(pageable=run.sandbox)
    return {name: part for name, part in found.items() if part.pinned + part.pageable}
