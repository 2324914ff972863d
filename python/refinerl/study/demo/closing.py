"""The end of the demo: a picture, a table in plain words, a correction as a diff, the reports and the next commands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from refinerl.data.terminal import safe
from refinerl.report.rows import RolloutRow
from refinerl.study.demo.arm import Arm
from refinerl.study.demo.picture import STYLES, picture
from refinerl.study.demo.view import CAPTION, TALLEST, WIDEST, change
from refinerl.study.measures import collapsed

LEVEL = 0.8
"""Held-out success whose first step the table shows."""
EARLY = 5
"""Number of first steps from which the correction is chosen, if they have one."""
KEPT, DELETED, INSERTED = "not dim", "not dim red", "not dim green"
LIMITS = (
    "What it does not show: this is one seed. The model was trained beforehand to correct programs too, so it stands "
    "for a strong refiner. And at this gentle learning rate the arm none climbs as well, only more slowly: to 79 % in "
    "100 steps, and no further in 200."
)
"""The shares: `python -m refinerl.train demo constraint.name=none trainer.steps=100 evaluate.every=10`, and 200."""
NEXT = {
    "make study": "the paper's figures in miniature: more arms, five seeds, two learning rates; an hour and a half",
    "python -m refinerl.train demo constraint.beta=1": "one run, with another β",
    "python -m refinerl.audition demo": "what a refiner improves and costs, measured before a run",
    "make demo-smollm": "the same machinery with a real model of 135M parameters; ten minutes",
}
"""Commands with their effects."""


def show(arms: Sequence[Arm], rollouts: Iterable[RolloutRow], reports: Sequence[Path | str], console: Console) -> None:
    """Print the end of a demo whose runs are complete.

    Args:
        arms: both, complete.
        rollouts: those of the arm with a refiner, one of which is shown.
        reports: the path of each run's report, or the reason why there is none.
        console: no line is longer than its width, except paths and commands.
    """
    width = min(console.width, WIDEST)
    results(arms, rollouts, console)
    console.print("\n[bold]The reports of both runs[/], with every response and its refinement:", width=width)
    for report in reports:
        console.print(f"  {report}", markup=False, highlight=False, soft_wrap=True)
    console.print("\n[bold]Next[/]")
    for command, effect in NEXT.items():
        console.print(f"  {command}", markup=False, highlight=False, soft_wrap=True)
        console.print(Padding(Text(effect, style="dim"), (0, 0, 0, 6), expand=False), width=width)


def results(arms: Sequence[Arm], rollouts: Iterable[RolloutRow], console: Console) -> None:
    """Print the picture, the table, a correction, and what the demo does not show."""
    width = min(console.width, WIDEST)
    marks = (Text(f"   {mark} {arm.name}", style=style) for arm, (mark, style) in zip(arms, STYLES, strict=True))
    console.print(Text.assemble((CAPTION, "bold"), *marks), width=width)
    console.print(picture({arm.name: arm.curve for arm in arms}, arms[0].steps, width, TALLEST))
    console.print()
    console.print(seen(arms), width=width)
    console.print()
    found = correction(rollouts)
    if found is not None:
        title = f"A correction of step {found.step}: the policy wrote y, the refiner turned it into ỹ"
        console.print(Text(title, "bold"), width=width)
        console.print(Padding(drawn(found), (0, 0, 0, 2), expand=False), width=width)
        console.print()
    console.print(LIMITS, width=width, highlight=False, markup=False)


def seen(arms: Sequence[Arm]) -> Table:
    """Make the table of both arms in plain words."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(Text("What you saw", style="bold"))
    for arm, (mark, style) in zip(arms, STYLES, strict=True):
        table.add_column(Text(f"{mark} {arm.name}", style=style), justify="right", no_wrap=True)
    table.add_row("held-out success, start → end", *map(change, arms))
    table.add_row(f"first reached {LEVEL:.0%}", *(_reached(arm) for arm in arms))
    table.add_row("collapsed", *("yes" if arm.curve and collapsed(arm.curve) else "no" for arm in arms))
    table.add_row("tokens that the refiner wrote", *(f"{arm.total('refiner/tokens'):,.0f}" for arm in arms))
    table.add_row("seconds of training", *(f"{arm.total('time/step'):.0f}" for arm in arms))
    return table


def _reached(arm: Arm) -> str:
    step = arm.first_step_at(LEVEL)
    return "never" if step is None else f"in step {step}"


def correction(rollouts: Iterable[RolloutRow]) -> RolloutRow | None:
    """Choose an accepted refinement to show: of an early step, of a program that ran, with few changed tokens.

    The first criterion decides, ties go to the next: a step among the first `EARLY`; y has the outcome wrong_answer, so
    that the correction is more than one of syntax; the fewest changed tokens; the earliest step; the shortest y.
    """

    def order(row: RolloutRow) -> tuple[bool, bool, int, int, int]:
        ran = row.reward is not None and row.reward.outcome == "wrong_answer"
        distance = row.refinement.distance if row.refinement else 0
        return row.step > EARLY, not ran, distance, row.step, len(row.completion.token_ids)

    return min((row for row in rollouts if row.refinement and row.refinement.accepted), key=order, default=None)


def drawn(row: RolloutRow) -> Text:
    """Draw a question, y → ỹ as a diff of lines, and both rewards."""
    text = Text(safe(row.prompt.text.strip().split("\n")[0]) + "\n", style="dim")
    refinement, before = row.refinement, row.reward
    old = row.completion.text.rstrip().split("\n")
    new = old if refinement is None else refinement.completion.text.rstrip().split("\n")
    for kind, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        kept = kind == "equal"
        text.append("".join(f"{' ' if kept else '-'} {safe(line)}\n" for line in old[a:b]), KEPT if kept else DELETED)
        if not kept:
            text.append("".join(f"+ {safe(line)}\n" for line in new[c:d]), INSERTED)
    if before is not None and refinement is not None and refinement.reward is not None:
        text.append(f"reward {before.value:+.2f} → {refinement.reward.value:+.2f}", "not dim bold")
    return text
