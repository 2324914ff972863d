"""Suites by name, from local files or from where they are published."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

from refinerl.benchmarks import mbpp as mbpp_family
from refinerl.benchmarks.apps import apps
from refinerl.benchmarks.humaneval import humaneval, humaneval_plus
from refinerl.benchmarks.suite import Suite
from refinerl.data.hub import fetched, local
from refinerl.errors import UserError

Benchmark = Literal["humaneval", "humaneval+", "mbpp", "mbpp+", "apps"]
NAMES = ("humaneval", "humaneval+", "mbpp", "mbpp+", "apps")

_OPENAI = "https://raw.githubusercontent.com/openai/human-eval/master/data"
_GOOGLE = "https://raw.githubusercontent.com/google-research/google-research/master/mbpp"
_EVALPLUS = "https://github.com/evalplus"
_HUMANEVAL_PLUS = (
    f"{_EVALPLUS}/humanevalplus_release/releases/download/v0.1.10/HumanEvalPlus-NoExtreme.jsonl.gz",
    "298f79977b2663b8b8ab6b5fa50b17d6f23a92603d24f39e26203fe58c37eeda",
)
SOURCES = {
    "humaneval": (
        (f"{_OPENAI}/HumanEval.jsonl.gz", "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef"),
        _HUMANEVAL_PLUS,
    ),
    "humaneval+": (_HUMANEVAL_PLUS,),
    "mbpp": (
        (f"{_GOOGLE}/mbpp.jsonl", "ccf64ceae9c5403bf50a044cb6d505bfd2a2963ee58338ba268fd65beab92a9f"),
        (f"{_GOOGLE}/sanitized-mbpp.json", "7fec016546acaee11dbe14f9f0bb670e59f41919f7b522a59fba34871da78551"),
    ),
    "mbpp+": (
        (
            f"{_EVALPLUS}/mbppplus_release/releases/download/v0.2.0/MbppPlus-NoExtreme.jsonl.gz",
            "72d32acaea73d5606cb97041b30d45bbda9435a675369d3e31965513ee94e564",
        ),
    ),
}
"""(address, SHA-256) of each benchmark's files, as published; the hub's copies of evalplus's data lack the inputs."""
APPS = "hub:codeparrot/apps"


@dataclass(frozen=True)
class Choice:
    """A benchmark, and the choice of its tasks."""

    benchmark: Benchmark
    data: str | None = None
    """A folder with the files (for APPS also a single file, or `hub:OWNER/NAME/FILE`); None: as published."""
    split: str | None = None
    """mbpp: test, all or sanitized; apps: test or train. None: test."""
    limit: int | None = None
    """The first tasks only."""
    difficulty: str | None = None
    max_tests: int | None = None
    unverified: bool = False


def load_suite(choice: Choice) -> Suite:
    """Read a benchmark.

    Raises:
        UserError: the split is unknown, or a file is missing or cannot be used.
    """
    split = choice.split or "test"
    splits = {"mbpp": ("test", "all", "sanitized"), "apps": ("test", "train")}.get(choice.benchmark, ("test",))
    if split not in splits:
        raise UserError(f"the split of {choice.benchmark} must be {' or '.join(splits)}, got {split!r}")
    if choice.benchmark != "apps" and (choice.difficulty is not None or choice.max_tests is not None):
        raise UserError(f"a difficulty and a cap on the tests are for apps, not for {choice.benchmark}")
    data, unverified = _data(choice, split), choice.unverified
    match choice.benchmark:
        case "humaneval":
            suite = humaneval(data, unverified=unverified)
        case "humaneval+":
            suite = humaneval_plus(data, unverified=unverified)
        case "mbpp":
            suite = mbpp_family.mbpp(data, split=cast(mbpp_family.Split, split), unverified=unverified)
        case "mbpp+":
            suite = mbpp_family.mbpp_plus(data, unverified=unverified)
        case "apps":
            difficulties = None if choice.difficulty is None else [choice.difficulty]
            suite = apps(data, split=split, difficulties=difficulties, max_tests=choice.max_tests)
    notes = (*suite.notes, *(["versions were not checked"] if unverified and suite.files else []))
    return replace(suite, first=choice.limit, notes=notes)


def _data(choice: Choice, split: str) -> Path:
    if choice.data is not None:
        path = local(choice.data)
        if not path.exists():
            raise UserError(f"there is no file or folder {choice.data}")
        if path.is_file() and choice.benchmark != "apps":
            raise UserError(f"--data must be a folder for {choice.benchmark}, got the file {path}")
        return path
    if choice.benchmark == "apps":
        return local(f"{APPS}/{split}.jsonl")
    folder = Path()
    for address, digest in SOURCES[choice.benchmark]:
        folder = fetched(address, digest).parent
    return folder
