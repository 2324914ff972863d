"""The rollouts that a page holds: whole groups of every step, as many as fit."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from refinerl.records import Reward
from refinerl.report.page.curves import number
from refinerl.report.page.diffs import diffs, kept_tokens
from refinerl.report.page.folders import Folder
from refinerl.report.page.outcomes import Outcomes
from refinerl.report.reading import step_files
from refinerl.report.rows import CompletionRow, RefinementRow, RolloutRow

MOST = 10_000
"""Rollouts of a page."""
SIZE = 14_000_000
"""Bytes of their JSON."""
LONGEST = 20_000
"""Characters of a text; a longer one is cut."""


class Chosen:
    """The rollouts of a run that a page holds, as JSON texts, with the outcomes of all of its rollouts.

    Groups with heat maps come first, then those with the largest reward gain. Every step has the same share of the
    room; what a step leaves goes to the next ones.

    Args:
        folder: of the run.
        most: rollouts of the run.
        size: bytes of the run.
    """

    def __init__(self, folder: Folder, most: int = MOST, size: int = SIZE) -> None:
        self.outcomes = Outcomes()
        self.prompts: dict[str, int] = {}
        """Numbers of the prompts' texts, in their order."""
        self.rows: list[str] = []
        self.total = 0
        steps = max(1, len(step_files(folder.path)))
        rows_left = size_left = 0.0
        for step, rows in folder.steps():
            self.outcomes.add(step, rows)
            self.total += len(rows)
            rows_left, size_left = rows_left + most / steps, size_left + size / steps
            groups: dict[str, list[RolloutRow]] = {}
            for row in rows:
                groups.setdefault(row.prompt.id, []).append(row)
            for group in sorted(groups.values(), key=_merit, reverse=True):
                question = cut(group[0].prompt.text)[0]
                number_of = self.prompts.get(question, len(self.prompts))
                texts = [dump(row) for row in entries(group, number_of)]
                taken = sum(len(text.encode()) for text in texts)
                taken += len(dump(question).encode()) if number_of == len(self.prompts) else 0
                if len(texts) > rows_left or taken > size_left:
                    break
                rows_left, size_left = rows_left - len(texts), size_left - taken
                self.prompts[question] = number_of
                self.rows += texts

    @property
    def json(self) -> str:
        """The prompts and the rollouts as JSON."""
        return f'{{"prompts":{dump(list(self.prompts))},"rows":[{",".join(self.rows)}]}}'


def entries(group: Sequence[RolloutRow], prompt: int) -> list[dict[str, Any]]:
    """Return the rollouts of a group as the page's scripts read them."""
    rows = [row.as_probe() for row in group]
    refined = [(row, row.refinement) for row in rows if row.refinement is not None]
    words = iter(diffs([(cut(row.completion.text)[0], cut(z.completion.text)[0]) for row, z in refined]))
    measured = [(row, z) for row, z in refined if _has_tokens(z.completion)]
    kept = dict(zip([id(row) for row, _ in measured], kept_tokens(measured), strict=True))
    return [
        _entry(row, prompt)
        if row.refinement is None
        else _entry(row, prompt) | {"refined": _refined(row, row.refinement, next(words), kept.get(id(row)))}
        for row in rows
    ]


def _entry(row: RolloutRow, prompt: int) -> dict[str, Any]:
    text, left_out = cut(row.completion.text)
    found = {
        "step": row.step,
        "id": row.prompt.id,
        "sample": row.sample,
        "prompt": prompt,
        "dropped": not row.selected,
        "advantage": number(row.advantage),
        "text": text,
        "cut": left_out or None,
        "truncated": row.completion.finish_reason == "length",
        **_reward(row.reward),
    }
    if _has_tokens(row.completion):
        found["tokens"] = {"pieces": row.completion.pieces, "nats": _negative(row.completion.logprobs)}
    return _without_blanks(found)


def _refined(row: RolloutRow, refined: RefinementRow, words: list[int], kept: str | None) -> dict[str, Any]:
    text, left_out = cut(refined.completion.text)
    found = {
        "accepted": refined.accepted,
        "truncated": refined.completion.finish_reason == "length",
        "probe": row.probe is not None,
        "gain": number(row.gain),
        "copied": number(round(refined.copy_ratio, 4)) or 0.0,
        "distance": refined.distance,
        "text": text,
        "cut": left_out or None,
        "diff": words,
        **_reward(refined.reward),
    }
    if kept is not None:
        completion = refined.completion
        found["tokens"] = {"pieces": completion.pieces, "nats": _negative(completion.logprobs), "kept": kept}
        found["first"] = kept.find("0")
    return _without_blanks(found)


def _without_blanks(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what the scripts read as absent; a reward of 0 stays."""
    return {k: v for k, v in values.items() if not (v is None or v is False or v == "") or k == "text"}


def _reward(reward: Reward | None) -> Mapping[str, Any]:
    if reward is None:
        return {}
    parts = {name: number(value) for name, value in reward.parts.items() if number(value) is not None}
    return {
        "reward": number(reward.value),
        "outcome": reward.outcome,
        "passed": number(reward.pass_rate),
        "parts": parts or None,
        "failure": cut(reward.failure)[0],
    }


def _has_tokens(completion: CompletionRow) -> bool:
    """Return True if the page can show values of the tokens."""
    count = len(completion.token_ids)
    whole = len(completion.text) <= LONGEST and count <= LONGEST
    return whole and 0 < count == len(completion.pieces) == len(completion.logprobs)


def _merit(group: Sequence[RolloutRow]) -> tuple[bool, float]:
    """Sort key of groups: those with heat maps first, then those with the largest gain."""
    rows = [row.as_probe() for row in group]
    measured = any(row.refinement is not None and _has_tokens(row.refinement.completion) for row in rows)
    return measured, max((row.gain for row in rows if row.gain is not None), default=-math.inf)


def cut(text: str) -> tuple[str, int]:
    """Return a text of at most `LONGEST` characters, and the number of characters that are left out."""
    return text[:LONGEST], max(0, len(text) - LONGEST)


def dump(value: Any) -> str:
    """Write JSON that a `<script>` may hold: without `<`, and with lone surrogates as escapes.

    >>> dump(["</script>", chr(0xDC80)])
    '["\\\\u003c/script>","\\\\udc80"]'
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _negative(logprobs: Sequence[float | None]) -> list[float | None]:
    """Return −logprob of each token; 0 stays 0.

    >>> _negative((-0.5, 0.0, None, float("nan")))
    [0.5, 0.0, None, None]
    """
    return [None if value is None or not math.isfinite(value) else 0.0 - value for value in logprobs]
