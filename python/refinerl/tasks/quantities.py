"""Numbers with a unit, such as `18 dollars`, in answers and in the columns of data sets."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import NamedTuple

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
NUMBER = re.compile(f"-?{_DIGITS}")
"""A number in digits, perhaps with separators of thousands."""
_WORD = "[A-Za-z]{2,}"
_QUANTITY = re.compile(rf"([$€£]?-?|-[$€£])({_DIGITS}|\.\d+)\s*(%|(?:{_WORD}(?: {_WORD}){{0,2}})?)\.?")
_FACTORS = ("hundred", "thousand", "million", "billion", "trillion", "dozen", "half", "halves", "thirds", "pi", "sqrt")
_NO_UNITS = {
    *_FACTORS,
    *("percent", "sin", "cos", "tan", "log", "ln", "exp", "mod", "times", "plus", "minus", "or", "and", "to", "of"),
}
"""Words after a number that change its value, or with which it is an expression."""


_PART_BEFORE = re.compile(r"(?:\d|[\d)}] *[-+/^*×·] *|\d:|\w\^\{?|\\frac\{|\\frac\{[^{}]*\}\{)$")
_PART_AFTER = re.compile(
    r" *[-+/^*×·] *[\d(\\{]|:\d| +\d+ */ *\d|\}\{| *(?:" + "|".join(_FACTORS) + r")\b", re.IGNORECASE
)
_BEFORE = 40
"""Characters before a number that tell whether it is a part of another."""


def whole_numbers(text: str) -> list[str]:
    """Find the numbers of a text that are not a part of another, as those of 1/2, 3:30, 10^6 and 5 million are.

    >>> whole_numbers("It is 5, not 5/6 or 2 1/2; at 3:30, 7 million.")
    ['5']
    """
    return [
        found[0]
        for found in NUMBER.finditer(text)
        if not _PART_BEFORE.search(text, max(0, found.start() - _BEFORE), found.start())
        and not _PART_AFTER.match(text, found.end())
    ]


class Quantity(NamedTuple):
    """A number and its unit."""

    number: Decimal
    """Exact, with all digits."""
    unit: str
    """In lower case and without the s of a plural; empty if there is none, or only a currency sign."""

    def equals(self, other: Quantity) -> bool:
        """Return True if the numbers are equal, and so are the units where both have one."""
        return self.number == other.number and (not self.unit or not other.unit or self.unit == other.unit)


def quantity(text: str) -> Quantity | None:
    r"""Read a text that is a number, perhaps with a unit of up to three words; None if it is anything else.

    >>> quantity("$1,224.50")
    Quantity(number=Decimal('1224.50'), unit='')
    >>> quantity(r"18\text{ dollars}")
    Quantity(number=Decimal('18'), unit='dollar')
    >>> quantity("5 million"), quantity("1/2"), quantity("3 pi"), quantity("2 x")
    (None, None, None, None)
    """
    match = _QUANTITY.fullmatch(_plain(text))
    if match is None or _NO_UNITS & set(match[3].lower().split()):
        return None
    sign = "-" if "-" in match[1] else ""
    return Quantity(Decimal(sign + match[2].replace(",", "")), match[3].lower().removesuffix("s"))


def _plain(text: str) -> str:
    """Remove the LaTeX in which numbers and units are often written."""
    text = re.sub(r"\\(?:text|mathrm|textbf|mathbf)\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\\[,!;: ]", "", text.replace("{,}", ","))
    return " ".join(re.sub(r"\\([$%])", r"\1", text).split())
