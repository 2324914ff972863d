"""Pages of the documentation: their blocks of code, and the commands in them, as bash would start them."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)(?: title=\"([^\"]+)\")?\n(.*?)^```", re.MULTILINE | re.DOTALL)
PROGRAMS = ("refinerl", "python", "pip", "torchrun", "deepspeed", "make", "docker", "vllm", "cargo")
"""Programs that pages start. Stand-ins for them note how they are called, and do nothing."""


@dataclass(frozen=True)
class Block:
    """A block of code: its language, the file that it is (or an empty string), and its text."""

    language: str
    title: str
    text: str


@dataclass(frozen=True)
class Command:
    """A program with its arguments, and the folder in which it was started."""

    folder: Path
    words: tuple[str, ...]

    @property
    def module(self) -> str:
        """The module of ours that it runs, such as `refinerl.train`; empty if it runs none."""
        program, *rest = self.words
        if program.endswith("refinerl"):
            return f"refinerl.{rest[0]}" if rest and not rest[0].startswith("-") else "refinerl"
        named = [b for a, b in itertools.pairwise(rest) if a in ("-m", "--module") and b.startswith("refinerl")]
        return named[0] if named else ""

    @property
    def arguments(self) -> list[str]:
        """The arguments of that module."""
        rest = list(self.words[1:])
        return rest[1:] if self.words[0].endswith("refinerl") else rest[rest.index(self.module) + 1 :]

    def __str__(self) -> str:
        return " ".join(self.words)


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page."""
    return [Block(*found) for found in FENCE.findall(page.read_text(encoding="utf-8"))]


def started(script: str, folder: Path, stand_ins: Path) -> list[Command]:
    """Run a script of bash in `folder`, with stand-ins for all programs; return what it starts."""
    log = stand_ins / "log"
    log.write_bytes(b"")
    note = f'#!/bin/bash\nprintf "%s\\0" "$(basename "$0")" "$@" $\'\\1\' "$PWD" $\'\\2\' >> {log}\n'
    for program in (*PROGRAMS, ".venv/bin/refinerl"):
        place = folder / program if "/" in program else stand_ins / program
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(note)
        place.chmod(0o755)
    environment = {**os.environ, "PATH": f"{stand_ins}:{os.environ['PATH']}"}
    subprocess.run(
        ["bash", "-eu", "-c", script], cwd=folder, env=environment, check=True, capture_output=True, text=True
    )
    entries = log.read_bytes().decode().split("\2\0")[:-1]
    found = [entry.split("\1\0") for entry in entries]
    return [Command(Path(where.rstrip("\0")), tuple(words.split("\0")[:-1])) for words, where in found]
