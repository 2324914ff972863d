"""Prompt templates: text files with `$question`, `$response` and `$feedback`, from the package or from the user.

A file is one message of the user's, or a conversation that ends with one. In a conversation the lines `--- user` and
`--- assistant` begin the turns, and the earlier turns are worked examples.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

from refinerl.errors import UserError, similar
from refinerl.records import Message

TASK_VARIABLES = ("question",)
REFINE_VARIABLES = ("question", "response")
FEEDBACK = "feedback"
"""The variable that a refiner's template may also use, if the task has feedback."""

_TURN = re.compile(r"^--- (user|assistant)[ \t]*\n", re.MULTILINE)
_MARKED = re.compile(r"^<(?P<tag>\w+)>\n\$(?:response|\{response\})\n</(?P=tag)>$", re.MULTILINE)


@dataclass(frozen=True)
class PromptTemplate:
    """A conversation with variables, whose last turn is the user's."""

    turns: tuple[tuple[str, Template], ...]
    """(role, text)"""
    markers: tuple[str, str] | None
    """The tags, such as `<response>` and `</response>`, on lines of their own around `$response`; None without."""
    variables: frozenset[str]
    """Names of the variables that it uses."""

    def messages(self, **values: str) -> tuple[Message, ...]:
        """Fill in the variables; dollar signs in the values are left alone."""
        return tuple({"role": role, "content": text.substitute(values)} for role, text in self.turns)

    @property
    def stop(self) -> tuple[str, ...]:
        """The closing marker if the template ends with the opening one, so that the reply must end there; else nothing.

        >>> load_template("refine_text", REFINE_VARIABLES).stop
        ('</response>',)
        """
        if self.markers is None or not self.turns[-1][1].template.rstrip().endswith(self.markers[0]):
            return ()
        return (self.markers[1],)

    def strip_markers(self, reply: str) -> str:
        """Return the text between the markers, without the line breaks next to them; a reply without markers as it is.

        A single marker counts too, since a reply may be cut off, or continue after an opening marker.
        """
        if self.markers is None or not any(marker in reply for marker in self.markers):
            return reply
        opening, closing = self.markers
        start, end = reply.find(opening), reply.rfind(closing)
        inner = reply[start + len(opening) if start >= 0 else 0 : end if end > start else None]
        return inner.removeprefix("\n").removesuffix("\n")


def load_refine_template(name: str, no_feedback: str | None = None) -> PromptTemplate:
    """Load a template for the refiner.

    Args:
        name: as in `load_template`.
        no_feedback: why the task has nothing to say for `$feedback`; None if it has.

    Raises:
        UserError: as `load_template`; or the template uses feedback that the task does not have.
    """
    template = load_template(name, REFINE_VARIABLES, optional=(FEEDBACK,))
    if no_feedback is not None and FEEDBACK in template.variables:
        raise UserError(f"template {name} uses $feedback, which this task does not have: {no_feedback}")
    return template


def shows_feedback(name: str) -> bool:
    """True if a template for the refiner shows `$feedback`, or cannot be read, which is reported elsewhere."""
    try:
        return FEEDBACK in load_refine_template(name).variables
    except UserError:
        return True


def load_template(name: str, variables: Collection[str], optional: Collection[str] = ()) -> PromptTemplate:
    """Load the template `prompts/{name}.txt` of this package, or the file at a path (a name with a slash or a suffix).

    The last newline of a turn is not part of it. A dollar sign is written `$$`.

    >>> load_template("code", TASK_VARIABLES).messages(question="Add two numbers.")[-1]["role"]
    'user'

    Raises:
        UserError: there is no such template; it does not use each of `variables`, or uses another one that is not
            `optional`; its last turn is not the user's.
    """
    text = _read(name)
    used = _used_variables(name, text, variables, optional)
    # split returns the text before the first turn line, then role and text in turn
    first, *rest = _TURN.split(text)
    if rest and first.strip():
        raise UserError(f"template {name}: text before its first turn; begin the file with `--- user`")
    pairs = list(zip(rest[::2], rest[1::2], strict=True)) if rest else [("user", first)]
    if pairs[-1][0] != "user":
        raise UserError(f"template {name}: the last turn must be the user's, got {pairs[-1][0]}")
    marked = _MARKED.search(pairs[-1][1])
    markers = (f"<{marked['tag']}>", f"</{marked['tag']}>") if marked else None
    return PromptTemplate(tuple((role, Template(turn.removesuffix("\n"))) for role, turn in pairs), markers, used)


def names() -> list[str]:
    """List the templates of the package."""
    folder = resources.files("refinerl.tasks") / "prompts"
    return sorted(file.name.removesuffix(".txt") for file in folder.iterdir() if file.name.endswith(".txt"))


def _used_variables(name: str, text: str, variables: Collection[str], optional: Collection[str]) -> frozenset[str]:
    # Template.get_identifiers would do, but Python 3.10 has no such method.
    used: set[str] = set()
    for match in Template.pattern.finditer(text):
        if match["invalid"] is not None:
            line = text.count("\n", 0, match.start()) + 1
            raise UserError(f"template {name}, line {line}: a lone dollar sign; write $$ for the sign itself")
        if match["escaped"] is None:
            used.add(match["named"] or match["braced"])
    allowed = ", ".join(f"${variable}" for variable in (*variables, *optional))
    for variable in sorted(used.difference(variables, optional)):
        raise UserError(f"template {name}: unknown variable ${variable}; it may use {allowed}")
    for variable in variables:
        if variable not in used:
            needed = ", ".join(f"${each}" for each in variables)
            raise UserError(f"template {name}: the variable ${variable} is missing; it must use {needed}")
    return frozenset(used)


def _read(name: str) -> str:
    path = Path(name)
    if len(path.parts) == 1 and not path.suffix:
        if name not in names():
            close = similar(name, names(), cutoff=0.4) or names()
            raise UserError(f"there is no template {name!r}; did you mean {', '.join(close)}? (A file ends in .txt)")
        return (resources.files("refinerl.tasks") / "prompts" / f"{name}.txt").read_text(encoding="utf-8")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the template {name}: {error}") from error
