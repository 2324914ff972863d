"""Knobs and values with which a run fits into memory, found by trying them on the memory model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from refinerl.run.memory.phases import GIB, ROOM, Run, engine_needs, phases
from refinerl.run.memory.shapes import Shape

_ZERO = "deepspeed.zero_optimization"
Lever = tuple[str, Run]
"""An override, and the run with that override."""


@dataclass(frozen=True)
class Advice:
    """Overrides that reduce the memory of a run."""

    overrides: tuple[str, ...]
    fits: bool
    """True if all phases then fit."""
    gpus: int | None = None
    """Number of GPUs with which the run fits, if the overrides do not suffice; None if unknown."""


def over(run: Run) -> list[str]:
    """Return the names of the phases that exceed the share of the card that a plan may fill, the largest first."""
    if run.card is None:
        return []
    found = [(phase.total, phase.name) for phase in phases(run) if phase.total > ROOM * run.card]
    return [name for _, name in sorted(found, reverse=True)]


def starved(run: Run) -> list[str]:
    """Return the knobs of vLLM engines whose share of memory is smaller than the engine needs."""
    if run.generator != "vllm" or run.card is None:
        return []
    shares = {"vllm.memory_policy": run.share_policy}
    if run.second_engine:
        shares["vllm.memory_refiner"] = run.share_refiner
    return [knob for knob, share in shares.items() if share * run.card < engine_needs(run, _model_of(run, knob))]


def advise(run: Run) -> Advice:
    """Find overrides with which every phase fits; none if the run fits as it is."""
    found: dict[str, str] = {}
    better = _improve(run, found)
    fits = not over(better) and not starved(better)
    gpus = None
    if not fits and run.training.stage:
        counts = (run.training.ranks * 2**k for k in range(1, 7))
        gpus = next((n for n in counts if _fits(replace(run, training=replace(run.training, ranks=n)))), None)
    return Advice(tuple(f"{knob}={value}" for knob, value in found.items()), fits, gpus)


def _fits(run: Run) -> bool:
    better = _improve(run, {})
    return not over(better) and not starved(better)


def _improve(run: Run, found: dict[str, str]) -> Run:
    """Apply levers to the largest phase, the cheapest that suffices first, until all phases fit or none helps."""
    for _ in range(12):
        worst, hungry = over(run), starved(run)
        if not worst and not hungry:
            return run
        if not worst:
            fed = _feed(run, hungry[0], found)
            if fed is None:
                return run
            run = fed
            continue
        levers = list(_levers(run, worst[0]))
        before = _size(run, worst[0])
        helping = [(override, other) for override, other in levers if _size(other, worst[0]) < before]
        if not helping:
            return run
        enough = [lever for lever in helping if _size(lever[1], worst[0]) <= ROOM * (run.card or 0)]
        overrides, run = enough[0] if enough else min(helping, key=lambda lever: _size(lever[1], worst[0]))
        for override in overrides.split():
            knob, _, value = override.partition("=")
            found[knob] = value
    return run


def _feed(run: Run, knob: str, found: dict[str, str]) -> Run | None:
    """Give an engine the share that it needs; if less is left, limit the length of its requests and so its cache."""
    phase = "refine" if knob.endswith("refiner") else "generate"
    card = run.card or GIB
    share = math.ceil(100 * engine_needs(run, _model_of(run, knob)) / card) / 100
    grown = _with_share(run, knob, min(share, 1.0))
    context = 1 << (run.row + run.written - 1).bit_length()
    if context < run.engine_context and (share > 1 or _size(grown, phase) > ROOM * card):
        found["vllm.max_model_len"] = str(context)
        return replace(run, engine_context=context)
    if share > 1:
        return None
    found[knob] = f"{share:g}"
    return grown


def _model_of(run: Run, knob: str) -> Shape:
    return run.writes_refinements if knob == "vllm.memory_refiner" else run.policy


def _with_share(run: Run, knob: str, share: float) -> Run:
    return replace(run, share_policy=share) if knob.endswith("policy") else replace(run, share_refiner=share)


def _size(run: Run, name: str) -> int:
    return next(phase.total for phase in phases(run) if phase.name == name)


def _levers(run: Run, phase: str) -> Iterator[Lever]:
    """Yield the levers for a phase, the cheapest first."""
    t = run.training
    if phase in ("generate", "refine"):
        yield from _smaller_share(run, phase)
    if phase in ("update", "measure", "score"):
        yield from _fewer_tokens(run, phase)
        if not t.recompute:
            yield "trainer.gradient_checkpointing=true", replace(run, training=replace(t, recompute=True))
    spread = t.stage == 3 and run.generator == "vllm"
    if not run.offload_reference and not run.adapter and not spread:
        yield "engines.offload_reference=true", replace(run, offload_reference=True)
    if run.generator == "vllm" and not run.sleeps:
        yield "vllm.sleep=true", replace(run, sleeps=True)
    if t.engine == "torch" and not run.adapter:
        cut = replace(t, engine="deepspeed", stage=2, offload=True)
        knobs = f"engines.trainer=deepspeed {_ZERO}.stage=2 {_ZERO}.offload_optimizer.device=cpu"
        yield knobs, replace(run, training=cut)
    if t.engine == "deepspeed":
        yield from _zero(run)


def _zero(run: Run) -> Iterator[Lever]:
    t = run.training
    whole = not (run.offload_reference and run.generator == "vllm")
    small = 50_000_000
    if t.stage == 3 and t.bucket > small:
        knobs = f"{_ZERO}.reduce_bucket_size={small}"
        yield knobs, replace(run, training=replace(t, bucket=small))
    if t.stage and not t.offload:
        yield f"{_ZERO}.offload_optimizer.device=cpu", replace(run, training=replace(t, offload=True))
    if t.stage < 3 and whole:
        yield f"{_ZERO}.stage=3", replace(run, training=replace(t, stage=3))
        if not t.offload:
            both = f"{_ZERO}.stage=3 {_ZERO}.offload_optimizer.device=cpu"
            yield both, replace(run, training=replace(t, stage=3, offload=True))
    if t.stage == 3 and not t.offload_weights:
        yield f"{_ZERO}.offload_param.device=cpu", replace(run, training=replace(t, offload_weights=True))


def _smaller_share(run: Run, phase: str) -> Iterator[Lever]:
    """Yield the largest share for vLLM that leaves enough to the rest, or fewer rows for transformers."""
    if run.generator == "transformers":
        rows = run.rows
        while rows > 1:
            rows //= 2
            yield f"generation.max_batch={rows}", replace(run, rows=rows)
        return
    card = run.card or 0
    second = phase == "refine" and run.second_engine
    knob = "vllm.memory_refiner" if second else "vllm.memory_policy"
    free = (run.share_refiner if second else run.share_policy) * card - (_size(run, phase) - ROOM * card)
    share = math.floor(100 * free / card) / 100
    if share * card >= engine_needs(run, _model_of(run, knob)):
        yield f"{knob}={share:g}", _with_share(run, knob, share)


def _fewer_tokens(run: Run, phase: str) -> Iterator[Lever]:
    if phase == "score":
        for rows in (4, 2, 1):
            if rows < run.reward_rows:
                yield f"reward_model.batch={rows}", replace(run, reward_rows=rows)
        return
    tokens = 1 << (run.tokens - 1).bit_length()
    while tokens // 2 >= run.row:
        tokens //= 2
        yield f"trainer.micro_batch_tokens={tokens}", replace(run, tokens=min(run.tokens, tokens))
