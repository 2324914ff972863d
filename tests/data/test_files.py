"""Files are written whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from refinerl.data.files import replacing, write


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_text_replaces_what_was_there(tmp_path):
    path = tmp_path / "rows.jsonl"
    write(path, "old")
    write(path, (f"{number}\n" for number in range(3)))
    assert path.read_text() == "0\n1\n2\n"
    assert names(tmp_path) == ["rows.jsonl"]


def test_what_fails_midway_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "rows.jsonl"
    write(path, "old")

    def pieces() -> Iterator[str]:
        yield "new" * 10_000
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(path, pieces())
    with pytest.raises(OSError, match=r"\.partial"), replacing(path) as partial:
        partial.symlink_to("half")  # to nothing
    assert path.read_text() == "old"
    assert names(tmp_path) == ["rows.jsonl"]


def test_a_folder_is_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path, Path(".")):  # a path without a name was a ValueError
        with pytest.raises(IsADirectoryError):
            write(folder, "new")
    assert names(tmp_path) == []


def test_a_full_disk_leaves_the_old_file_alone(tmp_path):
    """Write to /dev/full, which answers every write as a full disk does."""
    path = tmp_path / "rows.jsonl"
    write(path, "old")
    (tmp_path / f".rows.jsonl.{os.getpid()}.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space"):
        write(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["rows.jsonl"]


def test_two_processes_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "rows.jsonl"
    with replacing(path) as partial:
        partial.write_text("ours")
        subprocess.run([sys.executable, "-c", THEIRS, str(path)], check=True)
        assert path.read_text() == "theirs"
    assert path.read_text() == "ours"
    assert names(tmp_path) == ["rows.jsonl"]


THEIRS = "import sys, pathlib; from refinerl.data.files import write; write(pathlib.Path(sys.argv[1]), 'theirs')"


def test_the_disk_has_the_bytes_before_the_name_says_so(tmp_path, monkeypatch):
    seen = []
    flush, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (seen.append("flush"), flush(descriptor)))
    monkeypatch.setattr(os, "replace", lambda *paths: (seen.append("move"), replace(*paths)))
    write(tmp_path / "rows.jsonl", "rows")
    assert seen == ["flush", "move"]


def test_what_utf_8_cannot_encode_is_escaped(tmp_path):
    write(tmp_path / "program.txt", "print('\udc80')")
    assert (tmp_path / "program.txt").read_text() == r"print('\udc80')"
