"""`refinerl COMMAND` is `python -m refinerl.COMMAND`."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import refinerl
from refinerl.__main__ import COMMANDS, EXAMPLES, main

try:
    import tomllib
except ModuleNotFoundError:  # CPython 3.10
    import tomli as tomllib  # type: ignore[import-not-found,no-redef,unused-ignore]

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _arguments(monkeypatch: pytest.MonkeyPatch):
    """`main` replaces them, and adds to the path."""
    monkeypatch.setattr(sys, "argv", ["refinerl"])
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_each_command_says_its_version(command: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main([command, "--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"refinerl {refinerl.__version__}\n"


def test_itself(capsys: pytest.CaptureFixture[str]):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"refinerl {refinerl.__version__}\n"
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in (*COMMANDS, *EXAMPLES))
    assert main([]) == 2  # nothing was asked for, and nothing done
    assert "refinerl train demo" in capsys.readouterr().out
    assert main(["trian"]) == 2
    assert "the commands are train, evaluate" in capsys.readouterr().err


def test_arguments_and_exit_code_are_the_commands_own():
    done = subprocess.run(
        [sys.executable, "-m", "refinerl", "train", "smollm", "trainer.stepz=1"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown key 'trainer.stepz'; closest: trainer.steps")


def test_the_wheel_installs_it():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, function = project["scripts"]["refinerl"].partition(":")
    assert getattr(importlib.import_module(module), function) is main


@pytest.mark.slow
@pytest.mark.parametrize(("safe", "code"), [("", 0), ("1", 2)])
def test_the_script_finds_modules_of_the_current_folder(tmp_path: Path, safe: str, code: int):
    """A script's path begins with its own folder, and that of `python -m` with the current one."""
    if safe and sys.version_info < (3, 11):
        pytest.skip("PYTHONSAFEPATH is of CPython 3.11")
    script, here = tmp_path / "bin" / "refinerl", tmp_path / "here"
    script.parent.mkdir()
    script.write_text("import sys\nfrom refinerl.__main__ import main\nsys.exit(main())\n")
    here.mkdir()
    (here / "my_rewards.py").write_text("def brief(completions, **_):\n    return [-len(c) for c in completions]\n")
    (here / "rows.jsonl").write_text('{"prompt": "a"}\n')
    words = ["smollm", "task.name=dialogue", "task.path=rows.jsonl", "task.reward=my_rewards:brief", "--dry-run"]
    done = subprocess.run(
        [sys.executable, str(script), "train", *words],
        cwd=here,
        env=os.environ | {"PYTHONSAFEPATH": safe},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert ("there is no module 'my_rewards'" in done.stderr) == bool(code)
