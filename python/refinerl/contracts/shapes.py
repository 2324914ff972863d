"""Checks of the shapes that plug-ins return."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from refinerl.errors import UserError
from refinerl.records import Batch, Rows

if TYPE_CHECKING:  # --help reads the options of algorithms and constraints without importing torch
    from torch import Tensor


def for_tokens(found: Any, rows: Rows, part: object, method: str) -> Tensor:
    """Return `found`, the result of a plug-in's method, if it is a tensor of the shape (R, T) of `rows`.

    Any other shape would be broadcast silently.

    Raises:
        UserError: the result is not a tensor of that shape.
    """
    from torch import Tensor

    shape = tuple(rows.mask.shape)
    if isinstance(found, Tensor) and found.shape == shape:
        return found
    got = f"{tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
    raise UserError(f"{type(part).__name__}.{method} must return a value for each token, (R, T) = {shape}, got {got}")


def check_advantages(batch: Any, algorithm: object) -> None:
    """Check that an algorithm's `advantages` returned a batch with advantages of shape (R, T).

    Raises:
        UserError: it did not.
    """
    if not isinstance(batch, Batch):
        name = type(algorithm).__name__
        raise UserError(f"{name}.advantages must return a Batch, from with_advantages, got a {type(batch).__name__}")
    for_tokens(batch.advantages, batch, algorithm, "advantages")
