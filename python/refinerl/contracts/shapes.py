"""The shape of what a part of the user's returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from refinerl.errors import UserError
from refinerl.records import Batch, Rows

if TYPE_CHECKING:  # --help reads the options of algorithms and constraints without torch
    from torch import Tensor


def for_tokens(found: Any, rows: Rows, part: object, method: str) -> Tensor:
    """Return what a part's method gave for the (R, T) tokens of `rows`; another shape would be broadcast silently.

    Raises:
        UserError: it is no tensor of that shape.
    """
    from torch import Tensor

    shape = tuple(rows.mask.shape)
    if isinstance(found, Tensor) and found.shape == shape:
        return found
    got = f"{tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
    raise UserError(f"{type(part).__name__}.{method} must return a value for each token, (R, T) = {shape}, got {got}")


def check_advantages(batch: Any, algorithm: object) -> None:
    """See that an algorithm's `advantages` made a batch of (R, T) advantages.

    Raises:
        UserError: it did not.
    """
    if not isinstance(batch, Batch):
        name = type(algorithm).__name__
        raise UserError(f"{name}.advantages must return a Batch, from with_advantages, got a {type(batch).__name__}")
    for_tokens(batch.advantages, batch, algorithm, "advantages")
