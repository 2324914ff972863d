"""The table of a study as text: for the terminal, and as Markdown."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table as Drawn
from rich.text import Text

from refinerl.study.table import BLOCKS, EXPLAINED, Table


def show(table: Table, console: Console) -> None:
    """Print the table in blocks of at most 80 columns, if the arms' names are short; then verdicts and notes."""
    for title, columns in BLOCKS.items():
        shown = [name for name in columns if any(name in cells for cells in table.arms.values())]
        if not shown:
            continue
        console.print(Text(title, style="bold"))
        drawn = Drawn(box=None, padding=(0, 1, 0, 0))
        drawn.add_column("arm", overflow="fold")
        for name in shown:
            drawn.add_column(columns[name], justify="right", vertical="bottom", overflow="fold", max_width=13)
        for arm in table.arms:
            drawn.add_row(Text(arm), *(table.text(arm, name, narrow=True) for name in shown))
        console.print(drawn)
        console.print()
    for line in (*(d.sentence for d in table.differences), *table.notes()):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def markdown(table: Table) -> str:
    """Write the table as Markdown."""
    record = table.record
    parts = [f"# {record.title}", f"Study `{record.study}`, refinerl {record.refinerl}, sources `{record.sources}`."]
    for title, columns in BLOCKS.items():
        shown = [name for name in columns if any(name in cells for cells in table.arms.values())]
        if shown:
            rows = [[arm, *(table.text(arm, name) for name in shown)] for arm in table.arms]
            parts += [f"## {title}", _grid(["arm", *(columns[name] for name in shown)], rows)]
    if table.differences:
        parts += ["## Comparisons", "\n".join(f"- {d.sentence}" for d in table.differences)]
    if table.tuning:
        grid = [[arm, f"`{point}`", mean, "chosen" if won else ""] for arm, point, mean, won in table.grids()]
        parts += ["## Tuning", _grid(["arm", "point", table.goal, ""], grid)]
    if notes := table.notes():
        parts.append("\n".join(f"- {note}" for note in notes))
    return "\n\n".join([*parts, EXPLAINED]) + "\n"


def _grid(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows))
