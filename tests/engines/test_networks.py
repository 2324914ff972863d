"""What the networks compute equals the plain model, row by row, in float64."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModel, Gemma2Config, Gemma2ForCausalLM

from refinerl.engines.networks import PolicyNetwork, ValueNetwork
from refinerl.errors import UserError
from refinerl.records import Rows
from tiny import make_rows, tiny_model

PROMPTS = [(5, 6, 7), (8,), (9, 10, 11, 12, 13), (5, 6, 7)]
COMPLETIONS = [(20, 21), (22, 23, 24, 25, 26, 2), (27, 2), (20, 30, 2)]


def exact(network: PolicyNetwork, rows: Rows, r: int) -> tuple[Tensor, Tensor]:
    """Logprobs and entropies of row r's targets, alone and unpadded, from the model's own logits."""
    prompt, width = int(rows.prompt_lengths[r]), int(rows.mask[r].sum())
    logits = network.model(rows.input_ids[r : r + 1, : prompt + width]).logits[0, prompt - 1 : -1]
    log_pi = (logits / network.temperature).log_softmax(-1)
    return log_pi.gather(1, rows.targets[r, :width, None])[:, 0], -(log_pi.exp() * log_pi).sum(-1)


@pytest.fixture(params=["tied", "untied"])
def policy(request: pytest.FixtureRequest) -> PolicyNetwork:
    return PolicyNetwork(tiny_model(tied=request.param == "tied").double(), temperature=0.7)


@pytest.mark.parametrize("gradients", [True, False])
def test_policy_equals_the_model(policy: PolicyNetwork, gradients: bool) -> None:
    rows = make_rows(PROMPTS, COMPLETIONS, refined=[3])
    with torch.set_grad_enabled(gradients):
        outputs = policy(rows, torch.tensor([0, 0, 0, 0.25], dtype=torch.float64))
    for r, completion in enumerate(COMPLETIONS):
        logprobs, entropies = exact(policy, rows, r)
        torch.testing.assert_close(outputs.logprobs[r, : len(completion)], logprobs, atol=1e-10, rtol=0)
        torch.testing.assert_close(outputs.entropies[r, : len(completion)], entropies, atol=1e-10, rtol=0)
        assert not outputs.logprobs[r, len(completion) :].any()
    torch.testing.assert_close(outputs.weighted_nll, -0.25 * outputs.logprobs[3].sum())
    assert outputs.values is None


def test_constraint_gradient_is_plain_cross_entropy_and_zero_without_rows(policy: PolicyNetwork) -> None:
    rows, weights = make_rows(PROMPTS, COMPLETIONS, refined=[1, 3]), torch.tensor([0, 0.5, 0, 0.25]).double()
    policy(rows, weights).weighted_nll.backward()
    got = {name: p.grad.clone() for name, p in policy.named_parameters()}
    policy.zero_grad()
    nll = 0.0
    for r in (1, 3):
        prompt, completion = PROMPTS[r], COMPLETIONS[r]
        logits = policy.model(torch.tensor([[*prompt, *completion]])).logits[0, len(prompt) - 1 : -1] / 0.7
        nll = nll + weights[r] * F.cross_entropy(logits, torch.tensor(completion), reduction="sum")
    nll.backward()
    for name, p in policy.named_parameters():
        torch.testing.assert_close(got[name], p.grad, atol=1e-10, rtol=0)
    policy.zero_grad()
    policy(make_rows(PROMPTS, COMPLETIONS)).weighted_nll.backward()
    assert not any(p.grad.any() for p in policy.parameters() if p.grad is not None)


def test_y_gradient_is_that_of_the_logprobs(policy: PolicyNetwork) -> None:
    rows = make_rows(PROMPTS, COMPLETIONS)
    upstream = torch.randn(2, *rows.mask.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    outputs = policy(rows)
    (upstream[0] * outputs.logprobs + upstream[1] * outputs.entropies).sum().backward()
    got = {name: p.grad.clone() for name, p in policy.named_parameters()}
    policy.zero_grad()
    loss = 0.0
    for r, completion in enumerate(COMPLETIONS):
        logprobs, entropies = exact(policy, rows, r)
        u = upstream[:, r, : len(completion)]
        loss = loss + (u[0] * logprobs + u[1] * entropies).sum()
    loss.backward()
    for name, p in policy.named_parameters():
        torch.testing.assert_close(got[name], p.grad, atol=1e-10, rtol=0)


def test_no_rows(policy: PolicyNetwork) -> None:
    none = make_rows(PROMPTS, COMPLETIONS).select(torch.zeros(0, dtype=torch.int64))
    outputs = policy(none)
    assert outputs.logprobs.shape == (0, 0)
    assert outputs.weighted_nll.item() == 0.0
    values = ValueNetwork(tiny_model().model)(none).values
    assert values is not None
    assert values.shape == (0, 0)


def test_values_are_read_before_each_target() -> None:
    trunk = tiny_model().double().model
    critic = ValueNetwork(trunk)
    rows = make_rows(PROMPTS, COMPLETIONS)
    assert not critic(rows).values.any()
    with torch.no_grad():
        critic.head.weight.normal_(generator=torch.Generator().manual_seed(0))
        critic.head.bias.fill_(0.5)
    values = critic(rows).values
    for r, (prompt, completion) in enumerate(zip(PROMPTS, COMPLETIONS, strict=True)):
        hidden = trunk(torch.tensor([[*prompt, *completion]])).last_hidden_state[0]
        expected = critic.head(hidden)[len(prompt) - 1 : -1, 0]
        torch.testing.assert_close(values[r, : len(completion)], expected, atol=1e-10, rtol=0)
        assert not values[r, len(completion) :].any()


def test_critic_export(tmp_path: Path) -> None:
    critic = ValueNetwork(tiny_model().model)
    with torch.no_grad():
        critic.head.weight.normal_(generator=torch.Generator().manual_seed(0))
    critic.export(tmp_path)
    again = ValueNetwork(AutoModel.from_pretrained(tmp_path))
    again.head.load_state_dict(load_file(tmp_path / "value_head.safetensors"))
    rows = make_rows(PROMPTS, COMPLETIONS)
    assert torch.equal(again(rows).values, critic(rows).values)


def test_a_kernel_that_is_not_built_is_refused() -> None:
    with pytest.raises(UserError, match="the cross-entropy kernel 'cuda' cannot run here"):
        PolicyNetwork(tiny_model(), impl="cuda")


def test_capped_logits_are_refused() -> None:
    config = Gemma2Config(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        initializer_range=0.5,
        final_logit_softcapping=5.0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Gemma2ForCausalLM(config).eval()
    with pytest.raises(UserError, match=r"'gemma2' cannot be trained: .*soft-capping"):
        PolicyNetwork(model)
