"""One batch -> one update, on a real model: gradients, normalisers, guards."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from building import group, refinement
from refinerl.algorithms.dapo import DAPO
from refinerl.algorithms.ppo import PPO
from refinerl.constraints import Sum
from refinerl.constraints.dynamic import Dynamic
from refinerl.constraints.none import NoConstraint
from refinerl.constraints.static import Static
from refinerl.engines.networks import PolicyNetwork, ValueNetwork
from refinerl.engines.optimization import Optimization, Schedule
from refinerl.engines.torch import TorchTrainer
from refinerl.engines.world import WorldOfOne
from refinerl.loop.batch import collate
from refinerl.loop.update import Updater
from refinerl.records import Anchors
from tiny import tiny_model

A = group("a", ([11, 12, 13], 0.0), ([14, 15], 1.0))
B = group("b", ([16, 17, 18, 19], -1.0), ([20], -0.5))
NOTHING = collate(())
GROUPS = [A, B]
ACCEPTED = refinement(A.rollouts[0], [11, 12, 40, 41], 1.0)
REJECTED = refinement(B.rollouts[0], [30, 31], -1.0, accepted=False)
OPTIMIZATION = Optimization(learning_rate=1e-2, max_grad_norm=1e9)


class KeepsGradients(TorchTrainer):
    """A trainer whose step is not taken, so that the accumulated gradients can be read."""

    def step(self) -> float:
        return 1.0


def trainer(cls=TorchTrainer, *, dtype=torch.float32, trained=True):
    network = PolicyNetwork(tiny_model().to(dtype))
    return cls(network, OPTIMIZATION if trained else None)


def dynamic(**options):
    return Dynamic(beta=0.5, **options)


def updater(policy, constraint, algorithm=None, *, critic=None, budget=10_000, **sizes):
    return Updater(
        policy=policy,
        reference=trainer(dtype=policy.network.model.dtype, trained=False),
        critic=critic,
        algorithm=algorithm or DAPO(),
        constraint=constraint,
        world=WorldOfOne(),
        minibatch=sizes.pop("minibatch", 4),
        epochs=sizes.pop("epochs", 1),
        token_budget=budget,
        max_rows=None,
        entropy_bonus=sizes.pop("entropy_bonus", 0.0),
        seed=0,
    )


def prepared(part, refinements=(), *, merge=True, groups=GROUPS):
    batch, _ = part.measure(collate(groups, refinements, merge=merge), NOTHING, kl=True)
    penalty, _ = part.penalty(batch, Anchors(tuple(refinements)))
    return part.algorithm.advantages(batch, penalty, part.world)


def gradients(policy):
    return {n: p.grad.clone() for n, p in policy.network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("reduction", ["sequence", "token"])
def test_the_dynamic_gradient_is_that_of_plain_cross_entropy(reduction):
    """On (x, ỹ) in float64 to 1e-10: self-fed, without y and without the refiner's instruction."""
    policy = trainer(KeepsGradients, dtype=torch.float64)
    part = updater(policy, dynamic(reduction=reduction))
    batch = prepared(part, [ACCEPTED, REJECTED])
    part.update(batch.with_(advantages=torch.zeros_like(batch.advantages)), step=1)
    found = gradients(policy)

    twin = tiny_model().double()
    x, refined = list(A.prompt.token_ids), list(ACCEPTED.completion.token_ids)
    logits = twin(torch.tensor([x + refined])).logits[0, len(x) - 1 : -1]
    normaliser = 4 if reduction == "sequence" else len(refined)  # B = all 4 rollouts, accepted or not
    loss = 0.5 * F.cross_entropy(logits, torch.tensor(refined), reduction="sum") / normaliser
    loss.backward()
    for name, parameter in twin.named_parameters():
        if parameter.grad is not None:
            assert torch.allclose(found[f"model.{name}"], parameter.grad, rtol=0, atol=1e-10), name


def test_what_the_filter_dropped_has_exactly_no_gradient():
    policy = trainer(KeepsGradients)
    part = updater(policy, dynamic())
    batch = prepared(part, [REJECTED])
    assert not batch.is_constraint.any()
    part.update(batch.with_(advantages=torch.zeros_like(batch.advantages)), step=1)
    assert all(not gradient.any() for gradient in gradients(policy).values())


@pytest.mark.parametrize("constraint", [dynamic(), Static(beta=0.5, apply="loss", estimator="k3"), NoConstraint()])
def test_the_gradient_does_not_depend_on_micro_batches(constraint):
    found = []
    for budget in (1, 16, 10_000):
        policy = trainer(KeepsGradients, dtype=torch.float64)
        part = updater(policy, constraint, budget=budget, entropy_bonus=0.01)
        part.update(prepared(part, [ACCEPTED]), step=1)
        found.append(gradients(policy))
    for other in found[1:]:
        for name, gradient in found[0].items():
            assert torch.allclose(other[name], gradient, rtol=0, atol=1e-7), name  # advantages are float32


def test_a_merged_row_weighs_as_many_as_it_stands_for():
    twins = [refinement(r, [40, 41], 2.0) for r in A.rollouts]
    merged = [refinement(A.rollouts[0], [40, 41], 2.0, weight=2), refinement(A.rollouts[1], [40, 41], 2.0, weight=0)]
    for reduction in ("sequence", "token"):
        found = []
        for refinements, merge in ((twins, False), (merged, True)):
            policy = trainer(KeepsGradients, dtype=torch.float64)
            part = updater(policy, dynamic(reduction=reduction))
            update = part.update(prepared(part, refinements, merge=merge), step=1)
            found.append((gradients(policy), update.metrics["constraint/ce"], update.metrics["constraint/cost"]))
        (first, ce, cost), (second, ce_merged, cost_merged) = found
        assert (ce, cost) == (pytest.approx(ce_merged), pytest.approx(cost_merged))
        for name, gradient in first.items():
            assert torch.allclose(second[name], gradient, rtol=0, atol=1e-10), name


def test_the_charges_on_y_sum_to_the_costs_on_refinements():
    anchors = Anchors((ACCEPTED, REJECTED, refinement(B.rollouts[1], [20, 50], 1.0)))
    part = updater(trainer(), dynamic(apply="reward"))
    batch, _ = part.measure(collate(GROUPS, anchors.refinements, merge=False), NOTHING, kl=False)
    penalty, metrics = part.penalty(batch, anchors)
    with torch.no_grad():
        outputs = part.policy.forward(batch)
    costs = (-outputs.logprobs * batch.mask)[batch.is_constraint]
    assert penalty.sum().item() == pytest.approx(0.5 * costs.clamp(-10, 10).sum().item(), rel=1e-6)
    assert metrics["constraint/ce"] == pytest.approx(costs.sum().item() / 6, rel=1e-6)
    assert not penalty[batch.is_constraint].any()
    assert not penalty[1].any()  # its refinement was never made


def test_in_the_reward_no_gradient_reaches_the_refinement():
    policy = trainer(KeepsGradients)
    part = updater(policy, dynamic(apply="reward"))
    batch = prepared(part, [ACCEPTED], merge=False)
    update = part.update(batch.with_(advantages=torch.zeros_like(batch.advantages)), step=1)
    assert all(not gradient.any() for gradient in gradients(policy).values())
    assert update.metrics["constraint/loss"] == 0


def test_static_in_the_reward_is_the_usual_kl_penalty():
    policy = trainer()
    with torch.no_grad():
        for parameter in policy.network.parameters():
            parameter.mul_(1.05)
    part = updater(policy, Static(beta=0.25), PPO())
    batch, others = part.measure(collate(GROUPS), NOTHING, kl=False)
    metrics = part.metrics(batch, others)
    penalty, _ = part.penalty(batch, Anchors())
    d = (batch.old_logprobs - batch.reference_logprobs) * batch.mask
    assert torch.allclose(penalty, 0.25 * d, atol=1e-6)
    assert metrics["policy/kl_to_reference_sum"] == pytest.approx(d.sum().item() / 4, rel=1e-5)
    assert metrics["policy/kl_to_reference"] > 0


def test_the_first_ratio_is_one_and_old_logprobs_are_the_trainers_own():
    part = updater(trainer(), NoConstraint())
    batch = prepared(part)
    with torch.no_grad():
        logits = tiny_model()(torch.tensor([[*A.prompt.token_ids, 11, 12, 13]])).logits[0]
    expected = logits.log_softmax(-1)[[2, 3, 4], [11, 12, 13]]
    assert torch.allclose(batch.old_logprobs[0, :3], expected, atol=1e-5)
    assert part.update(batch, step=1).metrics["policy/ratio_max"] == pytest.approx(1, abs=1e-5)


class Counted(TorchTrainer):
    """Counts the y whose policy is asked for without gradient."""

    asked = 0

    def forward(self, rows, weights=None, *, adapter=True):
        self.asked += 0 if torch.is_grad_enabled() else int((~rows.is_constraint).sum())
        return super().forward(rows, weights, adapter=adapter)


@pytest.mark.parametrize(
    ("constraint", "asked"),
    [
        (NoConstraint(), 0),
        (dynamic(), 0),
        (dynamic(apply="reward"), 0),
        (Static(beta=0.1), 4),
        (Static(beta=0, apply="loss"), 4),
    ],
    ids=["none", "dynamic", "dynamic-reward", "static", "idle"],
)
def test_on_policy_the_ratio_is_exactly_one_without_a_pass_of_its_own(constraint, asked):
    """In bfloat16, where two passes in batches of other shapes differ: the update has y and ỹ in its micro-batches."""
    part = updater(trainer(Counted, dtype=torch.bfloat16), constraint, budget=16)
    anchors = Anchors((ACCEPTED,) if isinstance(constraint, Dynamic) else ())
    batch, others = part.measure(collate(GROUPS, anchors.refinements), NOTHING, kl=True, step=1)
    penalty, _ = part.penalty(batch, anchors)
    part.watch(batch, anchors)
    metrics = part.update(part.algorithm.advantages(batch, penalty, part.world), 1, others).metrics
    assert metrics["policy/ratio_max"] == 1
    assert metrics["policy/clip_fraction_low"] == metrics["policy/clip_fraction_high"] == 0
    assert part.policy.asked == asked
    assert {"policy/entropy", "policy/kl_to_reference", "policy/mismatch_kl"} <= metrics.keys()


CASES = {
    "dapo": (NoConstraint, DAPO, {}),
    "dynamic": (dynamic, DAPO, {}),
    "dynamic-reward": (lambda: dynamic(apply="reward"), DAPO, {}),
    "static": (lambda: Static(beta=0.1), DAPO, {}),
    "static-loss": (lambda: Static(beta=0.1, apply="loss"), DAPO, {}),
    "ppo": (NoConstraint, PPO, {}),
    "token": (NoConstraint, DAPO, {"correction": "token"}),
    "sequence": (NoConstraint, DAPO, {"correction": "sequence"}),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("sizes", [{}, {"minibatch": 2, "epochs": 2}], ids=["on", "off"])
def test_an_update_that_computes_its_old_logprobs_is_the_one_that_is_given_them(name, sizes):
    """On policy, and over several minibatches and epochs, of which only the first is; in float64, in micro-batches."""
    make, algorithm, options = CASES[name]
    groups = sampled_by_an_engine(math.log(1.2)) if options else GROUPS
    found = []
    for step in (None, 3):
        policy = trainer(dtype=torch.float64)
        with torch.no_grad():
            for parameter in policy.network.parameters():
                parameter.mul_(1.05)
        critic = TorchTrainer(ValueNetwork(tiny_model(seed=1).base_model), OPTIMIZATION) if algorithm is PPO else None
        part = replace(updater(policy, make(), algorithm(), critic=critic, budget=16, **sizes), **options)
        anchors = Anchors((ACCEPTED,) if isinstance(part.constraint, Dynamic) else ())
        rows = collate(groups, anchors.refinements, merge=False)
        batch, others = part.measure(rows, NOTHING, kl=True, step=step)
        assert bool(batch.fresh.any()) == (step is not None)
        penalty, charged = part.penalty(batch, anchors)
        update = part.update(part.algorithm.advantages(batch, penalty, part.world), 3, others)
        found.append((dict(policy.network.named_parameters()), {**charged, **update.metrics}))
    (weights, metrics), (mine, computed) = found
    del metrics["update/constraint_share"], computed["update/constraint_share"]  # of less work it is more
    for name, weight in weights.items():
        assert torch.allclose(mine[name], weight, rtol=0, atol=1e-12), name
    assert computed == pytest.approx(metrics, rel=1e-9, abs=1e-12, nan_ok=True)


class Reader(DAPO):
    """Its advantages are the old logprobs."""

    def advantages(self, batch, penalty, world):
        return batch.with_advantages(batch.old_logprobs * batch.mask)


def test_advantages_that_read_the_old_logprobs_find_them():
    part = updater(trainer(), NoConstraint(), Reader())
    batch, _ = part.measure(collate(GROUPS), NOTHING, kl=False, step=1)
    assert batch.old_logprobs.isfinite().all()
    assert not batch.fresh.any()
    assert part.measure(collate(GROUPS), NOTHING, kl=False)[0].old_logprobs.equal(batch.old_logprobs)
    own = updater(trainer(), NoConstraint(), type("Own", (Reader,), {"reads_old_logprobs": False})())
    assert not own.measure(collate(GROUPS), NOTHING, kl=False, step=1)[0].fresh.any()  # said where advantages is not


def test_a_batch_that_was_measured_for_another_step_is_refused():
    part = updater(trainer(), NoConstraint(), minibatch=2)
    rows = collate(GROUPS)
    steps = range(1, 9)
    chosen = {
        step: frozenset(part.measure(rows, NOTHING, kl=False, step=step)[0].fresh.nonzero().flatten().tolist())
        for step in steps
    }
    other = next(step for step in steps if chosen[step] != chosen[1])
    batch, _ = part.measure(rows, NOTHING, kl=False, step=1)
    with pytest.raises(ValueError, match="measured for the step"):
        part.update(batch.with_advantages(batch.mask.float()), other)


def test_an_offloaded_reference_is_on_its_device_exactly_while_it_is_asked():
    """No second device is at hand, so the network notes where it was sent instead of going there."""
    moves = []

    class Traveller(PolicyNetwork):
        def to(self, device):
            moves.append(device)
            return self

        def forward(self, rows, weights=None):
            moves.append("forward")
            return super().forward(rows, weights)

    part = updater(trainer(), NoConstraint(), budget=12)
    expected, _ = part.measure(collate(GROUPS), NOTHING, kl=True)
    away = replace(part, reference=TorchTrainer(Traveller(tiny_model()), home="cuda:7"))
    found, _ = away.measure(collate(GROUPS), NOTHING, kl=True)
    assert torch.equal(found.reference_logprobs, expected.reference_logprobs)
    assert (moves[0], moves[-1]) == ("cuda:7", "cpu")
    assert len(moves) > 3  # of several micro-batches
    assert set(moves[1:-1]) == {"forward"}
    with pytest.raises(ValueError, match="home must be None"):
        TorchTrainer(PolicyNetwork(tiny_model()), OPTIMIZATION, home="cpu")


def test_ppo_trains_policy_and_critic_over_epochs_and_minibatches():
    critic = TorchTrainer(ValueNetwork(tiny_model(seed=1).base_model), OPTIMIZATION)
    part = updater(trainer(), NoConstraint(), PPO(), critic=critic, minibatch=2, epochs=3)
    batch = prepared(part)
    assert not batch.values.any()  # a zero head
    update = part.update(batch, step=1)
    assert (update.steps, update.skipped) == (6, ())
    assert {"critic/loss", "critic/grad_norm", "policy/grad_norm", "policy/loss"} <= update.metrics.keys()
    again, _ = part.measure(collate(GROUPS), NOTHING, kl=False)
    assert again.values.any()


def test_a_group_without_signal_and_nothing_accepted_takes_no_step():
    policy = trainer()
    before = {n: p.clone() for n, p in policy.network.named_parameters()}
    part = updater(policy, dynamic())
    dropped = [group("d", ([1], -1.0), ([2], -1.0), surrogate=False)]
    update = part.update(prepared(part, groups=dropped), step=1)
    assert (update.steps, update.skipped) == (0, ())
    assert all(torch.equal(before[n], p) for n, p in policy.network.named_parameters())


def test_dropped_rollouts_count_in_b_and_not_in_the_surrogate():
    dropped = group("d", ([11, 12], -1.0), ([13], -1.0), surrogate=False)
    policy = trainer(KeepsGradients, dtype=torch.float64)
    part = updater(policy, dynamic(), minibatch=4)
    refined = refinement(dropped.rollouts[0], [40], 1.0)
    update = part.update(prepared(part, [refined], groups=[A, dropped]), step=1)
    with torch.no_grad():
        nll = -part.policy.forward(collate([dropped], [refined])).logprobs[2, 0].item()
    assert update.metrics["constraint/cost"] == pytest.approx(nll / 4, rel=1e-6)


def test_a_loss_that_is_not_finite_skips_the_step_and_is_named():
    policy = trainer()
    part = updater(policy, dynamic())
    batch = prepared(part, [ACCEPTED])
    before = {n: p.clone() for n, p in policy.network.named_parameters()}
    update = part.update(batch.with_(advantages=batch.advantages * math.inf), step=1)
    assert (update.steps, update.skipped) == (0, ("policy loss",))
    assert all(torch.equal(before[n], p) for n, p in policy.network.named_parameters())
    assert all(p.grad is None for p in policy.network.parameters())


def test_a_gradient_that_is_not_finite_skips_the_step_and_names_the_weight():
    policy = trainer()
    name, weight = next((n, p) for n, p in policy.network.model.named_parameters() if "q_proj" in n)
    handle = weight.register_hook(lambda gradient: gradient * math.nan)
    part = updater(policy, dynamic())
    update = part.update(prepared(part, [ACCEPTED]), step=1)
    assert update.steps == 0
    assert update.skipped == (f"gradient of the policy ({name})",)
    handle.remove()
    assert part.update(prepared(part, [ACCEPTED]), step=2).steps == 1


def test_an_unscored_rollout_has_no_part_in_the_surrogate():
    with_none = [group("a", ([11, 12, 13], 0.0), ([14, 15], 1.0), ([50, 51, 52], None))]
    without = [group("a", ([11, 12, 13], 0.0), ([14, 15], 1.0))]
    found = []
    for groups in (with_none, without):
        policy = trainer(KeepsGradients, dtype=torch.float64)
        part = updater(policy, NoConstraint())
        part.update(prepared(part, groups=groups), step=1)
        found.append(gradients(policy))
    for name, gradient in found[0].items():
        assert torch.allclose(found[1][name], gradient, rtol=0, atol=1e-7), name


def sampled_by_an_engine(difference: float) -> list:
    """The groups with the trainer's own logprobs, less a difference in each token."""
    part = updater(trainer(), NoConstraint())
    old = part.measure(collate(GROUPS), NOTHING, kl=False)[0].old_logprobs
    row = 0
    groups = []
    for g in GROUPS:
        rollouts = []
        for r in g.rollouts:
            found = tuple((old[row, : len(r.completion.token_ids)] - difference).tolist())
            rollouts.append(replace(r, completion=replace(r.completion, logprobs=found)))
            row += 1
        groups.append(replace(g, rollouts=tuple(rollouts)))
    return groups


@pytest.mark.parametrize(
    ("correction", "weights"), [("off", [1, 1, 1]), ("token", [1.2] * 3), ("sequence", [1.728, 1.44, 2])]
)
def test_the_engines_mismatch_is_measured_and_weighs_the_surrogate(correction, weights):
    """Every token was 1.2 times less likely to the engine, so a response of n tokens 1.2ⁿ times; the cap is 2."""
    groups = sampled_by_an_engine(math.log(1.2))
    part = replace(updater(trainer(), NoConstraint()), correction=correction, correction_cap=2.0)
    batch, others = part.measure(collate(groups), NOTHING, kl=False)
    metrics = part.metrics(batch, others)
    assert metrics["policy/mismatch_max"] == pytest.approx(math.log(1.2), abs=1e-5)
    assert metrics["policy/mismatch_kl"] == pytest.approx(0.2 - math.log(1.2), abs=1e-5)
    for row, weight in zip((0, 1, 2), weights, strict=True):
        length = int(batch.mask[row].sum())
        assert batch.correction[row, :length].tolist() == pytest.approx([weight] * length, abs=1e-5)
    losses = {}
    for name, corrected in (("with", batch), ("without", batch.with_(correction=torch.ones_like(batch.correction)))):
        advantages = torch.zeros(batch.mask.shape)
        advantages[0] = 1.0
        policy = trainer(KeepsGradients)
        fresh = replace(part, policy=policy)
        losses[name] = fresh.update(corrected.with_advantages(advantages), step=1).metrics["policy/loss"]
    assert losses["with"] == pytest.approx(weights[0] * losses["without"], rel=1e-5)


def test_logprobs_that_an_engine_did_not_give_are_no_mismatch():
    part = updater(trainer(), NoConstraint())
    metrics = part.metrics(*part.measure(collate(GROUPS), NOTHING, kl=False))
    assert math.isnan(metrics["policy/mismatch_kl"])
    assert math.isnan(metrics["policy/mismatch_max"])


class Odd(DAPO):
    """Its ratio is 3, its lower clip stops everything, and it weighs nothing."""

    def ratio(self, logprobs, batch):
        return logprobs * 0 + 3

    def clipped(self, ratio, batch):
        return ratio == 3, ratio != 3

    def weights(self, mask, tokens, sequences):
        return mask * 0.0


def test_clip_fractions_ratio_and_mean_are_the_algorithms_own():
    part = updater(trainer(), NoConstraint(), Odd())
    metrics = part.update(prepared(part), step=1).metrics
    names = ("policy/ratio_max", "policy/clip_fraction_low", "policy/clip_fraction_high", "policy/loss")
    assert [metrics[name] for name in names] == [3, 1, 0, 0]


def test_constraints_add_up():
    """The gradient of a sum is the sum of the gradients, each with its own β, mean and metrics."""
    refinements = (ACCEPTED, REJECTED)
    parts = {
        "dynamic": lambda: dynamic(),
        "static": lambda: Static(beta=0.3, apply="loss", estimator="k3", reduction="sequence"),
        "charged": lambda: Static(beta=0.25),
        "too": lambda: Static(beta=0.1, estimator="k3"),
    }

    def run(*names):
        policy = trainer(KeepsGradients, dtype=torch.float64)
        with torch.no_grad():
            for parameter in policy.network.parameters():
                parameter.mul_(1.05)
        chosen = [(name, parts[name]()) for name in names]
        constraint = Sum(chosen) if len(chosen) > 1 else chosen[0][1] if chosen else NoConstraint()
        part = updater(policy, constraint, PPO(), critic=None)
        batch, _ = part.measure(collate(GROUPS, refinements, merge=False), NOTHING, kl=True)
        penalty, charged = part.penalty(batch, Anchors(tuple(refinements)))
        metrics = part.update(batch.with_advantages(batch.mask.float()), step=1).metrics
        return gradients(policy), penalty, {**charged, **metrics}

    none, _, _ = run()
    dynamic_alone, _, first = run("dynamic")
    static_alone, _, second = run("static")
    _, penalty, third = run("charged")
    _, more, _ = run("too")
    both, found, metrics = run("dynamic", "static", "charged", "too")
    for name, gradient in both.items():
        expected = dynamic_alone[name] + static_alone[name] - none[name]
        assert torch.allclose(gradient, expected, rtol=1e-9, atol=1e-10), name
    assert torch.equal(found, penalty + more)
    assert metrics["constraint/dynamic/ce"] == pytest.approx(first["constraint/ce"], rel=1e-12)
    assert metrics["constraint/static/cost"] == pytest.approx(second["constraint/cost"], rel=1e-12)
    assert metrics["constraint/charged/cost"] == pytest.approx(third["constraint/cost"], rel=1e-12)
    assert metrics["constraint/loss"] == pytest.approx(first["constraint/loss"] + second["constraint/loss"], rel=1e-12)
    assert first["constraint/cost"] > 0 < second["constraint/cost"]


@pytest.mark.parametrize("budget", [10_000, 16])
@pytest.mark.parametrize("constraint", [dynamic(), Static(beta=0.5, apply="loss", estimator="k3")], ids=["dyn", "k3"])
def test_the_constraints_share_of_the_gradient_is_that_of_plain_autograd(constraint, budget):
    """By log-softmax in float64, where the surrogate's gradient is −A·∇log π (the ratio is 1)."""
    policy = trainer(dtype=torch.float64)
    with torch.no_grad():
        for parameter in policy.network.parameters():
            parameter.mul_(1.05)  # away from the reference
    twin = tiny_model().double()
    twin.load_state_dict(policy.network.model.state_dict())
    part = updater(policy, constraint, budget=budget)
    batch = prepared(part, [ACCEPTED, REJECTED] if isinstance(constraint, Dynamic) else [])
    update = part.update(batch, step=1, share=True)

    y, tokens = torch.nonzero(batch.surrogate).flatten().tolist(), float(batch.mask[batch.surrogate].sum())
    surrogate, cost = 0.0, 0.0
    for row in range(len(batch)):
        x, width = int(batch.prompt_lengths[row]), int(batch.mask[row].sum())
        logits = twin(batch.input_ids[row : row + 1, : x + width]).logits[0, x - 1 : -1]
        logprobs = logits.log_softmax(-1).gather(1, batch.targets[row, :width, None])[:, 0]
        if row in y:
            surrogate = surrogate - (batch.advantages[row, :width] * logprobs).sum() / tokens
            d = logprobs - batch.reference_logprobs[row, :width]
            if isinstance(constraint, Static):
                cost = cost + 0.5 * ((-d).exp() - 1 + d).sum() / tokens
        else:
            cost = cost - 0.5 * logprobs.sum() / len(y)
    parameters = list(twin.parameters())
    alone = torch.autograd.grad(cost, parameters, retain_graph=True)
    whole = torch.autograd.grad(surrogate + cost, parameters)
    expected = math.sqrt(sum(float(g.square().sum()) for g in alone) / sum(float(g.square().sum()) for g in whole))
    assert update.metrics["constraint/gradient_share"] == pytest.approx(expected, rel=1e-6)
    assert 0.01 < expected < 10
    assert "constraint/gradient_share" not in part.update(batch, step=2).metrics


def test_the_share_is_zero_where_nothing_was_accepted_and_absent_without_a_constraint():
    for constraint, share in ((dynamic(), 0.0), (NoConstraint(), None), (dynamic(apply="reward"), None)):
        part = updater(trainer(), constraint)
        metrics = part.update(prepared(part, [REJECTED], merge=False), step=1, share=True).metrics
        assert metrics.get("constraint/gradient_share") == share


def test_measuring_the_share_changes_nothing_else():
    found = []
    for share in (False, True):
        policy = trainer()
        part = updater(policy, dynamic(), minibatch=2, epochs=2)
        metrics = part.update(prepared(part, [ACCEPTED], merge=False), step=1, share=share).metrics
        found.append(({k: v for k, v in metrics.items() if "share" not in k}, [*policy.network.parameters()]))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(a, b) for a, b in zip(found[0][1], found[1][1], strict=True))


def test_two_constraints_on_the_refinements_are_refused():
    part = updater(trainer(), Sum([("a", dynamic()), ("b", dynamic())]))
    with pytest.raises(ValueError, match="at most one constraint may hold the refinements"):
        part.update(prepared(part, (ACCEPTED, REJECTED), merge=False), step=1)


def test_a_constraint_on_refinements_must_say_its_loss():
    class Own(Static):
        def rows(self, batch):
            return batch.is_constraint

    part = updater(trainer(), Own(apply="loss"))
    with pytest.raises(TypeError, match=r"Own.loss must then be made of outputs.weighted_nll"):
        part.update(prepared(part, (ACCEPTED, REJECTED)), step=1)


@pytest.mark.parametrize(
    ("constraint", "algorithm"),
    [(dynamic(), DAPO()), (Static(beta=0.5, apply="loss"), PPO()), (Static(beta=0.5, apply="reward"), DAPO())],
)
@pytest.mark.parametrize("budget", [16, 10_000])
def test_the_progress_of_an_update_reaches_its_end(constraint, algorithm, budget):
    """Its bar used to stand still."""
    critic = TorchTrainer(ValueNetwork(tiny_model(seed=1).base_model), OPTIMIZATION) if algorithm.needs_critic else None
    part = updater(trainer(), constraint, algorithm, critic=critic, budget=budget, epochs=2, minibatch=2)
    done, total = [], []
    part = replace(part, progress=done.append, expect=total.append)
    refinements = [ACCEPTED] if isinstance(constraint, Dynamic) else []
    part.update(prepared(part, refinements, merge=False), step=1)
    assert total == [sum(done)]
    assert len(done) > 5
    if budget == 16:
        assert max(done) < total[0] / 4  # in many small steps


def test_the_learning_rate_is_that_of_the_steps_that_were_taken():
    schedule = Schedule("linear", total_steps=4)
    policy = TorchTrainer(PolicyNetwork(tiny_model()), replace(OPTIMIZATION, schedule=schedule))
    part = updater(policy, dynamic(), epochs=2)
    assert part.update(prepared(part), step=1).metrics["policy/learning_rate"] == pytest.approx(1e-2 * (1 + 0.75) / 2)
    bad = prepared(part)
    bad = bad.with_(advantages=bad.advantages * math.nan)
    assert "policy/learning_rate" not in part.update(bad, step=2).metrics
