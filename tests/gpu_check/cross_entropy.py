"""Cross-entropy from hidden states to gradients at a large vocabulary, beside its rivals: time, memory, error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gpu_check.site import Fact, Site
from gpu_check.timing import flops_per_second, measure
from refinerl.kernels.cross_entropy import sequence_cross_entropy, token_logprobs

LARGE = (8192, 1536, 151_936)
SMALL = (64, 32, 500)
"""Rows, width, vocabulary."""
ERROR = 0.02
"""Of our gradients, relative to their norm: bfloat16 has 8 bits."""


@dataclass(frozen=True)
class Problem:
    """The mean of −log p over N tokens."""

    hidden: Tensor  # (N, H) bfloat16
    head: Tensor  # (V, H) bfloat16
    targets: Tensor  # (N,)
    weights: Tensor  # (N,)

    @staticmethod
    def make(shape: tuple[int, int, int], device: str) -> Problem:
        """Random, of logits with a spread of about one nat."""
        rows, width, vocabulary = shape
        noise = torch.Generator(device).manual_seed(0)
        hidden = torch.randn(rows, width, generator=noise, device=device).bfloat16().requires_grad_()
        head = (torch.randn(vocabulary, width, generator=noise, device=device) / width**0.5).bfloat16()
        targets = torch.randint(0, vocabulary, (rows,), generator=noise, device=device)
        weights = torch.full((rows,), 1.0 / rows, device=device)
        return Problem(hidden, head.requires_grad_(), targets, weights)


def run(site: Site) -> Iterator[Fact]:
    problem = Problem.make(SMALL if site.rehearsing else LARGE, site.device)
    rows, width = problem.hidden.shape
    rate = flops_per_second(site.device)
    floor = 3 * 2 * rows * width * len(problem.head) / rate
    yield {
        "rows": rows,
        "width": width,
        "vocabulary": len(problem.head),
        "tflops_of_a_product": round(rate / 1e12, 1),
        "floor_of_three_products_ms": round(1e3 * floor, 2),
    }
    exact = Exact(problem)
    for name, (loss, ours) in contestants(problem, site).items():
        try:
            yield measured(name, loss, problem, exact, site, ours=ours)
        except Exception as error:
            said = f"{type(error).__name__}: {str(error)[:300]}"
            yield {"who": name, "error": said, **({"wrong": f"{name}: {said}"} if ours else {})}


def contestants(problem: Problem, site: Site) -> dict[str, tuple[Callable[[], Tensor], bool]]:
    """Name -> its loss, and whether it is ours."""
    hidden, head, targets, weights = problem.hidden, problem.head, problem.targets, problem.weights

    def eager() -> Tensor:
        return F.cross_entropy(F.linear(hidden, head).float(), targets)

    found: dict[str, tuple[Callable[[], Tensor], bool]] = {
        "ours, weights known": (lambda: sequence_cross_entropy(hidden, head, targets, weights=weights).cost, True),
        "ours, logprobs": (lambda: -(token_logprobs(hidden, head, targets)[0] * weights).sum(), True),
        "our twin in PyTorch": (
            lambda: sequence_cross_entropy(hidden, head, targets, weights=weights, impl="torch").cost,
            False,
        ),
        "eager": (eager, False),
    }
    if not site.rehearsing:
        found["torch.compile"] = torch.compile(eager), False
        found["liger"] = (lambda: _liger(hidden, head, targets)), False
    return found


def measured(name: str, loss: Callable[[], Tensor], problem: Problem, exact: Exact, site: Site, *, ours: bool) -> Fact:
    """Forward and backward of one of them."""

    def clear() -> None:
        problem.hidden.grad = problem.head.grad = None

    def work() -> None:
        loss().backward()
        clear()

    few = 2 if site.rehearsing else 10
    timing = measure(work, site.device, repeat=few)
    forward = measure(lambda: loss().detach(), site.device, repeat=few)
    value = loss()
    value.backward()
    errors = exact.errors()
    clear()
    fact = {
        "who": name,
        "ms": round(timing.ms, 2),
        "forward_ms": round(forward.ms, 2),
        "peak_gib": None if timing.peak_gib is None else round(timing.peak_gib, 3),
        "loss_error": abs(float(value.detach()) - exact.loss),
        **errors,
    }
    if ours and not max(errors.values()) < ERROR:
        fact["wrong"] = f"{name}: the gradients are off by {max(errors.values()):.3g} of their norm"
    return fact


class Exact:
    """The loss, and a part of both gradients, in float64."""

    def __init__(self, problem: Problem, chunk: int = 512) -> None:
        self._problem = problem
        hidden, head = problem.hidden.detach().double(), problem.head.detach().double()
        count = len(hidden)
        self._rows = slice(0, 64)
        self._words = torch.cat([problem.targets[:256], torch.arange(256, device=head.device) % len(head)])
        nll = 0.0
        to_words = torch.zeros(len(self._words), hidden.shape[1], dtype=torch.float64, device=head.device)
        for first in range(0, count, chunk):
            part = slice(first, first + chunk)
            targets = problem.targets[part]
            slopes = (hidden[part] @ head.T).log_softmax(-1)
            nll -= float(slopes.gather(1, targets[:, None]).sum())
            slopes.exp_()
            slopes[torch.arange(len(targets), device=head.device), targets] -= 1.0
            if first == 0:
                self._to_hidden = slopes[self._rows] @ head / count
            to_words += slopes[:, self._words].T @ hidden[part] / count
        self.loss, self._to_words = nll / count, to_words

    def errors(self) -> dict[str, float]:
        """Of the gradients that the tensors hold, relative to the norm of the exact ones."""
        hidden, head = self._problem.hidden.grad, self._problem.head.grad
        assert hidden is not None
        assert head is not None
        return {
            "hidden_error": _relative(hidden[self._rows], self._to_hidden),
            "head_error": _relative(head[self._words], self._to_words),
        }


def _relative(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


def _liger(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    found = liger_fused_linear_cross_entropy(hidden, head, targets, reduction="mean")
    return found[0] if isinstance(found, tuple) else found
