"""When a returned value is right: the rules of evalplus 0.3.1, on plain data and outside of the program's process.

Both values have been through the sandbox, so they hold exact built-in types and `==` runs no code of the program's.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from refinerl.benchmarks.suite import Oracle

FLOAT_ATOL = 1e-6
"""The absolute tolerance for floats where the data ask for none."""
RTOL = 1e-7
"""The relative tolerance beside every absolute one, as in `numpy.testing.assert_allclose`."""


def first_mismatch(
    oracle: Oracle,
    atol: float,
    inputs: Sequence[Sequence[Any]],
    values: Sequence[Any],
    expected: Sequence[Any],
) -> int | None:
    """Index of the first value that is wrong; None if all are right.

    The rules, of which the first that applies decides:
    - `find_zero`: the value is a root of the polynomial, within `atol`;
    - `==` holds (for `same_set`: between the sets of their items), or the task's own rule accepts the value;
    - there is a tolerance: types and lengths agree and `numpy.allclose` holds. A tolerance of 0 becomes 1e-6 at the
      first expected float (or list or tuple of floats) **and stays**, as evalplus has it.
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
            right = False  # a value of a kind that the rule cannot even look at
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
        warnings.simplefilter("ignore")  # ragged lists and overflows of a program's values are its own affair
        return bool(np.allclose(got, wanted, rtol=RTOL, atol=atol))


def _is_floats(value: Any) -> bool:
    """A float, or a list or tuple of nothing but floats."""
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(item, float) for item in value)
    return isinstance(value, float)


def _polynomial(coefficients: Sequence[float], x: float) -> float:
    """Σ cᵢ·xⁱ (HumanEval/32)."""
    return sum(c * math.pow(x, i) for i, c in enumerate(coefficients))


def _digit_distance(arguments: Sequence[Any], got: Any, _atol: float) -> bool:
    """Mbpp/558: the numbers may also be read as padded with zeros to one length."""
    first, second = (str(number) for number in arguments)
    width = max(len(first), len(second))
    pairs = zip(first.zfill(width), second.zfill(width), strict=True)
    return bool(got == sum(abs(int(a) - int(b)) for a, b in pairs))


def _surface_area(arguments: Sequence[Any], got: Any, atol: float) -> bool:
    """Mbpp/581: the height may also be read as the perpendicular one; the area is then rounded."""
    edge, height = arguments
    slant = math.sqrt((edge / 2) ** 2 + height**2)
    return bool(abs(got - round(edge**2 + 4 * (edge * slant) / 2)) <= atol)


_ALSO: dict[str, Callable[[Sequence[Any], Any, float], bool]] = {
    "digit_distance": _digit_distance,
    "surface_area": _surface_area,
}
