"""The lines of the live view."""

from __future__ import annotations

import math

import pytest
from rich.text import Text

from building import group, refinement
from refinerl.report.rows import RolloutRow, rollout_row
from refinerl.run.folded import LINES, folded
from refinerl.run.live import Phase, View
from refinerl.run.step_line import PARTS, value

EVERYTHING = {part.metric: 0.123 for part in PARTS} | {"time/step": 1234.5}
HOSTILE = "\x1b[2J</script>\u202e\x07 \udc80 [bold]markup[/] " + "long " * 200_000
"""Text of a model that would clear a screen, turn the direction of writing, and break a line of a megabyte."""


def view(**state: object) -> View:
    made = View(200, now=lambda: 100.0, step=12)
    made.phase = Phase("generate", 80.0, total=32, done=8)
    for name, given in state.items():
        setattr(made, name, given)
    return made


def texts(lines: list[Text]) -> list[str]:
    return [line.plain.rstrip() for line in lines]


@pytest.mark.parametrize("width", [20, 40, 60, 79, 100, 159, 300])
@pytest.mark.parametrize("height", [2, 5, 10, 23, 60])
def test_it_fits_the_terminal(width: int, height: int) -> None:
    """With everything that a run can measure, intervals, long numbers, and hostile text."""
    shown = view(
        notice="interrupted: checkpoint-12 is written first; a second signal ends the run at once, without that"
    )
    wide = EVERYTHING | {"evaluate/pass@1_low": 0.0, "evaluate/pass@1_high": 1.0, "time/tokens_per_second": 1e9}
    for step in range(1, 12):
        shown.log(wide | {"reward/mean": -1e6 * step}, step, 300_000.0)
    shown.example = folded(row("a\n" + HOSTILE, "b\n" + HOSTILE + "!"))
    lines = shown.lines(width, height)
    assert len(lines) <= height
    assert all(line.cell_len <= width for line in lines)
    assert all(line.plain.isprintable() for line in lines)
    assert lines[0].plain.startswith("step 12/200")


@pytest.mark.parametrize("width", [79, 159])
def test_its_numbers_are_those_of_the_steps_line(width: int) -> None:
    shown = view()
    shown.log(EVERYTHING, 11, 3600.0)
    seen = "\n".join(texts(shown.lines(width, 23)))
    for part in PARTS:
        assert part.label in seen
        assert value(EVERYTHING, part) in seen
    assert "6% " in texts(shown.lines(width, 23))[0]  # 11 of 200 steps
    assert "1 h 0 min left" in seen
    assert "generate" in seen
    assert "25%  20 s" in seen  # 8 of 32, since 20 seconds


def test_what_a_run_has_not_measured_is_not_shown() -> None:
    shown = view(phase=None)
    assert texts(shown.lines(79, 23)) == ["step 12/200      " + "─" * 39 + "   0%", ""]
    shown.log(
        {"reward/mean": 0.5, "constraint/ce": math.nan, "policy/entropy": math.inf, "reward/pass_rate": None}, 1, None
    )
    (metrics,) = texts(shown.lines(79, 23))[3:]
    assert metrics.split() == ["reward", "+0.500", "▄"]


def test_a_value_of_an_earlier_step_stays_and_is_dimmed() -> None:
    """Evaluations and the KL are not measured in every step."""
    shown = view()
    shown.log({"reward/mean": 0.5, "evaluate/pass@1": 0.25}, 1, None)
    shown.log({"reward/mean": 0.75}, 2, None)
    lines = shown.lines(79, 23)
    styles = {line.plain[span.start : span.end].strip(): str(span.style) for line in lines for span in line.spans}
    assert (styles["+0.750"], styles["25.0%"]) == ("bold", "dim")
    assert "▁█" in lines[3].plain  # the reward's curve; the other one has a point


def test_before_the_first_step_it_shows_what_runs() -> None:
    shown = view(step=0, phase=Phase("load a/model", 97.0))
    assert texts(shown.lines(79, 23)) == ["load a/model  3 s"]


def row(before: str, after: str) -> RolloutRow:
    rollout = group("a", ([1, 2, 3, 4], 0.0)).rollouts[0]
    made = rollout_row(7, rollout, refinement(rollout, [1, 2, 3, 5], 1.0), selected=True)
    object.__setattr__(made.completion, "text", before)
    assert made.refinement is not None
    object.__setattr__(made.refinement.completion, "text", after)
    return made


def test_a_refinement_is_folded_into_its_changed_lines() -> None:
    assert texts(folded(row("kept\nold\nkept too", "kept\nnew\nkept too"))) == [
        "step 7: reward +0.00 → +1.00, 2 tokens changed, 75% of ỹ kept from y",
        "- old",
        "+ new",
    ]
    many = "\n".join(map(str, range(20)))
    _, *lines, rest = texts(folded(row(many, "")))
    assert lines == ["- 0", "- 1", "- 2", "- 3"][:LINES]
    assert rest == "… 17 more changed lines"  # 20 deleted, and an empty line inserted


def test_a_response_without_a_refinement_has_nothing_to_fold() -> None:
    rollout = group("a", ([1], None)).rollouts[0]
    assert folded(rollout_row(1, rollout, None, selected=True)) == []
