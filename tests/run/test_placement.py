"""What a configuration asks of its devices, on machines of all kinds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from machines import H100, OLD_FOR_KERNELS, T4, stand_in, write_config
from refinerl import train
from refinerl.config import Config
from refinerl.engines.devices import GIB
from refinerl.errors import UserError
from refinerl.run import recipe
from refinerl.run.placement import check_abilities, check_memory, check_ranks

CUDA = torch.device("cuda", 0)
BILLION = (2048, 16)
"""Width and layers of a Llama of 1.2 billion weights."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_config(tmp_path_factory.mktemp("placement") / "model", *BILLION))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["dtype=bfloat16"], r"^dtype=bfloat16 needs .* cuda:0 \(Tesla T4\) has 7\.5: set dtype=float32$"),
        (
            [
                "engines.trainer=deepspeed",
                "deepspeed.zero_optimization.stage=2",
                "deepspeed.bf16.enabled=true",
            ],
            r"^deepspeed.bf16.enabled=true needs .* set deepspeed.bf16.enabled=false$",
        ),
        (["reward_model.dtype=bfloat16"], r"^reward_model.dtype=bfloat16 needs .* set reward_model.dtype=float32$"),
        (["reward_model.device=cuda:1"], r"^reward_model.device=cuda:1 is not there, .* reward_model.device=cuda:0"),
        (["kernels.impl=cuda"], r"^kernels.impl=cuda cannot run on cuda:0 \(the driver supports CUDA 11\.8"),
    ],
)
def test_what_the_card_cannot_do(monkeypatch, overrides, message):
    stand_in(monkeypatch, T4, without_kernels=OLD_FOR_KERNELS)
    asked = ["task.name=dialogue", "task.path=prompts.jsonl", "task.reward=model", "reward_model.model=scorer"]
    check_abilities(recipe.load("smollm", asked), CUDA)  # without them it is enough
    with pytest.raises(UserError, match=message):
        check_abilities(recipe.load("smollm", [*asked, *overrides]), CUDA)


def shared(batch: int, minibatch: int) -> Config:
    return Config(
        trainer={"batch": batch, "minibatch": minibatch},
        engines={"trainer": "deepspeed"},
        algorithm={"samples_per_prompt": 8},
    )


@pytest.mark.parametrize(
    ("batch", "minibatch", "ranks", "works"),
    [
        (64, 64, 3, (72, 72)),
        (56, 56, 3, (48, 48)),
        (8, 8, 2, (16, 16)),
        (64, 32, 3, (96, 32)),
        (16, 16, 2, None),
        (64, 8, 8, None),
    ],
)
def test_a_batch_is_whole_groups_for_every_rank(batch, minibatch, ranks, works):
    if works is None:
        check_ranks(shared(batch, minibatch), ranks)
        return
    with pytest.raises(UserError, match=rf"choose trainer.batch={works[0]}\b"):
        check_ranks(shared(batch, minibatch), ranks)
    check_ranks(shared(*works), ranks)  # what the message names does work


def test_a_plan_sees_that_its_gpus_cannot_share_the_batch(capsys):
    assert train.main(["apps-dapo-dynamic-loss", "plan.gpus=3", "--dry-run"]) == 2
    assert capsys.readouterr().err == (
        "error: trainer.batch = 64 is 8 groups of algorithm.samples_per_prompt = 8, which 3 ranks cannot share evenly: "
        "choose trainer.batch=72 trainer.minibatch=72\n"
    )
    fits = ["trainer.batch=72", "trainer.minibatch=72"]
    assert train.main(["apps-dapo-dynamic-loss", "plan.gpus=3", *fits, "--dry-run"]) == 0


@pytest.mark.parametrize(
    ("overrides", "names", "copies"),
    [
        ([], "policy and reference", 2),
        (["algorithm.name=ppo"], "policy, reference and critic", 3),
        (["engines.offload_reference=true"], "policy", 1),
        (["lora.rank=8"], "policy", 1),
    ],
)
def test_the_weights_that_a_device_gets_have_to_fit_into_what_is_free(monkeypatch, model, overrides, names, copies):
    config = recipe.load("smollm", [f"model={model}", *overrides])
    size = copies * 4 * 1.2045  # billion weights of float32; a critic's head is small
    needed = size * 1e9 / GIB
    stand_in(monkeypatch, H100, free=needed + 0.1)
    check_memory(config, model)
    stand_in(monkeypatch, H100, free=needed - 0.1)
    with pytest.raises(UserError, match=rf"the weights of {names} need {needed:.1f} GiB: end the other processes"):
        check_memory(config, model)


def test_a_reward_model_on_a_device_of_its_own_needs_room_there(monkeypatch, model, tmp_path):
    scorer = write_config(tmp_path / "scorer", *BILLION)
    asked = ["task.name=dialogue", "task.path=prompts.jsonl", "task.reward=model", f"reward_model.model={scorer}"]
    stand_in(monkeypatch, H100, H100, free=12)
    config = recipe.load("smollm", [*asked, f"model={model}", "reward_model.device=cuda:1"])
    check_memory(config, model)
    with pytest.raises(UserError, match=r"policy, reference and reward model need 13\.5 GiB"):
        check_memory(recipe.load("smollm", [*asked, f"model={model}"]), model)


def test_zero_3_spreads_the_weights(monkeypatch, model):
    stand_in(monkeypatch, H100, free=2)
    spread = ["engines.trainer=deepspeed", "deepspeed.zero_optimization.stage=3"]
    check_memory(recipe.load("smollm", [f"model={model}", *spread]), model, ranks=8)


def test_what_is_turned_already_is_not_advised(monkeypatch, model):
    stand_in(monkeypatch, H100, free=1, total=1.5)
    with pytest.raises(UserError) as found:
        check_memory(recipe.load("smollm", [f"model={model}", "dtype=bfloat16", "lora.rank=8"]), model)
    assert str(found.value).endswith("the weights of policy need 2.2 GiB: choose a smaller model")


def test_a_cpu_and_a_model_that_is_not_here_are_not_asked(monkeypatch, model):
    stand_in(monkeypatch, H100, free=0)
    check_memory(recipe.load("smollm", [f"model={model}", "device=cpu"]), model)
    nowhere = str(Path(model) / "nowhere")
    check_memory(recipe.load("smollm", [f"model={nowhere}"]), nowhere)
