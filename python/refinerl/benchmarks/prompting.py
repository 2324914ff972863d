"""What a model is asked, where its answer ends, and which part of it is the program.

- `completion`: the model continues the prompt, as bigcode-evaluation-harness has it. The prompt is stripped, the
  answer ends at the first stop sequence, and the program is the prompt with the answer behind it.
- `chat`: the prompt goes through the chat template, in evalplus's words, with the beginning of the assistant's turn
  given up to the opening fence. The program is what evalplus's sanitizer keeps: of the longest run of lines that
  parses the imports, and the definitions that the entry point needs. APPS is asked with an open turn instead, and the
  program is the last code block.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from refinerl.benchmarks.suite import Suite, Task
from refinerl.records import Message
from refinerl.tasks.fences import extract as last_block

Name = Literal["completion", "chat"]

INSTRUCTION = (
    "Please provide a self-contained Python script that solves the following problem in a markdown code block:"
)
RESPONSE = (
    "Below is a Python script with a self-contained function that solves the problem and passes corresponding tests:"
)

# bigcode-evaluation-harness, tasks/humaneval.py, mbpp.py and apps.py
COMPLETION_STOPS = {
    "humaneval": ("\nclass", "\ndef", "\n#", "\n@", "\nprint", "\nif", "\n```", "<file_sep>"),
    "mbpp": ("\nclass", "\nassert", '\n"""', "\nprint", "\nif", "\n<|/", "\n```"),
    "apps": ("\nQUESTION", "\n---", "\nANSWER"),
}
# evalplus, provider/utility.py and hf.py
CHAT_STOPS = ("<|endoftext|>", "<|endofmask|>", "</s>", "\nif __name__", "\ndef main(", "\nprint(", "\n```\n")


@dataclass(frozen=True)
class Prompting:
    """How a suite's tasks are put to a model."""

    name: Name
    stops: tuple[str, ...]
    extraction: str
    """In words, for the summary."""
    tokens: Callable[[Task], tuple[int, ...]]
    program: Callable[[Task, str], str]
    """(task, what the model wrote) -> the program that is judged."""


def make_prompting(
    name: Name,
    suite: Suite,
    encode: Callable[[str], Sequence[int]],
    encode_chat: Callable[[Sequence[Message]], Sequence[int]],
    beginning: Sequence[int] = (),
) -> Prompting:
    """The prompting `name` of a suite.

    Args:
        encode: tokens of a text, no special ones added.
        encode_chat: tokens of a conversation up to where the assistant's turn begins.
        beginning: the tokens that every text begins with (a model's BOS), for `completion`.
    """
    apps = suite.family == "apps"
    if name == "completion":
        return Prompting(
            name,
            COMPLETION_STOPS[suite.family],
            "the answer alone" if apps else "the prompt with the answer behind it, up to the first stop sequence",
            lambda task: (*beginning, *encode(task.prompt if apps else task.prompt.strip())),
            lambda task, text: text if apps else task.prompt.strip() + text,
        )
    if apps:
        return Prompting(
            name,
            (),
            "the last fenced code block, else the whole answer",
            lambda task: tuple(encode_chat([{"role": "user", "content": f"{INSTRUCTION}\n{task.question}"}])),
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


def _asked(question: str) -> str:
    return f"{INSTRUCTION}\n```\n{question.strip()}\n```\n"


def sanitize(text: str, entry_point: str) -> str:
    """The program in a chat answer, as evalplus's sanitizer finds it: by Python's own parser instead of tree-sitter.

    Of the longest run of lines that parses: the imports, then every first definition of a class, of a function that
    returns something, and of a variable that the entry point reaches through the names that occur in them. The whole
    run where nothing of that is there; the whole text where not a line of it parses, so that it fails as what it is.
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
    """The run of lines with the most lines that are not blank among those that parse; the first of equals."""
    lines = text.split("\n")
    filled = [bool(line.strip()) for line in lines]
    best, chosen = 0, (0, -1)
    for start in range(len(lines)):
        if not filled[start]:
            continue  # an equal run begins at the next line
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
            warnings.simplefilter("ignore")  # a model's invalid escapes are no concern of our log
            return ast.parse(code)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def _defines(node: ast.stmt) -> str | None:
    """The name that a statement defines, if it is one of those that are kept."""
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
    # Columns count bytes; two statements on a line are told apart by them.
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
