"""Disks that fill in each phase that writes: one message, no partial file, and a run that can be resumed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.cases import DISK
from chaos.runs import Case, Server, check
from tiny import write_tiny
from toy import Toy, timeless

pytestmark = pytest.mark.slow
FLAGS = ()
RUN = (
    "trainer.steps=2",
    "checkpoint.every=1",
    "constraint.accept=all",
    "algorithm.dynamic_sampling=false",
    "device=cpu",
)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 64 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {made.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.fixture(scope="module")
def toy(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """Make a toy whose model's files are larger than the free space that still counts as a full disk."""
    folder = tmp_path_factory.mktemp("large-toy")
    write_tiny(folder / "model", alphabet="abcdefgh ", hidden=256, scale=0.05)
    (folder / "prompts.jsonl").write_text((toy.folder / "prompts.jsonl").read_text())
    return Toy(folder)


@pytest.fixture(scope="module")
def whole(server: Server, toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run without a failure, for comparison."""
    output = tmp_path_factory.mktemp("whole") / "run"
    end, err, _ = server.run(toy.arguments(output, *RUN))
    assert end["codes"] == [0], err
    return output


@pytest.mark.parametrize("case", DISK, ids=lambda case: case.name)
def test_a_disk_that_fills(server: Server, toy: Toy, whole: Path, disk: Path, case: Case):
    arguments = [*toy.arguments(disk / "run", *RUN), "--resume"]
    case.plan["folder"] = str(disk)
    end, err, _ = server.run(arguments, case=case)
    check(case, end, err)
    assert not [path for path in disk.rglob("*") if "partial" in path.name]
    (disk / "ballast").unlink()
    end, err, _ = server.run(arguments)
    assert end["codes"] == [0], err
    assert timeless(disk / "run") == timeless(whole)
    assert (disk / "run" / "final" / "model.safetensors").stat().st_size == (
        whole / "final" / "model.safetensors"
    ).stat().st_size
