"""Failing samples, on the console and as a page for the browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from string import Template
from typing import Any

from rich.console import Console, Group
from rich.markup import escape as escape_markup
from rich.panel import Panel
from rich.syntax import Syntax
from rich.text import Text

from refinerl.benchmarks.suite import Result, Suite
from refinerl.data.terminal import safe

MOST = 1000
"""Most samples on a page that a browser can still show."""


def show(console: Console, suite: Suite, results: Sequence[Result], count: int) -> None:
    """Print the first `count` samples that fail: prompt, program, and the test that failed."""
    failing = _failing(results)
    for result in failing[:count]:
        console.print(_panel(suite, result))
    if len(failing) > count:
        console.print(f"{len(failing) - count} more failing samples", highlight=False)


def page(suite: Suite, results: Sequence[Result], title: str, estimates: Sequence[Sequence[str]]) -> str:
    """Write the first `MOST` samples that fail as an HTML page that loads nothing from elsewhere, sorted by outcome.

    Args:
        estimates: the cells of the table of pass@k.
    """
    failing = _failing(results)
    by_outcome: dict[str, list[Result]] = {}
    for result in failing[:MOST]:
        by_outcome.setdefault(result.outcome, []).append(result)
    names = sorted(by_outcome, key=lambda name: -len(by_outcome[name]))
    left_out = f"; the first {MOST} are here, all of them in results.jsonl" if len(failing) > MOST else ""
    template = Template((resources.files("refinerl.benchmarks") / "failures.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(title),
        estimates="".join(f"<tr>{''.join(f'<td>{escape(cell)}' for cell in row)}</tr>" for row in estimates),
        count=f"{len(failing)} of {len(results)} samples fail{left_out}.",
        outcomes="".join(f'<a href="#{name}">{name} ({len(by_outcome[name])})</a>' for name in names),
        sections="\n".join(
            f'<h2 id="{name}">{name}</h2>\n' + "\n".join(_details(suite, result) for result in by_outcome[name])
            for name in names
        ),
    )


def _failing(results: Sequence[Result]) -> list[Result]:
    return [result for result in results if not result.passed]


def _panel(suite: Suite, result: Result) -> Panel:
    parts: list[Any] = []
    if prompt := _prompt(suite, result):
        parts += [Text(safe(prompt), style="dim"), Text()]
    if result.sample.program is not None:
        program = safe(result.sample.program.expandtabs(4))
        parts += [Syntax(program, "python", background_color="default", word_wrap=True), Text()]
    styles = {"test": "bold", "expected": "green", "got": "red"}
    parts += [Text(safe(line), style=styles[name]) for name, line in _failure(result).items()]
    title = escape_markup(safe(f"{result.sample.task_id}, sample {result.sample.number}: {result.outcome}"))
    return Panel(Group(*parts), title=title, title_align="left")


def _details(suite: Suite, result: Result) -> str:
    part = f" <small>{result.failure.part} test {result.failure.test}</small>" if result.failure else ""
    lines = "\n".join(f'<span class="{name}">{escape(line)}</span>' for name, line in _failure(result).items())
    prompt = _prompt(suite, result)
    asked = f'<pre class="prompt">{escape(prompt)}</pre>' if prompt else ""
    program = "" if result.sample.program is None else f"<pre>{escape(result.sample.program.strip())}</pre>"
    return (
        f"<details><summary>{escape(result.sample.task_id)}, sample {result.sample.number}{part}</summary>"
        f"{asked}{program}<pre>{lines}</pre></details>"
    )


def _prompt(suite: Suite, result: Result) -> str:
    """Return the prompt, or nothing if the program begins with it."""
    prompt = suite.by_id[result.sample.task_id].prompt.strip()
    return "" if (result.sample.program or "").lstrip().startswith(prompt) else prompt


def _failure(result: Result) -> Mapping[str, str]:
    """Describe the test that failed: the test, what it expects, what it got; {} for a sample without a program."""
    if (f := result.failure) is None:
        return {}
    got = f.got or result.outcome
    return {
        "test": f"{f.part} test {f.test}: {f.input}",
        "expected": f"expected {f.expected}",
        "got": f"got\n{got}" if "\n" in got else f"got      {got}",
    }
