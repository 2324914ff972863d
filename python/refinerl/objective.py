"""The equations as pure tensor functions. Imports no other module of the package.

Numbers refer to arXiv:2603.18088; docs/equations.md says what the paper leaves open and what is chosen here. Tensors
are (R, T): R rows, T target tokens; `mask` (R, T) bool marks the tokens that exist. Costs and logprobs are nats.

Only methods of tensors are called, so that torch is imported for its types alone: `--help` reads the options of every
algorithm and constraint without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

KL_CLAMP = 10.0
"""Nats. A token's KL estimate, and its cross-entropy where that becomes a reward, are clamped to ±10 (OpenRLHF)."""

REWARD_CLIP = 10.0
"""PPO clips R(x, y) to ±10 before it enters the token rewards, as in OpenRLHF."""

Estimator = Literal["k1", "k2", "k3"]
Reduction = Literal["sequence", "token"]


# --- the surrogates (Eq. 1's J for PPO and DAPO) --------------------------------------------------


def policy_ratio(logprobs: Tensor, old_logprobs: Tensor) -> Tensor:
    """Return ρ_t = exp(log π_θ(y_t) − log π_old(y_t)), (R, T)."""
    return (logprobs - old_logprobs).exp()


def clipped_objective(ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """Return −min(ρA, clip(ρ, 1 − ε_low, 1 + ε_high)·A) for ratios ρ (R, T) of tokens or of whole responses.

    PPO has ε_low = ε_high, DAPO ε_low < ε_high.

    >>> import torch
    >>> ratio, advantages = torch.tensor([1.5, 1.5, 0.5]), torch.tensor([1.0, -1.0, -1.0])
    >>> clipped_objective(ratio, advantages, clip_low=0.2, clip_high=0.2)
    tensor([-1.2000,  1.5000,  0.8000])
    """
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    return -(ratio * advantages).minimum(clipped * advantages)


def clipped_tokens(ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float) -> tuple[Tensor, Tensor]:
    """Return two (R, T) bool masks: tokens whose gradient is stopped by the lower and by the upper clip."""
    return (ratio < 1 - clip_low) & (advantages < 0), (ratio > 1 + clip_high) & (advantages > 0)


def token_weights(mask: Tensor, reduction: Reduction, tokens: float, sequences: float) -> Tensor:
    """Return the (R, T) weights that turn a sum over tokens into the mean of the loss.

    `token`: 1/`tokens`, one mean over all tokens of the minibatch on all ranks (DAPO; OpenRLHF's PPO). `sequence`: the
    mean over each response, then over the `sequences` responses.

    >>> import torch
    >>> mask = torch.tensor([[True, True], [True, False]])
    >>> token_weights(mask, "token", tokens=3, sequences=2)
    tensor([[0.3333, 0.3333],
            [0.3333, 0.0000]])
    >>> token_weights(mask, "sequence", tokens=3, sequences=2)
    tensor([[0.2500, 0.2500],
            [0.5000, 0.0000]])
    """
    if reduction == "token":
        return mask / max(tokens, 1.0)
    return mask / mask.sum(-1, keepdim=True).clamp(min=1) / max(sequences, 1.0)


# --- engine and trainer ---------------------------------------------------------------------------


def truncated_importance(
    old_logprobs: Tensor, sampling_logprobs: Tensor, mask: Tensor, level: Literal["token", "sequence"], cap: float
) -> Tensor:
    """Return min(w, cap), (R, T), detached: the weight of the surrogate for y that the engine μ sampled, not π_old.

    `token`: w_t = π_old(y_t) / μ(y_t) (truncated importance sampling, “TIS”: Yao et al. 2025, *Your Efficient RL
    Framework Secretly Brings You Off-Policy RL Training*). `sequence`: w = Π_t π_old(y_t) / μ(y_t), the same for each
    token of the response. Where the engine's logprobs are unknown (NaN), w is 1.
    """
    known = mask & sampling_logprobs.isfinite()
    d = (old_logprobs - sampling_logprobs).masked_fill(~known, 0.0).detach()
    if level == "sequence":
        d = d.sum(-1, keepdim=True).expand_as(d)
    return d.exp().clamp(max=cap)


def mismatch(old_logprobs: Tensor, sampling_logprobs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distance of the engine μ that sampled y from π_old on each token: KL(μ ‖ π_old) by k3, and |d|.

    k3 = exp(d) − 1 − d with d = log π_old − log μ, nats; NaN where the engine gave no logprob.
    """
    d = (old_logprobs - sampling_logprobs).double()
    return d.expm1() - d, d.abs()


# --- advantages -----------------------------------------------------------------------------------


def token_rewards(reward: Tensor, penalty: Tensor, mask: Tensor) -> Tensor:
    """Return r_t = −penalty_t, plus R(x, y) clipped to ±10 at the last token. `reward` (R,), `penalty` (R, T)."""
    last = mask & (mask.cumsum(-1) == mask.sum(-1, keepdim=True))
    return -penalty * mask + last * reward.clamp(-REWARD_CLIP, REWARD_CLIP).unsqueeze(-1)


def generalized_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Return GAE on the tokens of y, A_t = δ_t + γλ·A_{t+1} with δ_t = r_t + γV_{t+1} − V_t, and the returns A + V.

    V after the last token is 0, whether y ended with its EOS or was cut off (docs/equations.md gives the reason).
    """
    values = values * mask
    advantages = values.new_zeros(values.shape)
    following = values.new_zeros(len(values))
    for t in reversed(range(values.shape[1])):
        next_value = values[:, t + 1] if t + 1 < values.shape[1] else following.new_zeros(following.shape)
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        following = (delta + gamma * lam * following) * mask[:, t]
        advantages[:, t] = following
    return advantages, (advantages + values) * mask


def moments(x: Tensor, mask: Tensor) -> Tensor:
    """Return count, sum and sum of squares of the masked elements, (3,) float64, which add up over ranks."""
    kept = x[mask].double()
    return kept.new_tensor([float(kept.numel()), float(kept.sum()), float(kept.square().sum())])


def whiten(x: Tensor, mask: Tensor, total: Tensor) -> Tensor:
    """Return (x − mean) / sqrt(var + 1e-8); mean and (biased) variance are those of `moments` summed over ranks."""
    mean = total[1] / total[0].clamp(min=1)
    variance = (total[2] / total[0].clamp(min=1) - mean.square()).clamp(min=0)
    return ((x.double() - mean) * (variance + 1e-8).rsqrt()).to(x.dtype) * mask


def group_advantages(rewards: Tensor, penalties: Tensor | None = None) -> Tensor:
    """Return A_i = (R_i − mean) / (std + 1e-6) over a group's scored members (GRPO, DAPO), (n,) -> (n,).

    `penalties` (n,) are subtracted from the rewards, while std remains that of the rewards, with Bessel's correction:
    divided by their own deviation, penalties of any size would weigh as much as the task. Fewer than two members, or
    equal rewards, carry no signal: zeros.

    >>> import torch
    >>> group_advantages(torch.tensor([1.0, 0.0, 0.0]))
    tensor([ 1.1547, -0.5773, -0.5773])
    >>> group_advantages(torch.tensor([1.0, 1.0]), penalties=torch.tensor([0.2, 0.1])).tolist()
    [0.0, 0.0]
    """
    if rewards.numel() < 2 or bool((rewards == rewards[0]).all()):
        return rewards.new_zeros(rewards.shape)
    lowered = rewards if penalties is None else rewards - penalties
    return (lowered - lowered.mean()) / (rewards.std(unbiased=True) + 1e-6)


def penalty_to_go(penalty: Tensor, mask: Tensor) -> Tensor:
    """Return Σ_{s≥t} penalty_s for each token, (R, T): the part of an undiscounted return that is due to penalties."""
    return (penalty * mask).flip(-1).cumsum(-1).flip(-1) * mask


def overlong_penalty(lengths: Tensor, max_length: int, cache: int) -> Tensor:
    """Return DAPO's overlong shaping: 0 up to L_max − L_cache tokens, then linear to −1 at L_max. `lengths` (R,)."""
    if cache == 0:
        return lengths.double() * 0
    return ((max_length - cache - lengths).double() / cache).clamp(-1, 0)


# --- the critic -----------------------------------------------------------------------------------


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float) -> Tensor:
    """Return 0.5·max((V − G)², (clip(V, V_old ± ε_v) − G)²) for each token."""
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * (values - returns).square().maximum((clipped - returns).square())


# --- the constraints ------------------------------------------------------------------------------


def kl_estimate(logprobs: Tensor, reference_logprobs: Tensor, estimator: Estimator) -> Tensor:
    """Estimate KL(π_θ ‖ π_ref) on tokens of y (Eqs. 2–3): k1 = d, k2 = d²/2 or k3 = exp(−d) − 1 + d.

    d is log π_θ − log π_ref; the estimate is clamped to ±10.

    >>> import torch
    >>> logprobs, reference = torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.0])
    >>> kl_estimate(logprobs, reference, "k1"), kl_estimate(logprobs, reference, "k3")
    (tensor([ 0.5000, -1.0000]), tensor([0.1065, 0.7183]))
    """
    d = logprobs - reference_logprobs
    if estimator == "k1":
        estimate = d
    elif estimator == "k2":
        estimate = d.square() / 2
    else:
        estimate = (-d).expm1() + d
    return estimate.clamp(-KL_CLAMP, KL_CLAMP)


def cross_entropy_cost(logprobs: Tensor) -> Tensor:
    """Return CE_t = −log π_θ(ỹ_t | x, ỹ_<t) (Eq. 5): ỹ is conditioned on x and on its own prefix only."""
    return -logprobs


def constraint_weight(beta: float, reduction: Reduction, rollouts: float, tokens: float) -> float:
    """Return β/N, the weight of one constrained token's cost (Eqs. 4, 6).

    `sequence`: N = B, all rollouts of the minibatch, accepted or not: C = (1/B) Σ_i 1_i Σ_t CE_{i,t}.
    `token`: N = Σ_i 1_i·|ỹ_i|. 1_i is the filter; both N are counted over all ranks.

    >>> constraint_weight(0.5, "sequence", rollouts=4, tokens=10)
    0.125
    """
    return beta / max(rollouts if reduction == "sequence" else tokens, 1.0)
