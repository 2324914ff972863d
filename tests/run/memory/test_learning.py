"""What a model that learns holds: by hand, and as the bytes that real trainers hold."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launching import launch, needs_deepspeed
from refinerl.contracts import ALONE
from refinerl.run.memory import Training, held
from refinerl.run.memory.learning import OnHost, buckets, on_host
from training_ranks import measure

ZERO_2 = {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu", "pin_memory": True}}}


def sizes(training: Training, *, gradient: bool = True) -> tuple[int, int, int]:
    found = held(100, training, gradient=gradient)
    return found.weights, found.gradients, found.optimizer


def test_torch_by_hand():
    """Float32: 4 weights, 4 gradients, 8 moments. bfloat16: 2 weights, float32 gradients and 4 of float32 weights."""
    assert sizes(Training()) == (400, 400, 800)
    assert sizes(Training(dtype="bfloat16")) == (200, 400, 1200)
    assert sizes(Training(dtype="bfloat16"), gradient=False) == (200, 0, 1200)


@pytest.mark.parametrize(
    ("stage", "more", "expected"),
    [
        (1, {}, (200, 400, 300)),  # all gradients on every rank
        (2, {}, (200, 100, 300)),
        (2, {"accumulate": 2}, (200, 50, 300)),
        (2, {"offload": True}, (200, 100, 0)),  # summed on the GPU, because the sum is no bfloat16
        (2, {"offload": True, "accumulate": 2}, (200, 0, 0)),
        (3, {}, (50, 100, 300)),
        (3, {"offload": True}, (50, 0, 0)),
        (3, {"offload": True, "offload_weights": True}, (0, 0, 0)),
    ],
)
def test_four_ranks_by_hand(stage, more, expected):
    assert sizes(Training("deepspeed", "bfloat16", stage=stage, ranks=4, **more)) == expected


def test_between_steps_stage_3_keeps_its_gradients_and_stage_2_does_not():
    assert held(100, Training("deepspeed", "bfloat16", stage=2, ranks=4)).gradients == 0
    assert held(100, Training("deepspeed", "bfloat16", stage=3, ranks=4)).gradients == 100


def test_a_recipes_section_is_read():
    read = Training.of("deepspeed", "bfloat16", {**ZERO_2, "data_types": {"grad_accum_dtype": "bf16"}}, ranks=2)
    assert (read.stage, read.offload, read.pinned, read.accumulate, read.ranks) == (2, True, True, 2, 2)
    spread = {"stage": 3, "reduce_bucket_size": 5e7, "offload_param": {"device": "cpu"}, "sub_group_size": 10}
    read = Training.of("deepspeed", "bfloat16", {"zero_optimization": spread})
    assert (read.stage, read.bucket, read.offload_weights, read.offload, read.group) == (3, 50_000_000, True, False, 10)
    assert Training.of("torch", "bfloat16", ZERO_2).stage == 0


def test_the_host_holds_what_the_gpu_does_not():
    """Page-locked tensors are rounded up to powers of two."""
    training = Training.of("deepspeed", "bfloat16", ZERO_2, ranks=4)
    # A rank's 25 weights: float32 ones and their gradient of 100 bytes each, the bfloat16 copy of 50; moments of 200.
    assert on_host(100, training) == OnHost(pinned=128 + 128 + 64, pageable=200)
    loose = Training("deepspeed", "bfloat16", stage=3, ranks=4, offload=True, pinned=False)
    assert on_host(100, loose) == OnHost(pageable=300 + 200)
    assert on_host(100, Training()) == OnHost()


def test_a_bucket_is_never_more_than_the_model():
    assert buckets(100, Training("deepspeed", "bfloat16", stage=3)) == 200
    assert buckets(10**10, Training("deepspeed", "bfloat16", stage=2, overlap=True)) == 2 * 2 * 500_000_000
    assert buckets(100, Training()) == 0


SMALL = {"reduce_bucket_size": 17_000}
HOST = {"offload_optimizer": {"device": "cpu", "pin_memory": True}}
STAGES = {
    "0": {},
    "1": {"zero_optimization": {"stage": 1, **SMALL}},
    "2": {"zero_optimization": {"stage": 2, **SMALL}},
    "3": {"zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0, **SMALL}},
}
CASES: dict[str, dict[str, Any]] = {f"float32 {stage}": STAGES[stage] for stage in "023"}
CASES |= {f"bfloat16 {stage}": {**STAGES[stage], "bf16": {"enabled": True}} for stage in "123"}
CASES |= {
    f"bfloat16 {stage} offloaded": {"zero_optimization": {**STAGES[stage]["zero_optimization"], **HOST}}
    for stage in "23"
}


@needs_deepspeed
@pytest.mark.slow
def test_two_ranks_hold_what_the_formula_says(tmp_path):
    """With a small bucket, which stage 3 keeps and the formula counts apart. On a CPU the host is the device."""
    cases = [
        json.dumps({"name": name, "deepspeed": native, "dtype": name.split()[0], "measure": True})
        for name, native in CASES.items()
    ]
    script = Path(__file__).parents[2] / "training_ranks.py"
    done = launch("torchrun", str(tmp_path), *cases, script=script, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found-2.json").read_text())
    for name, native in CASES.items():
        dtype: Any = name.split()[0]
        training = Training.of("deepspeed", dtype, native, ranks=2)
        compare(found[name], training, name)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_torch_holds_what_the_formula_says(dtype):
    compare(measure({"deepspeed": None, "dtype": dtype}, ALONE), Training.of("torch", dtype), dtype)


def compare(measured: dict[str, int], training: Training, name: str) -> None:
    parameters = measured["parameters"]
    offloaded = on_host(parameters, replace(training, pinned=False)).pageable
    between, complete = (held(parameters, training, gradient=gradient).total for gradient in (False, True))
    assert measured["after_step"] == pytest.approx(between + offloaded, rel=0.05), name
    assert measured["with_gradient"] == pytest.approx(complete + offloaded, rel=0.05), name
