"""Prompts for a benchmark's tasks, the end of an answer, and the program in it.

- `completion`: the model continues the prompt, as in bigcode-evaluation-harness. The prompt is stripped, the answer
  ends at the first stop sequence, and the program is the prompt followed by the answer.
- `chat`: the prompt goes through the chat template, in evalplus's words, and the assistant's turn is begun up to the
  opening fence. The program is what evalplus's sanitizer keeps of the longest run of lines that parses: the imports,
  and the definitions that the entry point needs. For APPS and LiveCodeBench the assistant's turn is left open, and the
  program is the last code block. LiveCodeBench is asked in its own words.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from refinerl.benchmarks.livecodebench import SYSTEM
from refinerl.benchmarks.suite import Suite, Task
from refinerl.errors import UserError
from refinerl.records import Message
from refinerl.tasks.fences import extract as last_block

Name = Literal["completion", "chat"]

INSTRUCTION = (
    "Please provide a self-contained Python script that solves the following problem in a markdown code block:"
)
RESPONSE = (
    "Below is a Python script with a self-contained function that solves the problem and passes corresponding tests:"
)

# bigcode-evaluation-harness, tasks/humaneval.py, mbpp.py and apps.py; LiveCodeBench's own
COMPLETION_STOPS = {
    "humaneval": ("\nclass", "\ndef", "\n#", "\n@", "\nprint", "\nif", "\n```", "<file_sep>"),
    "mbpp": ("\nclass", "\nassert", '\n"""', "\nprint", "\nif", "\n<|/", "\n```"),
    "apps": ("\nQUESTION", "\n---", "\nANSWER"),
    "livecodebench": ("###",),
}
# evalplus, provider/utility.py and hf.py
CHAT_STOPS = ("<|endoftext|>", "<|endofmask|>", "</s>", "\nif __name__", "\ndef main(", "\nprint(", "\n```\n")


@dataclass(frozen=True)
class Prompting:
    """A way to ask a model for a suite's tasks, and to read its answers."""

    name: Name
    stops: tuple[str, ...]
    extraction: str
    """Description of `program`, for the summary."""
    tokens: Callable[[Task], tuple[int, ...]]
    program: Callable[[Task, str], str]
    """From a task and the model's text to the program that is judged."""


def make_prompting(
    name: Name,
    suite: Suite,
    encode: Callable[[str], Sequence[int]],
    encode_chat: Callable[[Sequence[Message]], Sequence[int]],
    beginning: Sequence[int] = (),
) -> Prompting:
    """Make the prompting `name` for a suite.

    Args:
        encode: tokenizes a text, without special tokens.
        encode_chat: tokenizes a conversation up to the beginning of the assistant's turn.
        beginning: the tokens that every text begins with (a model's BOS), for `completion`.
    """
    apps = suite.family in ("apps", "livecodebench")
    if name == "completion":
        return Prompting(
            name,
            COMPLETION_STOPS[suite.family],
            "the answer alone" if apps else "the prompt with the answer behind it, up to the first stop sequence",
            lambda task: (*beginning, *encode(task.prompt if apps else task.prompt.strip())),
            lambda task, text: text if apps else task.prompt.strip() + text,
        )
    if apps:
        ask = _ask_livecodebench(encode_chat) if suite.family == "livecodebench" else _ask_apps
        return Prompting(
            name,
            (),
            "the last fenced code block, else the whole answer",
            lambda task: tuple(encode_chat(ask(task))),
            lambda task, text: last_block(text),
        )
    opened = tuple(encode(f"{RESPONSE}\n```python\n"))
    return Prompting(
        name,
        CHAT_STOPS,
        "as evalplus: of the longest run of lines that parses, imports and what the entry point needs",
        lambda task: (*encode_chat([{"role": "user", "content": _asked(task.question)}]), *opened),
        lambda task, text: sanitize(text, task.entry_point or ""),
    )


def _ask_apps(task: Task) -> list[Message]:
    return [{"role": "user", "content": f"{INSTRUCTION}\n{task.question}"}]


def _ask_livecodebench(encode_chat: Callable[[Sequence[Message]], Sequence[int]]) -> Callable[[Task], list[Message]]:
    """Ask with LiveCodeBench's system message, in front of the question where a template has no system messages."""
    try:
        encode_chat([{"role": "system", "content": SYSTEM}, {"role": "user", "content": "question"}])
    except UserError:
        return lambda task: [{"role": "user", "content": f"{SYSTEM}\n\n{task.question}"}]
    return lambda task: [{"role": "system", "content": SYSTEM}, {"role": "user", "content": task.question}]


def _asked(question: str) -> str:
    return f"{INSTRUCTION}\n```\n{question.strip()}\n```\n"


def sanitize(text: str, entry_point: str) -> str:
    r"""Find the program in a chat answer as evalplus's sanitizer does, with Python's own parser instead of tree-sitter.

    From the longest run of lines that parses it keeps the imports, then the first definition of each class, of each
    function that returns something, and of each variable that the entry point reaches through the names that occur in
    them. If there is nothing of this, it keeps the whole run; if no line parses, the whole text, which then fails.

    >>> sanitize("Sure:\n```python\nimport math\ndef area(r):\n    return math.pi * r * r\nprint(area(1))\n```", "area")
    'import math\ndef area(r):\n    return math.pi * r * r'
    """
    code = longest_program(text)
    tree = _parse(code)
    assert tree is not None
    lines = code.split("\n")
    imports: list[str] = []
    kept: dict[str, tuple[str, set[str]]] = {}
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports.append(_source(lines, node))
            continue
        name = _defines(node)
        if name is not None and name not in kept:
            kept[name] = (_source(lines, node), _names(node))
    reached = _reached(entry_point, {name: names for name, (_, names) in kept.items()})
    found = "\n".join(imports + [source for name, (source, _) in kept.items() if name in reached]).strip()
    return found or code or text


def longest_program(text: str) -> str:
    """Find the run of lines that parses and has the most lines that are not blank; of equals, the first."""
    lines = text.split("\n")
    filled = [bool(line.strip()) for line in lines]
    best, chosen = 0, (0, -1)
    for start in range(len(lines)):
        if not filled[start]:
            continue  # the next line begins a run that is as good
        count = sum(filled[start:])
        for end in range(len(lines) - 1, start - 1, -1):
            if count <= best:
                break
            if filled[end]:
                if _parse("\n".join(lines[start : end + 1])) is not None:
                    best, chosen = count, (start, end)
                    break
                count -= 1
    return "\n".join(lines[chosen[0] : chosen[1] + 1])


def _parse(code: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in a model's strings do not belong in our log
            return ast.parse(code)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def _defines(node: ast.stmt) -> str | None:
    """Return the name that a statement defines, if it is a definition to keep."""
    match node:
        case ast.ClassDef(name=name):
            return name
        case ast.FunctionDef(name=name):
            return name if any(isinstance(part, ast.Return) for part in ast.walk(node)) else None
        case ast.Assign(targets=[ast.Name(id=name), *_]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name
    return None


def _names(node: ast.stmt) -> set[str]:
    names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    return names | {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}


def _source(lines: list[str], node: ast.stmt) -> str:
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
    assert node.end_lineno is not None
    text = lines[first - 1 : node.end_lineno]
    # Columns, which count bytes, tell two statements on a line apart.
    ended = text[-1].encode()[: node.end_col_offset].decode()
    text = [*text[:-1], ended]
    if first == node.lineno and node.col_offset:
        text[0] = text[0].encode()[node.col_offset :].decode()
    return "\n".join(text)


def _reached(start: str, graph: dict[str, set[str]]) -> set[str]:
    reached, waiting = {start}, [start]
    while waiting:
        for name in graph.get(waiting.pop(), set()) - reached:
            reached.add(name)
            waiting.append(name)
    return reached
