"""The end of a recorded demo, and the correction that it shows."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from refinerl.records import Reward
from refinerl.report.rows import CompletionRow, PromptRow, RefinementRow, RolloutRow
from refinerl.study.demo import closing
from study.demo.watching import arms


def row(
    step: int, y: str, refined: str, distance: int, *, accepted: bool = True, outcome: str = "wrong_answer"
) -> RolloutRow:
    def completion(text: str) -> CompletionRow:
        return CompletionRow(text, tuple(range(len(text.split()))), "stop")

    refinement = RefinementRow(completion(refined), Reward(1.0, "passed"), accepted, 0, distance, 0.5)
    prompt = PromptRow(f"{step}-{y}", "every 3-th")
    return RolloutRow(step, 0, True, prompt, completion(y), Reward(-0.3, outcome), refinement)


def test_the_correction_is_an_early_one_with_few_changes():
    late, long, few = row(6, "a", "b", 1), row(1, "a", "b", 9), row(4, "c", "d", 2)
    shorter, earlier = row(4, "c", "e", 2), row(3, "c c", "f", 2)
    refused, typo = row(1, "a", "b", 1, accepted=False), row(1, "a", "b", 1, outcome="compile_error")
    assert closing.correction([late, long, refused, typo, few]) is few
    assert closing.correction([late, long, few, earlier]) is earlier
    assert closing.correction([row(4, "c c", "d", 2), shorter]) is shorter
    assert closing.correction([typo, late]) is typo
    assert closing.correction([refused, late]) is late  # without an early one, a late one
    assert closing.correction([refused]) is None


def test_the_diff_shows_lines_before_and_after():
    y, refined = "def f(x):\n    x = x[:3]\n    return x\n", "def f(x):\n    x = x[::3]\n    return x\n"
    text = closing.drawn(row(1, y, refined, 1))
    assert text.plain.splitlines() == [
        "every 3-th",
        "  def f(x):",
        "-     x = x[:3]",
        "+     x = x[::3]",
        "      return x",
        "reward -0.30 → +1.00",
    ]
    styles = {text.plain[span.start : span.end]: str(span.style) for span in text.spans}
    assert "red" in styles["-     x = x[:3]\n"]
    assert "green" in styles["+     x = x[::3]\n"]


def test_what_a_model_writes_reaches_the_terminal_escaped():
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, no_color=True)
    console.print(closing.drawn(row(1, "\x1b]0;title\x07a [red]b", "\x9b2Ja [red]c\r", 1)))
    assert r"\x1b]0;title\x07" in out.getvalue()
    assert r"\x9b2J" in out.getvalue()
    assert "[red]" in out.getvalue()  # no markup either
    assert not set("\x07\x9b\r") & set(out.getvalue())
    assert "\x1b]" not in out.getvalue()


@pytest.mark.parametrize("width", [60, 80, 160])
def test_the_end_fits_the_terminal(width):
    lines = end(width).splitlines()
    free = [line for line in lines if not line.startswith("  ") or "python -m" not in line]
    assert max(map(cell_len, free)) <= width


def test_the_end_tells_what_was_seen():
    dynamic = arms()[1]
    text = " ".join(end(80).split())
    start, last = (f"{100 * dynamic.curve[i][1]:.0f}" for i in (0, -1))
    assert f"{start} → {last} %" in text
    assert f"never in step {dynamic.first_step_at(0.8)}" in text
    assert f"0 {dynamic.total('refiner/tokens'):,.0f}" in text
    assert "one seed" in text
    assert "trained beforehand to correct" in text
    assert "collapsed no no" in text
    assert "runs/none/report.html" in text


def end(width: int) -> str:
    """What a demo's end prints where the output is no terminal."""
    out = io.StringIO()
    reports = [Path("runs/none/report.html"), Path("runs/dynamic/report.html")]
    closing.show(
        arms(running=False), [row(1, "return x[:3]", "return x[::3]", 1)], reports, Console(file=out, width=width)
    )
    return out.getvalue()
