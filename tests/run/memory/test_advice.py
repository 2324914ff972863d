"""Advice is tried: with it, the run fits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from refinerl.run.memory import Training, find
from refinerl.run.memory.advice import advise, over, starved
from refinerl.run.memory.phases import GIB, ROOM, Run, phases

LLAMA = find("meta-llama/Llama-3.2-3B-Instruct")
assert LLAMA is not None
RUN = Run(
    LLAMA, Training("deepspeed", "bfloat16", stage=2, ranks=8, recompute=True), 16_384, 2048, 1024, generator="vllm",
    card=47.5 * GIB,
)  # fmt: skip


def test_what_fits_needs_no_advice():
    assert over(RUN) == []
    assert advise(RUN).overrides == ()
    assert advise(RUN).fits


@pytest.mark.parametrize(
    ("change", "worst", "override"),
    [
        ({"share_policy": 0.8}, "generate", "vllm.memory_policy="),
        ({"share_refiner": 0.8}, "refine", "vllm.memory_refiner="),
        ({"tokens": 131_072}, "update", "trainer.micro_batch_tokens="),
        ({"training": replace(RUN.training, recompute=False)}, "update", "trainer."),
        ({"training": replace(RUN.training, ranks=1)}, "update", "deepspeed.zero_optimization."),
        ({"training": Training("torch", "bfloat16", recompute=True)}, "update", "engines.trainer=deepspeed"),
        ({"reward": LLAMA, "reward_rows": 256}, "score", "reward_model.batch="),
        ({"generator": "transformers", "rows": 2048}, "refine", "generation.max_batch="),
        ({"share_policy": 0.3, "share_refiner": 0.3, "sleeps": False, "tokens": 65_536}, "update", "vllm.sleep=true"),
    ],
)
def test_each_phase_has_a_knob_of_its_own(change, worst, override):
    run = replace(RUN, **change)
    assert over(run)[0] == worst
    advice = advise(run)
    assert advice.fits, advice
    assert any(turned.startswith(override) for turned in advice.overrides), advice


def test_the_share_that_is_named_is_the_largest_that_fits():
    run = replace(RUN, share_policy=0.8)
    (override,) = advise(run).overrides
    share = float(override.partition("=")[2])
    assert over(replace(run, share_policy=share)) == []
    assert over(replace(run, share_policy=share + 0.01)) == ["generate"]


def test_a_share_that_is_too_small_for_an_engine_is_named():
    run = replace(RUN, share_policy=0.1)
    assert starved(run) == ["vllm.memory_policy"]
    advice = advise(run)
    assert advice.fits
    share = float(advice.overrides[0].partition("vllm.memory_policy=")[2])
    assert starved(replace(run, share_policy=share)) == []
    assert starved(replace(run, share_policy=share - 0.01)) == ["vllm.memory_policy"]


def test_a_cache_for_longer_requests_than_there_are_is_spared():
    run = replace(RUN, card=24 * GIB, engine_context=131_072, share_policy=0.5, share_refiner=0.5)
    assert starved(run) == ["vllm.memory_policy", "vllm.memory_refiner"]
    advice = advise(run)
    assert advice.fits
    assert "vllm.max_model_len=4096" in advice.overrides


def test_where_no_knob_is_enough_more_gpus_may_be():
    """An offloaded reference keeps ZeRO-3 away, and ZeRO-2 keeps 20 GiB of weights on each GPU."""
    alone = replace(RUN.training, ranks=1)
    big = replace(RUN, training=alone, critic=find("OpenRLHF/Llama-3-8b-rm-mixture"), offload_reference=True)
    advice = advise(big)
    assert not advice.fits
    assert advice.gpus is not None
    assert advise(replace(big, training=replace(alone, ranks=advice.gpus))).fits
    assert not advise(replace(big, training=replace(alone, ranks=advice.gpus // 2))).fits
    hopeless = advise(replace(big, card=4 * GIB))
    assert (hopeless.fits, hopeless.gpus) == (False, None)


def test_without_a_card_nothing_is_too_much():
    assert over(replace(RUN, card=None, tokens=10**9)) == []


def test_a_plan_leaves_some_room():
    tall = max(phase.total for phase in phases(RUN))
    assert over(replace(RUN, card=tall / ROOM * 1.01)) == []
    assert over(replace(RUN, card=tall * 1.01)) != []
