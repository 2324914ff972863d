"""The memory table of `--dry-run`: each phase against the card's memory, and knobs that help."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from refinerl.config import Config
from refinerl.engines.launched import Launched
from refinerl.run.memory import Training, find
from refinerl.run.memory.advice import advise, over, starved
from refinerl.run.memory.phases import GIB, Phase, Run, host, phases
from refinerl.run.placement import planned_ranks
from refinerl.run.tasks import workers_of

MIB = 2**20
PROMPT = 1024
"""Assumed tokens of a prompt if no knob limits them."""

COLUMNS = ("weights", "gradients", "optimizer", "frozen", "engines", "passing", "context")


def memory(config: Config) -> Iterator[str]:
    """Describe the memory of each GPU and of the host in lines, by arithmetic (docs/scaling.md). Loads nothing."""
    run, unknown = run_of(config)
    if run is None:
        yield f"memory: unknown, {unknown} is neither on this machine nor among the models whose sizes are known here"
        return
    card, said = _card(config)
    run = replace(run, card=None if card is None else card * GIB)
    found = list(phases(run))
    largest = max(found, key=lambda phase: phase.total)
    small = run.card is None and largest.total < GIB
    yield f"memory: {'MiB' if small else 'GiB'} of {_whose(run)}, by arithmetic{said}"
    yield f"  {'phase':<9}" + "".join(f"{name:>10}" for name in COLUMNS) + f"{'all':>8}"
    for phase in found:
        yield _row(phase, run.card, MIB if small else GIB, largest=phase is largest)
    count = run.policy.parameters / 1e6
    weights = f"{count:,.0f}" if count >= 10 else f"{count:.2f}"
    tokens = f"tokens of a micro-batch at most {run.tokens:,}, of a row {run.row:,}"
    yield f"  weights of the policy: {weights} M; {tokens}"
    yield from _host(run)
    if unknown:
        yield f"  not counted, neither on this machine nor known here: {unknown}"
    yield from _verdict(run, whole=not unknown)


def run_of(config: Config) -> tuple[Run | None, str]:
    """Return what determines the memory of a run, and the models of unknown size; None if the policy is one."""
    policy = find(config.model)
    if policy is None:
        return None, config.model
    critic, scored = config.needs_critic, config.scored_by_model
    names = {
        "critic": config.critic.model if critic else None,
        "reward": config.reward_model.model if scored else None,
        "refiner": config.refiner.model if config.refines and config.refiner.source == "model" else None,
    }
    shapes = {role: None if name is None else find(name) for role, name in names.items()}
    unknown = ", ".join(f"the {role} model {name}" for role, name in names.items() if name and shapes[role] is None)
    launched, ranks = Launched.read(), planned_ranks(config)
    local_ranks = min(ranks, 8) if launched is None else launched.local_size
    training = Training.of(
        config.engines.trainer,
        config.dtype,
        config.deepspeed,
        ranks=ranks,
        recompute=config.trainer.gradient_checkpointing,
    )
    row, prompt = _row_length(config)
    trainer, dynamic = config.trainer, config.refines
    tokens = max(trainer.micro_batch_tokens, row)
    if trainer.micro_batch is not None:
        tokens = max(row, min(tokens, trainer.micro_batch * row))
    vllm, lora = config.vllm, config.lora
    return (
        Run(
            policy=policy,
            training=training,
            tokens=tokens,
            row=row if config.engines.generator == "vllm" else prompt + config.generation.max_tokens,
            written=config.generation.max_tokens,
            generator=config.engines.generator,
            rows=min(config.generation.max_batch, -(-trainer.batch // ranks)),
            guesses=config.drafts,
            critic=shapes["critic"],
            reward=shapes["reward"],
            reward_width=4 if config.reward_model.dtype == "float32" else 2,
            reward_rows=config.reward_model.batch,
            adapter=policy.adapter(lora.rank, lora.targets) if lora.rank else 0,
            refines=dynamic and config.refiner.source != "server",
            refiner=shapes["refiner"],
            policy_refines=config.refiner.source == "policy",
            constraint_rows=any(c.apply == "loss" for c in config.refining),
            offload_reference=config.engines.offload_reference,
            share_policy=vllm.memory_policy,
            share_refiner=vllm.memory_refiner,
            tensor_parallel=vllm.tensor_parallel,
            engine_rows=vllm.max_num_seqs,
            engine_context=vllm.max_model_len or policy.context,
            sleeps=vllm.sleep,
            local_ranks=local_ranks,
            sandbox=_sandbox(config, local_ranks),
        ),
        unknown,
    )


def _row_length(config: Config) -> tuple[int, int]:
    """Return the tokens of the longest row that is trained on, and of its prompt."""
    written = config.generation.max_tokens
    prompt = config.task.max_prompt_tokens
    if prompt is None:
        context = config.vllm.max_model_len if config.engines.generator == "vllm" else None
        prompt = PROMPT if context is None else max(1, context - written)
    return prompt + written, prompt


def _sandbox(config: Config, ranks: int) -> int:
    """Return the bytes that the programs of all ranks of a machine may use together."""
    return ranks * workers_of(config, ranks) * config.sandbox.memory_mb * MIB if config.task.name == "code" else 0


def _card(config: Config) -> tuple[float | None, str]:
    """Return the GiB of each GPU, and a clause that says where the figure comes from."""
    if config.device_memory is not None:
        return config.device_memory, f"; a card of {config.device_memory:g} (device_memory)"
    if config.device == "cpu":
        return None, ""
    import torch

    name, _, number = config.device.partition(":")
    if torch.cuda.is_available() and name in ("auto", "cuda") and int(number or 0) < torch.cuda.device_count():
        seen = torch.cuda.get_device_properties(int(number or 0))
        return seen.total_memory / GIB, f"; a card of {seen.total_memory / GIB:.1f} ({seen.name}, which is here)"
    plan = config.plan
    if plan.card_gib is None:
        return None, "; no GPU is here, device_memory=GiB says another's size"
    return (
        plan.card_gib,
        f"; a card of {plan.card_gib:g} ({plan.card or 'plan.card_gib'}; device_memory=GiB for another)",
    )


def _whose(run: Run) -> str:
    return "the one process" if run.training.ranks == 1 else f"each of {run.training.ranks} GPUs"


def _row(phase: Phase, card: float | None, unit: int, *, largest: bool) -> str:
    sizes = (getattr(phase, name) / unit for name in COLUMNS)
    line = f"  {phase.name:<9}" + "".join(f"{size:>10.1f}" if size else f"{'-':>10}" for size in sizes)
    line += f"{phase.total / unit:>8.1f}"
    if card is not None:
        line += f"{100 * phase.total / card:>5.0f} %"
    return line + ("  largest" if largest else "")


def _host(run: Run) -> Iterator[str]:
    parts = host(run)
    if not parts:
        return
    pinned, rest = sum(p.pinned for p in parts.values()), sum(p.pageable for p in parts.values())
    each = ", ".join(f"{name} {(part.pinned + part.pageable) / GIB:.1f}" for name, part in parts.items())
    ranks = f" of a machine with {run.local_ranks} GPUs" if run.local_ranks > 1 else ""
    yield f"  host{ranks}: {(pinned + rest) / GIB:.1f} ({pinned / GIB:.1f} page-locked): {each}"


def _verdict(run: Run, *, whole: bool) -> Iterator[str]:
    if run.card is None:
        return
    worst, hungry = over(run), starved(run)
    if not worst and not hungry:
        yield "  fits" if whole else "  what is counted fits"
        return
    if worst:
        yield f"  does not fit: {', '.join(worst)}"
    if hungry:
        yield f"  too little for a vLLM engine: {', '.join(hungry)}"
    advice = advise(run)
    if advice.overrides and advice.fits:
        yield f"  this would fit: {' '.join(advice.overrides)}"
        return
    if advice.overrides:
        yield f"  this would help: {' '.join(advice.overrides)}"
    more = f"{advice.gpus} GPUs with the like would do" if advice.gpus else "it takes a larger card"
    yield f"  not enough on {run.training.ranks} such GPU{'s' if run.training.ranks > 1 else ''}: {more}"
