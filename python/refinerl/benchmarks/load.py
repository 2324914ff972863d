"""Suites by name, from local files or from where they are published."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

from refinerl.benchmarks import mbpp as mbpp_family
from refinerl.benchmarks.apps import apps
from refinerl.benchmarks.humaneval import humaneval, humaneval_plus
from refinerl.benchmarks.livecodebench import livecodebench
from refinerl.benchmarks.suite import Suite
from refinerl.data.hub import fetched, local
from refinerl.errors import UserError

Benchmark = Literal["humaneval", "humaneval+", "mbpp", "mbpp+", "apps", "livecodebench"]
NAMES = ("humaneval", "humaneval+", "mbpp", "mbpp+", "apps", "livecodebench")

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
LIVECODEBENCH = "hub:livecodebench/code_generation_lite"
RELEASES = {
    f"release_v{last}": tuple(f"test{number if number > 1 else ''}.jsonl" for number in range(1, last + 1))
    for last in range(1, 7)
}
"""Files of each release of LiveCodeBench, which adds one to those of the release before."""
OF_PROBLEMS = ("apps", "livecodebench")
"""Benchmarks of problems with tests; their files have no known versions."""


@dataclass(frozen=True)
class Choice:
    """A benchmark, and the choice of its tasks."""

    benchmark: Benchmark
    data: str | None = None
    """A folder with the files (for APPS and LiveCodeBench also a single file, or `hub:OWNER/NAME/FILE`); None: as
    published."""
    split: str | None = None
    """mbpp: test, all or sanitized; apps: test or train; livecodebench: release_v1 to release_v6. None: test, or the
    last release."""
    limit: int | None = None
    """The first tasks only."""
    difficulty: str | None = None
    max_tests: int | None = None
    unverified: bool = False
    since: datetime.date | None = None
    """livecodebench: only problems of contests from this day on, …"""
    until: datetime.date | None = None
    """… and before this one."""


def load_suite(choice: Choice) -> Suite:
    """Read a benchmark.

    Raises:
        UserError: the split is unknown, or a file is missing or cannot be used.
    """
    splits = {
        "mbpp": ("test", "all", "sanitized"),
        "apps": ("test", "train"),
        "livecodebench": tuple(RELEASES)[::-1],
    }.get(choice.benchmark, ("test",))
    split = choice.split or splits[0]
    if split not in splits:
        raise UserError(f"the split of {choice.benchmark} must be {' or '.join(splits)}, got {split!r}")
    if choice.benchmark not in OF_PROBLEMS and (choice.difficulty is not None or choice.max_tests is not None):
        raise UserError(
            f"a difficulty and a cap on the tests are for apps and livecodebench, not for {choice.benchmark}"
        )
    if choice.benchmark != "livecodebench" and (choice.since is not None or choice.until is not None):
        raise UserError(f"a window of days is for livecodebench, not for {choice.benchmark}")
    data, unverified = _data(choice, split), choice.unverified
    difficulties = None if choice.difficulty is None else [choice.difficulty]
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
            suite = apps(data, split=split, difficulties=difficulties, max_tests=choice.max_tests)
        case "livecodebench":
            suite = livecodebench(
                _releases(choice, data, split),
                since=choice.since,
                until=choice.until,
                difficulties=difficulties,
                max_tests=choice.max_tests,
            )
    notes = (*suite.notes, *(["versions were not checked"] if unverified and suite.files else []))
    return replace(suite, first=choice.limit, notes=notes)


def _data(choice: Choice, split: str) -> Path:
    if choice.data is not None:
        path = local(choice.data)
        if not path.exists():
            raise UserError(f"there is no file or folder {choice.data}")
        if path.is_file() and choice.benchmark not in OF_PROBLEMS:
            raise UserError(f"--data must be a folder for {choice.benchmark}, got the file {path}")
        return path
    if choice.benchmark == "apps":
        return local(f"{APPS}/{split}.jsonl")
    if choice.benchmark == "livecodebench":
        return Path()  # a release may have several files: see `_releases`
    folder = Path()
    for address, digest in SOURCES[choice.benchmark]:
        folder = fetched(address, digest).parent
    return folder


def _releases(choice: Choice, data: Path, split: str) -> list[Path]:
    """Find the files of a release of LiveCodeBench: a given file, those of a folder, or those of the hub."""
    if choice.data is None:
        return [local(f"{LIVECODEBENCH}/{name}") for name in RELEASES[split]]
    if data.is_file():
        return [data]
    for home in (data / "livecodebench", data / "code_generation_lite", data):
        found = [home / name for name in RELEASES[split] if (home / name).is_file()]
        if len(found) == len(RELEASES[split]):
            return found
        if found and choice.split is not None:
            missing = [name for name in RELEASES[split] if not (home / name).is_file()]
            raise UserError(f"{home} lacks {', '.join(missing)} of {split}: choose another --split, or give a file")
        if found or (found := sorted(home.glob("*.jsonl"))):
            return found
    raise UserError(f"{data} holds no file of JSON lines, such as {RELEASES[split][0]}")
