"""DeepSpeed trains as PyTorch does: the same fixed rollouts, the same curve, whatever is spread over how many ranks."""

from __future__ import annotations

import importlib
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from launching import launch, needs_deepspeed
from refinerl.contracts import ALONE
from refinerl.engines.deepspeed import DeepSpeedTrainer
from refinerl.engines.deepspeed.engine import steps_elsewhere
from refinerl.engines.networks import PolicyNetwork
from refinerl.engines.optimization import Optimization
from refinerl.errors import UserError
from tiny import halved, tiny_model

SCRIPT = Path(__file__).parents[1] / "training_ranks.py"
SPREAD = {"stage3_param_persistence_threshold": 0}  # else the tiny model's weights are too few to be spread
CASES: dict[str, dict[str, Any]] = {
    "zero0": {"deepspeed": {}},
    "zero2": {"deepspeed": {"zero_optimization": {"stage": 2}}},
    "zero3": {"deepspeed": {"zero_optimization": {"stage": 3, **SPREAD}}},
}
UNLIKE = {"unlike": True, "budget": 100, "rows": 2}
MORE: dict[str, dict[str, Any]] = {
    "zero1": {"deepspeed": {"zero_optimization": {"stage": 1}}},
    "offload2": {"deepspeed": {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}},
    "offload3": {
        "deepspeed": {
            "zero_optimization": {
                "stage": 3, **SPREAD, "offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"},
            }
        }
    },
    "recomputed2": {"deepspeed": {"zero_optimization": {"stage": 2}}, "checkpointing": True},
    "recomputed3": {"deepspeed": {"zero_optimization": {"stage": 3, **SPREAD}}, "checkpointing": True},
    "first-half": {"deepspeed": {"zero_optimization": {"stage": 2}}, "last": 5},
    "first-half3": {"deepspeed": {"zero_optimization": {"stage": 3, **SPREAD}}, "last": 5},
    "lora0": {"deepspeed": {}, "lora": 4},
    "lora2": {"deepspeed": {"zero_optimization": {"stage": 2}}, "lora": 4},
    "lora3": {"deepspeed": {"zero_optimization": {"stage": 3, **SPREAD}}, "lora": 4},
    "lora-half": {"deepspeed": {"zero_optimization": {"stage": 2}}, "lora": 4, "last": 5},
    "lora-half3": {"deepspeed": {"zero_optimization": {"stage": 3, **SPREAD}}, "lora": 4, "last": 5},
    "shared0": {"deepspeed": {}, "sharing": "always"},
    "shared1": {"deepspeed": {"zero_optimization": {"stage": 1}}, "sharing": "always"},
    "shared2": {"deepspeed": {"zero_optimization": {"stage": 2}}, "sharing": "always"},
    "shared3": {"deepspeed": {"zero_optimization": {"stage": 3, **SPREAD}}, "sharing": "always"},
    "shared-lora3": {"deepspeed": {"zero_optimization": {"stage": 3, **SPREAD}}, "lora": 4, "sharing": "always"},
    "shared-recomputed3": {
        "deepspeed": {"zero_optimization": {"stage": 3, **SPREAD}}, "checkpointing": True, "sharing": "always",
    },
    "shared-unlike2": {"deepspeed": {"zero_optimization": {"stage": 2}}, "sharing": "auto", **UNLIKE},
    "shared-unlike3": {"deepspeed": {"zero_optimization": {"stage": 3, **SPREAD}}, "sharing": "auto", **UNLIKE},
    "bf16": {"deepspeed": {"zero_optimization": {"stage": 2}, "bf16": {"enabled": True}}, "poison": 2},
    "poisoned0": {"deepspeed": {}, "poison": 4, "last": 5},
    "poisoned2": {"deepspeed": {"zero_optimization": {"stage": 2}}, "poison": 4, "last": 5},
    "poisoned3": {"deepspeed": {"zero_optimization": {"stage": 3, **SPREAD}}, "poison": 4, "last": 5},
}  # fmt: skip
UNMEASURED = {f"alone{stage}": {**CASES[f"zero{stage}"], "share": False} for stage in (0, 2, 3)} | {
    "bf16-alone": {**MORE["bf16"], "share": False},
    "offload3-alone": {**MORE["offload3"], "share": False},
}
"""Without the measurement of the constraint's share of the gradient."""
RESUMED: dict[str, dict[str, Any]] = {
    "second-half": {**CASES["zero2"], "resume": "first-half", "first": 6},
    "second-half3": {**CASES["zero3"], "resume": "first-half3", "first": 6},
    "second-lora": {**MORE["lora2"], "resume": "lora-half", "first": 6},
    "second-lora3": {**MORE["lora3"], "resume": "lora-half3", "first": 6},
}


def trained(folder: Path, cases: dict[str, dict[str, Any]], launcher: Any, ranks: int) -> dict[str, Any]:
    texts = [json.dumps({"name": name, **case}) for name, case in cases.items()]
    done = launch(launcher, str(folder), *texts, script=SCRIPT, ranks=ranks, timeout=560)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((folder / f"found-{ranks}.json").read_text())
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("alone")
    single = {"torch": {"deepspeed": None}, "torch-poisoned": {"deepspeed": None, "poison": 4, "last": 5}}
    single["torch-lora"] = {"deepspeed": None, "lora": 4}
    single["torch-unlike"] = {"deepspeed": None, **UNLIKE}
    return {**trained(folder, single | CASES, None, 1), "folder": str(folder)}


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("together")
    return folder, trained(folder, CASES | MORE | UNMEASURED, "torchrun", 2)


def same(mine: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    for row, other in zip(mine, theirs, strict=True):
        assert row.keys() == other.keys()
        for name, value in other.items():
            if name == "update/tokens_shared":
                continue
            near = value if isinstance(value, list) else pytest.approx(value, abs=1e-4, rel=1e-4, nan_ok=True)
            assert row[name] == near, name


@needs_deepspeed
@pytest.mark.slow
class TestParity:
    def test_one_rank(self, alone):
        for name in CASES:
            same(alone[name]["curve"], alone["torch"]["curve"])

    @pytest.mark.parametrize("name", [*CASES, "zero1", "offload2", "offload3", "recomputed2", "recomputed3"])
    def test_two_ranks(self, alone, together, name):
        """PPO with critic, the dynamic constraint, two minibatches a step; the ranks' micro-batches are unlike."""
        same(together[1][name]["curve"], alone["torch"]["curve"])
        assert together[1][name]["steps"] == 20
        assert len({row["policy/loss"] for row in together[1][name]["curve"]}) > 5

    @pytest.mark.parametrize("name", [name for name in MORE if "shared" in name])
    def test_prefixes_are_shared_on_two_ranks(self, alone, together, name):
        kind = next((f"-{kind}" for kind in ("lora", "unlike") if kind in name), "")
        same(together[1][name]["curve"], alone[f"torch{kind}"]["curve"])
        assert min(row["update/tokens_shared"] for row in together[1][name]["curve"]) > 0
        assert [trees > 0 for trees in together[1][name]["trees"]] == [True, kind != "-unlike"]

    @pytest.mark.parametrize("name", [*CASES, "offload3"])
    def test_weights_and_export_are_whole(self, alone, together, name):
        wanted = alone["torch"]["weights"]
        for found in (together[1][name]["weights"], together[1][name]["exported"]):
            assert found.keys() == wanted.keys()
            for key, value in wanted.items():
                assert found[key] == pytest.approx(value, abs=1e-2, rel=1e-3)

    def test_a_fresh_process_goes_on_from_the_shards(self, alone, together):
        folder, _ = together
        found = trained(folder, RESUMED, "torchrun", 2)
        for name in RESUMED:
            same(found[name]["curve"], alone["torch-lora" if "lora" in name else "torch"]["curve"][5:])

    @pytest.mark.parametrize("name", ["lora0", "lora2", "lora3"])
    def test_an_adapter_learns_alike_and_without_it_the_reference_is_there(self, alone, together, name):
        same(together[1][name]["curve"], alone["torch-lora"]["curve"])
        assert together[1][name]["curve"][-1]["policy/kl_to_reference"] > 1e-3
        weights = together[1][name]["weights"]
        assert weights.keys() == alone["torch-lora"]["weights"].keys()
        assert all(".lora_" in key for key in weights)
        for key, value in alone["torch-lora"]["weights"].items():
            assert weights[key] == pytest.approx(value, abs=1e-2, rel=1e-3)
        found, wanted = (
            load_file(folder / "policy-hf" / "adapter_model.safetensors")
            for folder in (together[0] / name, Path(alone["folder"]) / "torch-lora")
        )
        assert found.keys() == wanted.keys()
        assert all(torch.allclose(found[key], wanted[key], atol=1e-3) for key in wanted)

    @pytest.mark.parametrize("name", [*CASES, "zero1", "offload2", "offload3", "recomputed3", "lora2", "lora3", "bf16"])
    def test_the_constraints_share_of_the_gradient_is_measured(self, alone, together, name):
        kind = "torch-lora" if "lora" in name else "torch"
        shares = [
            [row.get("constraint/gradient_share") for row in curve]
            for curve in (together[1][name]["curve"], alone[kind]["curve"])
        ]
        assert shares[1][0] == 0  # nothing was accepted for its first minibatch
        assert all(0.01 < share < 10 for share in shares[1][1:])
        if name == "bf16":  # its second step is poisoned, so that it is another run then
            assert shares[0][:2] == [0, None]
            assert all(0.01 < share < 10 for share in shares[0][2:])
        else:
            assert shares[0] == pytest.approx(shares[1], rel=1e-3)

    @pytest.mark.parametrize(
        ("name", "unmeasured"),
        [*((f"zero{n}", f"alone{n}") for n in (0, 2, 3)), ("bf16", "bf16-alone"), ("offload3", "offload3-alone")],
    )
    def test_measuring_it_changes_nothing_else(self, together, name, unmeasured):
        curve, plain = together[1][name], together[1][unmeasured]
        for row, other in zip(curve["curve"], plain["curve"], strict=True):
            assert {key: value for key, value in row.items() if key != "constraint/gradient_share"} == other
        assert curve["weights"] == plain["weights"]

    @pytest.mark.parametrize("stage", [0, 2, 3])
    def test_what_is_not_finite_on_one_rank_is_skipped_by_all(self, alone, together, stage):
        curve = together[1][f"poisoned{stage}"]["curve"]
        assert curve[3]["skipped"] == ["policy loss", "policy loss"]
        assert curve[3]["steps"] == 0
        same(curve, alone["torch-poisoned"]["curve"])

    def test_bf16_is_near(self, alone, together):
        curve = together[1]["bf16"]["curve"]
        assert curve[0]["policy/entropy"] == pytest.approx(alone["torch"]["curve"][0]["policy/entropy"], rel=0.02)
        assert curve[1]["skipped"] == ["policy loss", "policy loss"]
        assert math.isfinite(curve[-1]["policy/loss"])


EXACT = {"communication_data_type": "fp32"}
BFLOAT16: dict[str, dict[str, Any]] = {
    "zero1": MORE["zero1"]["deepspeed"],
    "zero2": CASES["zero2"]["deepspeed"],
    "exact2": {**CASES["zero2"]["deepspeed"], **EXACT},
    "exact3": {**CASES["zero3"]["deepspeed"], **EXACT},
    "offload2": {**MORE["offload2"]["deepspeed"], **EXACT},
    "rough2": {**CASES["zero2"]["deepspeed"], "data_types": {"grad_accum_dtype": "bf16"}},
}


@pytest.fixture(scope="module")
def in_bfloat16(tmp_path_factory) -> dict[str, Any]:
    """Two ranks, 32 micro-batches each, then ten steps at a learning rate of 1e-6."""
    cases = {name: {"deepspeed": native, "precision": True} for name, native in BFLOAT16.items()}
    return trained(tmp_path_factory.mktemp("bfloat16"), cases, "torchrun", 2)


@needs_deepspeed
@pytest.mark.slow
class TestBfloat16:
    @pytest.mark.parametrize("name", BFLOAT16)
    def test_weights_move_and_go_on_from_the_shards(self, in_bfloat16, name):
        assert in_bfloat16[name]["moved"] >= 0.9
        assert in_bfloat16[name]["off"] == 0  # the weights in bfloat16 are the float32 ones, rounded
        assert in_bfloat16[name]["resumed"]

    @pytest.mark.parametrize("name", ["zero1", "exact2", "exact3", "offload2"])
    def test_micro_batches_add_up_in_float32(self, in_bfloat16, name):
        assert in_bfloat16[name]["error"] < 1e-6
        assert in_bfloat16[name]["norm"] == pytest.approx(1, abs=1e-6)

    def test_that_is_what_makes_the_sum_exact(self, in_bfloat16):
        """In bfloat16 it is an order of magnitude worse than the ranks' sum, which is rounded once a micro-batch."""
        assert in_bfloat16["zero2"]["error"] < 0.0025 < 0.005 < in_bfloat16["rough2"]["error"]


class Largest(TorchDispatchMode):
    """The bytes of the largest tensor that an operator made."""

    bytes = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        made = operator(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.bytes = max(self.bytes, made.nbytes)
        return made


@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_looking_at_a_gradient_takes_no_memory(bad, dtype):
    trainer = DeepSpeedTrainer.__new__(DeepSpeedTrainer)
    trainer._bad = torch.zeros(2, dtype=torch.bool)
    gradient = torch.ones(10, 1000, dtype=dtype)
    gradient[4, 3] = bad
    gradient = gradient.t()
    with Largest() as largest:
        trainer._noting(1)(gradient)
    assert trainer._bad.tolist() == [False, not math.isfinite(bad)]
    assert largest.bytes <= 8


def test_without_deepspeed_the_message_names_knob_and_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(UserError, match=r"^engines.trainer=deepspeed asks for .*pip install 'deepspeed>=0.19,<0.20'"):
        DeepSpeedTrainer(PolicyNetwork(tiny_model()), None, ALONE, {})


def test_weights_in_bfloat16_do_not_learn_without_a_zero_stage():
    with pytest.raises(UserError, match=r"stage must be 1, 2 or 3 to train weights in 16 bits, got 0"):
        DeepSpeedTrainer(PolicyNetwork(halved(tiny_model())), Optimization(1e-6), ALONE, {})


@pytest.mark.parametrize(
    ("zero", "elsewhere"),
    [
        ({"stage": 3}, False),
        ({"stage": 2, "offload_optimizer": {"device": "cpu"}}, False),
        ({"stage": 3, "offload_optimizer": {"device": "cpu", "ratio": 0.3}}, True),
        ({"stage": 3, "offload_optimizer": {"device": "cpu", "super_offload": True}}, True),
        ({"stage": 2, "zenflow": {"topk_ratio": 0.1}}, True),
    ],
)
def test_a_gradient_is_read_where_all_steps_are_our_optimizers(zero, elsewhere):
    """A step that an optimizer of DeepSpeed's own takes could not be held back."""
    assert steps_elsewhere({"zero_optimization": zero}) is elsewhere


@needs_deepspeed
def test_an_old_deepspeed_is_refused(monkeypatch):
    monkeypatch.setattr(importlib.import_module("deepspeed"), "__version__", "0.17.1")
    with pytest.raises(UserError, match=r">=0\.19,<0\.20 \(tested with .*\), and 0\.17\.1 is installed"):
        DeepSpeedTrainer(PolicyNetwork(tiny_model()), None, ALONE, {})
