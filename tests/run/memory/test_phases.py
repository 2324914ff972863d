"""The phases of a run, by hand, for a model of 1,000 MiB in bfloat16."""

from __future__ import annotations

from dataclasses import replace

import pytest

from refinerl.engines import transformers
from refinerl.run.memory import Shape, Training
from refinerl.run.memory.learning import OnHost
from refinerl.run.memory.phases import AHEAD, ASLEEP, CONTEXT, GIB, Run, host, phases

MIB = 2**20
SHAPE = Shape(10, 1024, 2048, 8, 8, 128, 32 * 1024, counted=500 * MIB)
RUN = Run(
    SHAPE, Training("deepspeed", "bfloat16", stage=2, ranks=2), 4096, 1024, 512, generator="vllm",
    share_policy=0.5, share_refiner=0.25, card=40 * GIB, local_ranks=2,
)  # fmt: skip


def column(run: Run, name: str) -> dict[str, int]:
    return {phase.name: getattr(phase, name) // MIB for phase in phases(run)}


def test_what_learns_is_there_in_every_phase():
    assert set(column(RUN, "weights").values()) == {1000}
    assert set(column(RUN, "optimizer").values()) == {3000}
    assert {name: size for name, size in column(RUN, "gradients").items() if size} == {"update": 1000}
    assert set(column(RUN, "context").values()) == {CONTEXT // MIB}


def test_one_engine_is_awake_at_a_time():
    engines, asleep = column(RUN, "engines"), ASLEEP // MIB
    assert engines["generate"] == 20 * 1024 + asleep
    assert engines["refine"] == 10 * 1024 + asleep
    assert engines["measure"] == engines["update"] == 2 * asleep
    assert engines["sync"] == 1000 + 2 * asleep  # the weights alone, of the policy's engine alone
    both = column(replace(RUN, sleeps=False), "engines")
    assert set(both.values()) == {30 * 1024}


def test_one_engine_where_nobody_refines_or_an_adapter_learns():
    assert "refine" not in column(replace(RUN, refines=False), "engines")
    assert column(replace(RUN, refines=False), "engines")["update"] == ASLEEP // MIB
    adapted = replace(RUN, adapter=MIB)
    assert column(adapted, "engines")["refine"] == 20 * 1024
    assert set(column(adapted, "frozen").values()) == {1000}  # the base, which is the reference
    assert column(adapted, "optimizer")["update"] == 8 * MIB // MIB + 4 - 6  # 12 bytes a weight over two ranks


BIG = Shape(20, 2048, 4096, 16, 16, 128, 64 * 1024, counted=1500 * MIB)


def test_a_refiner_of_its_own_has_weights_of_its_own():
    plain = replace(RUN, generator="transformers")
    run = replace(plain, refiner=BIG)
    assert {name: size - 1000 for name, size in column(run, "frozen").items()} == dict.fromkeys(
        column(run, "frozen"), 3000
    )
    token = 2 * 2 * 20 * 16 * 128
    assert column(run, "passing")["refine"] == run.rows * (1536 * token * 5 // 4 + 8 * 64 * 1024) // MIB
    assert column(run, "passing")["generate"] == column(plain, "passing")["generate"]
    away = column(replace(run, offload_reference=True), "frozen")
    assert (away["refine"], away["measure"], away["update"]) == (3000, 1000, 0)
    assert host(replace(run, offload_reference=True))["refiner"] == OnHost(pageable=2 * 3000 * MIB)


def test_a_refiner_of_its_own_has_an_engine_of_its_own_even_beside_an_adapter():
    asleep = ASLEEP // MIB
    for run in (replace(RUN, refiner=BIG), replace(RUN, refiner=BIG, adapter=MIB)):
        assert column(run, "engines")["refine"] == 10 * 1024 + asleep
        assert column(run, "engines")["generate"] == 20 * 1024 + asleep
        assert host(run)["sleeping refiner"] == OnHost(pinned=2 * 3000 * MIB)
    unknown = replace(RUN, refiner=BIG, card=None)
    token = 2 * 2 * 20 * 16 * 128
    assert column(unknown, "engines")["refine"] == 3000 + token * (1024 + 512) // MIB


def test_a_policy_that_refines_itself_has_one_engine():
    run = replace(RUN, policy_refines=True)
    assert column(run, "engines")["refine"] == column(run, "engines")["generate"] == 20 * 1024
    assert "sleeping refiner" not in host(run)


@pytest.mark.parametrize(
    ("stage", "generator", "frozen"),
    [(2, "vllm", 1000), (3, "vllm", 500), (2, "transformers", 1000), (3, "transformers", 2000)],
)
def test_the_reference_is_whole_unless_zero_3_may_spread_it(stage, generator, frozen):
    """And transformers writes with a copy where the trainer's weights are in pieces."""
    run = replace(RUN, training=replace(RUN.training, stage=stage), generator=generator)
    assert set(column(run, "frozen").values()) == {frozen}


def test_an_offloaded_reference_is_there_while_it_is_used():
    run = replace(RUN, offload_reference=True)
    assert {name for name, size in column(run, "frozen").items() if size} == {"refine", "measure"}
    assert host(run)["reference"] == OnHost(pageable=2 * 1000 * MIB)


def test_critic_and_reward_model():
    run = replace(RUN, critic=SHAPE, reward=SHAPE)
    trunk = 2 * SHAPE.trunk // MIB
    assert column(run, "weights")["generate"] == 1000 + trunk
    assert column(run, "frozen")["generate"] == 1000 + trunk
    assert list(column(run, "weights")) == ["load", "generate", "refine", "score", "measure", "update", "sync"]


def test_transformers_has_a_cache_of_its_rows():
    run = replace(RUN, generator="transformers", rows=4)
    token = 2 * 2 * 10 * 1024
    assert AHEAD == transformers.AHEAD
    assert column(run, "passing")["generate"] == 4 * (1024 * token * 5 // 4 + 8 * 32 * 1024) // MIB
    assert column(run, "passing")["refine"] == 4 * (1536 * token * 5 // 4 + 8 * 32 * 1024) // MIB
    assert set(column(run, "engines").values()) == {0}


def test_the_host_of_two_ranks():
    """The refiner's weights while its engine sleeps; the policy's are let go of."""
    assert host(RUN) == {"sleeping refiner": OnHost(pinned=2 * 1000 * MIB)}
    assert host(replace(RUN, tensor_parallel=2))["sleeping refiner"] == OnHost(pinned=1000 * MIB)
    assert host(replace(RUN, sleeps=False, sandbox=7)) == {"sandbox": OnHost(pageable=7)}
    offloaded = host(replace(RUN, training=replace(RUN.training, offload=True, pinned=False)))["what learns"]
    assert offloaded == OnHost(pageable=(12 + 4 + 2) * 500 * MIB)


def test_without_a_card_an_engine_takes_what_it_needs_at_least():
    run = replace(RUN, card=None)
    token = 2 * 2 * 10 * 1024
    assert column(run, "engines")["generate"] == 1000 + token * (1024 + 512) // MIB
    assert set(column(run, "context").values()) == {0}
