"""The rule `rule:math`: mathematical answers, compared by math-verify."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from refinerl.errors import UserError, pip_install
from refinerl.tasks.math_judges import MathJudges, Verdict
from refinerl.tasks.quantities import quantity
from refinerl.tasks.user_reward import UserReward


class MathReward(UserReward):
    """Rewards 1 for a response whose answer equals that of the column `answer`, else 0; None without a right answer.

    math-verify reads both and decides. A response on which it takes too long, or which ends its process, has the
    reward 0 and is counted.

    Args:
        seconds: processor time for one response.
        workers: number of processes that compare.

    Raises:
        UserError: math-verify is not installed.
    """

    def __init__(self, *, seconds: float = 5.0, workers: int = 1) -> None:
        if importlib.util.find_spec("math_verify") is None:
            raise UserError(
                f"task.reward=rule:math needs math-verify, which is not installed: {pip_install('math-verify')}"
            )
        super().__init__(self._score, "rule:math")
        self._judges = MathJudges(seconds, workers)
        self._lost = {"timeout": 0, "crash": 0}

    def check(self, columns: Collection[str], rows: Iterable[tuple[str, Mapping[str, Any]]] = ()) -> None:
        """Check that math-verify can read the right answer of each row; plain numbers need no check.

        Raises:
            UserError: it cannot, or the column is missing.
        """
        super().check(columns)
        first: dict[str, str] = {}
        for name, row in rows:
            gold = None if row.get("answer") is None else right_answer(str(row["answer"]))
            if gold is not None and not _NUMBER.fullmatch(gold):
                first.setdefault(gold, name)
        try:
            for (gold, name), verdict in zip(first.items(), self._read(list(first)), strict=True):
                if verdict != "different":
                    raise UserError(
                        f"prompt {name}: the column answer holds {gold!r}, which math-verify cannot read as "
                        "mathematics: correct it, leave the row out, or compare texts with task.reward=rule:answer"
                    )
        except BaseException:
            self.close()
            raise

    def _read(self, answers: Sequence[str]) -> list[Verdict]:
        """Read right answers alone; of those that can be read the verdict is `different`."""
        return self._judges.compare([(answer, None) for answer in answers])

    def _score(self, completions: Sequence[Any], answer: Sequence[Any]) -> list[float | None]:
        texts = [c if isinstance(c, str) else str(c[0]["content"]) for c in completions]
        pairs = [
            (right_answer(str(right)), text) for right, text in zip(answer, texts, strict=True) if right is not None
        ]
        verdicts = iter(self._judges.compare(pairs))
        rewards: list[float | None] = []
        for right in answer:
            verdict = None if right is None else next(verdicts)
            if verdict == "unreadable":
                raise UserError(f"the column answer holds {right!r}, which math-verify cannot read as mathematics")
            if verdict in self._lost:
                self._lost[verdict] += 1
            rewards.append(None if verdict is None else float(verdict == "equal"))
        return rewards

    def telemetry(self) -> Mapping[str, float]:
        """Return `math/timeouts` and `math/crashes`: the responses since the last call that ended their process."""
        found = {"math/timeouts": float(self._lost["timeout"]), "math/crashes": float(self._lost["crash"])}
        self._lost = dict.fromkeys(self._lost, 0)
        return found

    def close(self) -> None:
        """End the processes."""
        self._judges.close()


_NUMBER = re.compile(r"-?\d+(?:\.\d+)?|-?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_SCIENTIFIC = re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d{1,3}")
_MARKED = ("\\boxed", "$", "\\(", "\\[")


def right_answer(column: str) -> str:
    r"""Return the right answer that a row holds, in a form in which math-verify reads all of it.

    This is what follows the last `####`, as in GSM8K, or else the whole text; of a number with a unit it is the number,
    since math-verify would take the letters of an unknown unit for factors. Mathematics that nothing marks as such is
    set in dollars, since math-verify would look for a number in it.

    >>> right_answer("48/2 = 24\n#### 1,224"), right_answer(r"\frac{1}{2}"), right_answer(r"so $x$ is \boxed{3}")
    ('1,224', '$\\frac{1}{2}$', 'so $x$ is \\boxed{3}')
    >>> right_answer("18 dollars"), right_answer("2 x")
    ('18', '$2 x$')
    """
    text = column.rpartition("####")[2].strip()
    if (found := quantity(text)) is not None and found.unit not in ("", "%"):
        text = f"{found.number:f}"
    if _SCIENTIFIC.fullmatch(text):  # as small and large numbers of a table are printed; in LaTeX e is a symbol
        text = f"{Decimal(text):f}"
    return text if _NUMBER.fullmatch(text) or any(mark in text for mark in _MARKED) else f"${text}$"
