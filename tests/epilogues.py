"""Cases that every epilogue must pass, and the rule of accuracy that it is held to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

INFINITE = float("inf")


@dataclass(frozen=True)
class Case:
    name: str
    logits: Tensor  # (N, V)
    targets: Tensor  # (N,)
    scale: float = 1.0

    def to(self, device: torch.device | str) -> Case:
        wide = torch.empty_strided(self.logits.shape, self.logits.stride(), dtype=self.logits.dtype, device=device)
        return Case(self.name, wide.copy_(self.logits), self.targets.to(device), self.scale)


def cases(dtype: torch.dtype) -> Iterator[Case]:
    noise = torch.Generator().manual_seed(7)

    def normal(rows: int, length: int, width: float = 3.0) -> Tensor:
        return (torch.randn(rows, length, generator=noise) * width).to(dtype)

    def targets(rows: int, length: int) -> Tensor:
        """Both ends first, an ignored row third."""
        chosen = torch.randint(0, length, (rows,), generator=noise)
        for row, target in enumerate((0, length - 1, -100)[:rows]):
            chosen[row] = target
        return chosen

    for length in (1, 2, 7, 31, 64, 517, 1042, 4099):
        for rows in (1, 5):
            yield Case(f"{rows} rows of {length}", normal(rows, length), targets(rows, length), 1.3)
    for offset in (1, 3, 5):
        wide = normal(6, 530)
        yield Case(f"rows apart, {offset} items in", wide[:, offset : offset + 521], targets(6, 521), 0.7)
    yield Case("many rows", normal(10_000, 37), targets(10_000, 37))
    yield Case("no rows", normal(0, 37), targets(0, 37))
    far = (torch.randint(0, 2, (6, 300), generator=noise) * 2 - 1).to(dtype) * 1e4
    yield Case("±1e4", far, targets(6, 300))
    yield Case("around 1e4", (1e4 + normal(6, 300).float() * 20).to(dtype), targets(6, 300), 1 / 0.7)
    yield Case("around −1e4", (-1e4 + normal(6, 300).float() * 20).to(dtype), targets(6, 300))
    confident, chosen = 1e4 + normal(6, 300).float() * 2, targets(6, 300)
    confident[torch.arange(6), chosen] += torch.tensor([40.0, 60.0, 0.0, 200.0, 20.0, 10.0])
    yield Case("confident around 1e4", confident.to(dtype), chosen)
    certain = torch.full((6, 300), -1e4, dtype=dtype)
    chosen = targets(6, 300)
    certain[torch.arange(6), chosen.clamp_min(0)] = 1e4
    yield Case("one token certain", certain, chosen)
    yield Case("another token certain", certain.roll(1, 1), chosen)
    impossible = normal(6, 4000)
    impossible[:, ::3] = -INFINITE
    impossible[0, 1:] = -INFINITE
    impossible[3, :3999] = -INFINITE
    chosen = targets(6, 4000)
    chosen[0], chosen[3] = 0, 3999
    impossible[torch.arange(6)[chosen >= 0], chosen[chosen >= 0]] = 1.0
    impossible[4, chosen[4]] = -INFINITE
    yield Case("impossible tokens", impossible, chosen)
    masked = normal(4, 4000)
    masked[:, :2048] = torch.finfo(dtype).min
    yield Case("tokens masked by the lowest number", masked, torch.tensor([2500, 3999, -100, 0]))


@dataclass(frozen=True)
class Results:
    nll: Tensor
    entropy: Tensor
    gradient: Tensor


def naive(case: Case, weights: Tensor, tilt: Tensor | None, precision: torch.dtype) -> Results:
    """Plain PyTorch in a precision; gradients rounded to the type of the logits unless that precision is float64."""
    logits = case.logits.to(precision, copy=True).requires_grad_()
    log_p = (logits * case.scale).log_softmax(-1)
    kept = case.targets != -100
    finite = log_p.clamp_min(torch.finfo(precision).min)
    nll = -log_p.gather(-1, case.targets.clamp_min(0)[:, None]).squeeze(-1).where(kept, 0)
    entropy = -(log_p.exp() * finite).sum(-1).where(kept, 0)
    # Differentiated apart, and only the finite rows of nll: autograd multiplies infinities by zero.
    total = (weights.to(precision) * nll).sum() + (0 if tilt is None else (tilt.to(precision) * entropy).sum())
    (gradient,) = torch.autograd.grad(total, logits)
    if precision != torch.float64:
        gradient = gradient.to(case.logits.dtype)
    return Results(nll.detach(), entropy.detach(), gradient)


def held(name: str, ours: Tensor, theirs: Tensor, exact: Tensor) -> None:
    """Error against float64 at most twice that of the naive computation + 1e-6 of the largest value."""
    ours, theirs, exact = ours.double().cpu(), theirs.double().cpu(), exact.cpu()
    odd = ~exact.isfinite()
    assert torch.equal(ours[odd], exact[odd]), f"{name}: {ours[odd]}, not {exact[odd]}"
    if odd.all():
        return
    error, allowed = (ours - exact)[~odd].abs().max(), (theirs - exact)[~odd].abs().max()
    bound = 2 * allowed + 1e-6 * exact[~odd].abs().max()
    assert error <= bound, f"{name}: error {error:.3g}, the naive computation's {allowed:.3g}, allowed {bound:.3g}"


def check(epilogue: Any, case: Case) -> None:
    """Runs an epilogue's calls on a case, which may be on any device."""
    device, rows = case.logits.device, len(case.logits)
    noise = torch.Generator().manual_seed(3)
    weights, tilt = torch.rand(2, rows, generator=noise).to(device)
    weights[::4] = 0.0

    logits = duplicate(case.logits)
    nll, entropy = epilogue.statistics(logits, case.targets, case.scale)
    assert torch.equal(logits, case.logits)
    for slopes in (None, tilt):
        exact, rounded = (naive(case, weights, slopes, precision) for precision in (torch.float64, torch.float32))
        held(f"{case.name}: nll", nll, rounded.nll, exact.nll)
        held(f"{case.name}: entropy", entropy, rounded.entropy, exact.entropy)
        logits = duplicate(case.logits)
        nll, entropy = epilogue.fused(logits, case.targets, weights, slopes, case.scale)
        held(f"{case.name}: nll of fused", nll, rounded.nll, exact.nll)
        held(f"{case.name}: entropy of fused", entropy, rounded.entropy, exact.entropy)
        held(f"{case.name}: gradient", logits, rounded.gradient, exact.gradient)


def duplicate(tensor: Tensor) -> Tensor:
    """A copy whose rows lie as far apart and as misaligned as the original's."""
    rows, length = tensor.shape
    stride, start = tensor.stride(0), tensor.storage_offset()
    memory = torch.zeros(start + rows * stride + length, dtype=tensor.dtype, device=tensor.device)
    return memory.as_strided((rows, length), (stride, 1), start).copy_(tensor)
