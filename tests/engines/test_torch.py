"""The trainer: what a step does, that a saved run goes on bit for bit, and that what it exports loads."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from refinerl.contracts import Trainer
from refinerl.engines.networks import PolicyNetwork, ValueNetwork
from refinerl.engines.optimization import Optimization, Schedule
from refinerl.engines.torch import TorchTrainer
from refinerl.loop.batch import micro_batches
from refinerl.records import Rows
from tiny import halved, make_rows, tiny_model

ROWS = make_rows([(5, 6, 7), (8,), (9, 10, 11, 12, 13)], [(20, 21), (22, 23, 24, 2), (27, 2)], refined=[2])
COSINE = Optimization(0.01, Schedule("cosine", total_steps=10, warmup=0.2, minimum=0.1), weight_decay=0.1)


def trainer(optimization: Optimization | None = COSINE, *, tied: bool = True, **options: bool) -> TorchTrainer:
    return TorchTrainer(PolicyNetwork(tiny_model(tied=tied)), optimization, **options)


def loss(outputs_of: Trainer, rows: Rows = ROWS) -> Tensor:
    outputs = outputs_of.forward(rows, 0.1 * rows.is_constraint.double())
    return -outputs.logprobs.sum() + outputs.weighted_nll - 0.01 * outputs.entropies.sum()


def logprobs(t: TorchTrainer) -> Tensor:
    with torch.no_grad():
        return t.forward(ROWS).logprobs


def train(t: TorchTrainer, steps: int) -> list[float]:
    norms = []
    for _ in range(steps):
        t.backward(loss(t))
        norms.append(t.step())
    return norms


def state(t: TorchTrainer) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in t.network.state_dict().items()}


def test_training_lowers_the_loss() -> None:
    t = trainer()
    before = loss(t).item()
    train(t, 8)
    assert loss(t).item() < 0.5 * before


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("make", ["trainer", "bf16"])
def test_saved_and_loaded_goes_on_bit_for_bit(tmp_path: Path, make: str, tied: bool) -> None:
    new = {"trainer": trainer, "bf16": bf16}[make]
    one = new(tied=tied)
    train(one, 3)
    one.save(tmp_path)
    rest = train(one, 4)
    two = new(tied=tied)
    train(two, 1)
    two.backward(loss(two))  # a half-done step is forgotten
    two.load(tmp_path)
    assert two.learning_rate == pytest.approx(COSINE.learning_rate * COSINE.schedule.factor(3))
    assert train(two, 4) == rest
    assert all(torch.equal(a, b) for a, b in zip(state(one).values(), state(two).values(), strict=True))


def test_a_frozen_trainer_computes_and_refuses_to_learn(tmp_path: Path) -> None:
    frozen = trainer(None)
    assert not frozen.forward(ROWS).logprobs.requires_grad
    assert torch.equal(logprobs(frozen), logprobs(trainer()))
    with pytest.raises(RuntimeError, match="frozen"):
        frozen.step()
    for trained, still in ((trainer(), frozen), (bf16(), bf16(None))):
        train(trained, 1)
        trained.save(tmp_path)
        still.load(tmp_path)
        assert torch.equal(logprobs(still), logprobs(trained))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_leaves_everything_untouched(tmp_path: Path, bad: float) -> None:
    t, twin = trainer(), trainer()
    train(t, 2)
    train(twin, 2)
    before = state(t)
    t.backward(loss(t) * bad)
    assert not torch.isfinite(torch.tensor(t.step()))
    t.discard()
    assert t.steps == 2
    assert all(torch.equal(a, b) for a, b in zip(before.values(), state(t).values(), strict=True))
    assert train(t, 2) == train(twin, 2)


def test_step_returns_the_norm_before_clipping_and_clips() -> None:
    unclipped = trainer(Optimization(0.01, max_grad_norm=None))
    clipped = trainer(Optimization(0.01, max_grad_norm=1e-3))
    for t in (unclipped, clipped):
        t.backward(loss(t))
    gradients = [p.grad for p in clipped.network.parameters()]
    expected = torch.cat([g.flatten() for g in gradients if g is not None]).norm().item()
    assert unclipped.step() == pytest.approx(expected, rel=1e-5)
    assert clipped.step() == pytest.approx(expected, rel=1e-5)
    moments = [s["exp_avg"] for s in clipped._optimizer.state.values()]
    assert torch.cat([m.flatten() for m in moments]).norm().item() == pytest.approx(0.1 * 1e-3, rel=1e-3)
    assert all(p.grad is None for p in clipped.network.parameters())


def test_accumulated_micro_batches_are_one_batch() -> None:
    whole, parts = trainer(), trainer()
    whole.backward(loss(whole))
    for rows in micro_batches(ROWS, torch.arange(3), 10, 2):
        parts.backward(loss(parts, ROWS.select(rows)))
    for a, b in zip(whole.network.parameters(), parts.network.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-4, rtol=1e-4)


def test_no_rows_add_no_gradient() -> None:
    t = trainer()
    t.backward(loss(t, ROWS.select(torch.zeros(0, dtype=torch.int64))))
    assert t.step() == 0.0


def test_bad_gradient_is_named() -> None:
    t = trainer()
    t.backward(loss(t))
    assert t.bad_gradient() is None
    t.network.model.model.layers[1].mlp.up_proj.weight.grad[0, 0] = float("nan")
    assert t.bad_gradient() == "model.layers.1.mlp.up_proj.weight"


def test_discard() -> None:
    t = trainer()
    t.backward(loss(t))
    t.discard()
    assert all(p.grad is None for p in t.network.parameters())


def test_weight_decay_is_for_matrices_only() -> None:
    t = trainer(Optimization(0.01, weight_decay=0.5))
    before = state(t)
    for p in t.network.parameters():
        p.grad = torch.zeros_like(p)
    t.step()
    for name, p in state(t).items():
        expected = before[name] * (1 - 0.01 * 0.5) if p.dim() >= 2 else before[name]
        torch.testing.assert_close(p, expected)


def test_gradient_checkpointing_changes_nothing_but_memory() -> None:
    plain, checkpointed = trainer(), trainer(gradient_checkpointing=True)
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    checkpointed.network.model.model.layers[0].mlp.register_forward_pre_hook(count)
    for t in (plain, checkpointed):
        t.backward(loss(t))
    assert calls == 2  # forward, and again in the backward pass
    for a, b in zip(plain.network.parameters(), checkpointed.network.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_a_checkpoint_is_not_kept_open(tmp_path: Path) -> None:
    """It is mapped while it is read; what trains on is memory of its own."""
    t = bf16()
    train(t, 1)
    t.save(tmp_path)
    t.load(tmp_path)
    moments = [value for held in t._optimizer.state.values() for value in held.values()]
    tensors = [*t.network.state_dict().values(), *t._masters.parameters, *moments]
    assert len(moments) == 3 * len(list(t.network.parameters()))
    assert {tensor.untyped_storage().filename for tensor in tensors} == {None}


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    TorchTrainer(PolicyNetwork(tiny_model(layers=1)), COSINE).save(tmp_path)
    with pytest.raises(ValueError, match="the weights of another network"):
        trainer().load(tmp_path)


# --- bfloat16 ------------------------------------------------------------------------------------


def bf16(optimization: Optimization | None = COSINE, *, tied: bool = True) -> TorchTrainer:
    return TorchTrainer(PolicyNetwork(halved(tiny_model(tied=tied))), optimization)


def saved(t: TorchTrainer, folder: Path) -> dict[str, Any]:
    t.save(folder)
    found: dict[str, Any] = torch.load(folder / "trainer.pt")
    return found


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> float:
    """The share of the weights that are not what they were."""
    different = sum(int((after[name].float() != t.float()).sum()) for name, t in before.items())
    return different / sum(t.numel() for t in before.values())


def test_bfloat16_learns_at_a_small_rate(tmp_path: Path) -> None:
    """A step of 1e-6 is 1/1000 of what most of these weights can tell apart in bfloat16."""
    t = bf16(Optimization(1e-6))
    before = state(t)
    train(t, 10)
    learned = saved(t, tmp_path)["network"]
    assert changed(before, learned) >= 0.9
    assert {tensor.dtype for tensor in learned.values()} == {torch.float32}
    assert all(torch.equal(tensor, learned[name].bfloat16()) for name, tensor in state(t).items())


def test_a_critic_in_bfloat16_learns_at_a_small_rate(tmp_path: Path) -> None:
    critic = TorchTrainer(ValueNetwork(halved(tiny_model(vocab_size=30).model)), Optimization(1e-6))
    torch.nn.init.ones_(critic.network.head.weight)  # at zero it has no gradient for the trunk
    critic._masters.read(dict(critic.network.named_parameters()), critic.network.state_dict())
    before = state(critic)
    rows = make_rows([tuple(range(30))], [tuple(range(30))])
    for _ in range(10):
        values = critic.forward(rows).values
        assert values is not None
        critic.backward((values - 0.7).square().sum())
        critic.step()
    assert changed(before, saved(critic, tmp_path)["network"]) >= 0.9


@pytest.mark.slow
def test_small_steps_add_up_in_bfloat16_weights(tmp_path: Path) -> None:
    """100 steps of 1e-4, none of which most weights would notice alone."""
    t, exact = bf16(Optimization(1e-4)), TorchTrainer(PolicyNetwork(halved(tiny_model()).float()), Optimization(1e-4))
    before = state(t)
    train(t, 100)
    train(exact, 100)
    rounded = {name: tensor.bfloat16() for name, tensor in state(exact).items()}
    assert changed(before, state(t)) == pytest.approx(changed(before, rounded), abs=0.1)
    assert changed(before, state(t)) >= 0.5


@pytest.mark.slow
def test_micro_batches_in_bfloat16_add_up_in_float32(tmp_path: Path) -> None:
    t, plain = bf16(Optimization(1e-6, max_grad_norm=None)), halved(tiny_model())
    network = PolicyNetwork(plain)
    exact = {name: torch.zeros(p.shape) for name, p in plain.named_parameters()}
    for seed in range(64):
        ids = torch.randint(5, 250, (9,), generator=torch.Generator().manual_seed(seed)).tolist()
        rows = make_rows([ids[:4]], [ids[4:]])
        t.backward(-t.forward(rows).logprobs.sum())
        network.zero_grad()
        (-network(rows).logprobs.sum()).backward()
        for name, p in plain.named_parameters():
            exact[name] += p.grad.float()
    t.step()
    moments = [value["exp_avg"] for _, value in sorted(saved(t, tmp_path)["optimizer"]["state"].items())]
    mine = torch.cat([m.flatten() for m in moments]).float() / 0.1  # AdamW's first moment is (1 − β₁)·gradient
    by_group = sorted(exact.values(), key=lambda g: g.dim() < 2)  # matrices first, as the optimizer has them
    wanted = torch.cat([g.flatten() for g in by_group])
    assert (mine - wanted).norm() < 1e-5 * wanted.norm()


def test_gradients_in_bfloat16_are_clipped_discarded_and_named(tmp_path: Path) -> None:
    t = bf16(Optimization(0.01, max_grad_norm=1e-3))
    t.backward(loss(t))
    assert t.step() > 1.0
    moments = [value["exp_avg"] for value in saved(t, tmp_path)["optimizer"]["state"].values()]
    assert torch.cat([m.flatten() for m in moments]).norm().item() == pytest.approx(0.1 * 1e-3, rel=1e-3)
    t.backward(loss(t))
    assert t.bad_gradient() is None
    t.discard()
    assert t.step() == 0.0
    t.backward(loss(t) * float("nan"))
    before = state(t)
    assert not torch.isfinite(torch.tensor(t.step()))
    assert t.bad_gradient() is not None
    assert all(torch.equal(a, b) for a, b in zip(before.values(), state(t).values(), strict=True))


def test_bfloat16_checkpoints_without_masters_load(tmp_path: Path) -> None:
    """As earlier versions wrote them."""
    t, other = bf16(), bf16()
    train(t, 2)
    found = saved(t, tmp_path)
    found["network"] = {name: tensor.bfloat16() for name, tensor in found["network"].items()}
    torch.save(found, tmp_path / "trainer.pt")
    other.load(tmp_path)
    assert torch.equal(logprobs(other), logprobs(t))
    train(other, 1)


# --- export --------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("make", ["trainer", "bf16"])
def test_export_loads(tmp_path: Path, make: str, tied: bool) -> None:
    t = {"trainer": trainer, "bf16": bf16}[make](tied=tied)
    train(t, 2)
    t.export(tmp_path / "final")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "final")
    assert model.dtype == t.network.model.dtype
    assert torch.equal(logprobs(TorchTrainer(PolicyNetwork(model))), logprobs(t))
    assert (model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()) == tied


def test_weights_are_the_models_own_under_its_names() -> None:
    t = trainer()
    train(t, 1)
    other = tiny_model(seed=3)
    other.load_state_dict(dict(t.weights()), strict=False)
    other.tie_weights()
    assert torch.equal(logprobs(TorchTrainer(PolicyNetwork(other))), logprobs(t))


def test_a_critic_learns_values() -> None:
    critic = TorchTrainer(ValueNetwork(copy.deepcopy(tiny_model().model)), Optimization(0.02))
    for _ in range(60):
        values = critic.forward(ROWS).values
        assert values is not None
        critic.backward(((values - 0.7) * ROWS.mask).square().sum())
        critic.step()
    values = critic.forward(ROWS).values
    torch.testing.assert_close(values, 0.7 * ROWS.mask, atol=0.1, rtol=0)


@pytest.mark.gpu
def test_an_offloaded_reference_takes_no_device_memory_between_its_uses():
    network = PolicyNetwork(tiny_model())
    weights = sum(p.nbytes for p in network.parameters())
    before = torch.cuda.memory_allocated()
    reference = TorchTrainer(network, home="cuda")
    reference.wake()
    assert torch.cuda.memory_allocated() - before >= weights
    reference.sleep()
    assert torch.cuda.memory_allocated() == before
