"""The rules by which a returned value is right, as in evalplus 0.3.1, but outside of the program's process.

Both values come from the sandbox, so they consist of exact built-in types, and `==` runs no code of the program's.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from refinerl.benchmarks.suite import Oracle

FLOAT_ATOL = 1e-6
"""Absolute tolerance for floats, if the data have none."""
RTOL = 1e-7
"""Relative tolerance, added to every absolute one as in `numpy.testing.assert_allclose`."""


def first_mismatch(
    oracle: Oracle,
    atol: float,
    inputs: Sequence[Sequence[Any]],
    values: Sequence[Any],
    expected: Sequence[Any],
) -> int | None:
    """Find the index of the first wrong value; None if all are right.

    The first rule that applies decides:
    - `find_zero`: the value is a root of the polynomial, within `atol`;
    - `==` holds (for `same_set`: between the sets of their items), or the task's own rule accepts the value;
    - there is a tolerance: types and lengths agree, and `numpy.allclose` holds. A tolerance of 0 becomes 1e-6 at the
      first expected float (or list or tuple of floats) **and stays so**, as in evalplus.

    >>> first_mismatch("close", 1e-6, inputs=[[1], [2]], values=[0.1 + 0.2, 5], expected=[0.3, 4])
    1
    """
    for index, (arguments, got, wanted) in enumerate(zip(inputs, values, expected, strict=True)):
        try:
            if oracle == "find_zero":
                (coefficients,) = arguments
                right = abs(_polynomial(coefficients, got)) <= atol
            else:
                right = _equal(oracle, atol, arguments, got, wanted)
                if atol == 0 and oracle != "exact" and _is_floats(wanted):
                    atol = FLOAT_ATOL
                if not right and atol != 0:
                    right = _close(got, wanted, atol)
        except (TypeError, ValueError, ArithmeticError, RecursionError):
            right = False  # the rule does not apply to a value of this type
        if not right:
            return index
    return None


def _equal(oracle: Oracle, atol: float, arguments: Sequence[Any], got: Any, wanted: Any) -> bool:
    if oracle == "same_set":
        return set(got) == set(wanted)
    return bool(got == wanted) or (oracle in _ALSO and _ALSO[oracle](arguments, got, atol))


def _close(got: Any, wanted: Any, atol: float) -> bool:
    if type(got) is not type(wanted):
        return False
    if isinstance(wanted, list | tuple) and len(got) != len(wanted):
        return False
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # ragged lists and overflows in a program's values do not concern us
        return bool(np.allclose(got, wanted, rtol=RTOL, atol=atol))


def _is_floats(value: Any) -> bool:
    """Return True for a float, and for a list or tuple that contains only floats."""
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(item, float) for item in value)
    return isinstance(value, float)


def _polynomial(coefficients: Sequence[float], x: float) -> float:
    """Evaluate Σ cᵢ·xⁱ (HumanEval/32)."""
    return sum(c * math.pow(x, i) for i, c in enumerate(coefficients))


def _digit_distance(arguments: Sequence[Any], got: Any, _atol: float) -> bool:
    """Accept, for Mbpp/558, the distance of the numbers padded with zeros to the same length."""
    first, second = (str(number) for number in arguments)
    width = max(len(first), len(second))
    pairs = zip(first.zfill(width), second.zfill(width), strict=True)
    return bool(got == sum(abs(int(a) - int(b)) for a, b in pairs))


def _surface_area(arguments: Sequence[Any], got: Any, atol: float) -> bool:
    """Accept, for Mbpp/581, the rounded area for the perpendicular height."""
    edge, height = arguments
    slant = math.sqrt((edge / 2) ** 2 + height**2)
    return bool(abs(got - round(edge**2 + 4 * (edge * slant) / 2)) <= atol)


_ALSO: dict[str, Callable[[Sequence[Any], Any, float], bool]] = {
    "digit_distance": _digit_distance,
    "surface_area": _surface_area,
}
