"""What the command line alone decides, in a process of its own: fast, and without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest
from rich.console import Console

from refinerl import train
from refinerl.run import arguments, recipe

SPY = (
    "import sys, runpy\n"
    "sys.argv = ['train', *sys.argv[1:]]\n"
    "try:\n"
    "    runpy.run_module('refinerl.train', run_name='__main__')\n"
    "finally:\n"
    "    print('torch' in sys.modules, 'transformers' in sys.modules, file=sys.stderr)\n"
)


@pytest.mark.parametrize(
    ("words", "code", "output"),
    [
        ([], 2, "  python -m refinerl.train demo\n"),
        (["--help"], 0, "constraint.beta="),
        (["--list"], 0, "apps-ppo-static"),
        (["smollm", "trainer.stepz=1"], 2, "trainer.steps"),
        (["nowhere"], 2, "unknown recipe"),
        (["--surprise"], 2, "usage:"),
    ],
)
@pytest.mark.slow
def test_answers_without_torch(words: list[str], code: int, output: str) -> None:
    done = subprocess.run([sys.executable, "-c", SPY, *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == code
    assert output in done.stdout + done.stderr
    assert done.stderr.strip().endswith("False False")


def test_words() -> None:
    assert arguments.split([]) == ("demo", [])
    assert arguments.split(["trainer.steps=1"]) == ("demo", ["trainer.steps=1"])
    assert arguments.split(["apps-dapo", "gpus-4", "seed=1"]) == ("apps-dapo", ["gpus-4", "seed=1"])
    args = arguments.parse(["apps-dapo", "--output-dir", "a", "gpus-4", "--resume", "seed=1"])
    assert (args.words, args.output_dir.name, args.resume) == (["apps-dapo", "gpus-4", "seed=1"], "a", True)


@pytest.mark.parametrize("words", [[], ["--local_rank=0"]])
def test_nothing_asked_for_starts_nothing(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(words) == 2
    assert capsys.readouterr().err.startswith("error: nothing to train is named: choose a recipe")


def test_the_introduction_names_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    arguments.introduce(Console(width=200))
    printed = capsys.readouterr().out
    assert all(name in printed for name in recipe.recipes())
    for command in arguments.EXAMPLES:
        words = command.partition("refinerl.train ")[2].split()
        assert command in printed
        recipe.load(*arguments.split(arguments.parse(words).words))


def test_every_knob_has_a_line() -> None:
    lines = "\n".join(arguments.knobs())
    for key in ("  model=", "  reward_model.normalize=None", "  constraint.beta=", "task: The source of prompts"):
        assert key in lines
