"""A run that is killed at any moment and resumed is the run that was never interrupted."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
import torch

from launching import launch, needs_deepspeed
from refinerl import train
from refinerl.report.page import write_page
from refinerl.report.page.folders import read_folder
from refinerl.run import arguments, command, recipe
from toy import Toy, metrics, rollouts, timeless

RUN = (
    "algorithm.name=ppo",
    "algorithm.samples_per_prompt=2",
    "algorithm.epochs=2",
    "critic.learning_rate=1e-3",
    "constraint.accept=all",
    "trainer.minibatch=4",
    "trainer.steps=3",
    "checkpoint.every=1",
    "checkpoint.keep=1",
)

# Only what is on the disk outlives a kill, so to be killed before each operation on a file is to be killed anywhere.
KILLED = """
import os, signal, sys
folder, at = sys.argv[1], int(sys.argv[2])
seen = 0
def hook(event, arguments):
    global seen
    if event in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir") and str(arguments[0]).startswith(folder):
        seen += 1
        if seen == at:
            os.kill(os.getpid(), signal.SIGKILL)
from refinerl import train
from refinerl.run import command
sys.addaudithook(hook)
code = train.main(sys.argv[3:])
print("operations", seen)
sys.exit(code)
"""


def killed_run(toy: Toy, output: Path, at: int, *overrides: str) -> subprocess.CompletedProcess[str]:
    """Runs the command in a process that kills itself before its `at`-th operation on a file of the run."""
    source = Path(train.__file__).parents[1]
    path = os.pathsep.join([str(Path(__file__).parents[1]), str(source), *sys.path])
    command = [sys.executable, "-c", KILLED, str(output), str(at), *toy.arguments(output, *overrides)]
    return subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.slow
def test_the_page_of_a_resumed_run_has_each_step_once_and_says_where(toy: Toy, tmp_path: Path):
    """Step 3 was taken, but its checkpoint was lost; what it wrote is replaced."""
    run = tmp_path / "run"
    assert toy.run(run, *RUN, "checkpoint.keep=2") == 0
    assert "resumed" not in " ".join(read_folder(run).notes)
    for lost in ("checkpoint-3", "final"):
        shutil.rmtree(run / lost)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert toy.run(run, *RUN, "trainer.steps=4", resume=True) == 0
    folder = read_folder(run)
    assert [row["step"] for row in folder.metrics] == [1, 2, 3, 4]
    assert (run / "metrics.jsonl").read_text().splitlines()[:2] == lines[:2]
    assert [step for step, _ in folder.steps()] == [1, 2, 3, 4]
    assert folder.notes == ["The run was resumed after step 2. Each step is shown once, as it was taken last."]
    assert folder.notes[0] in write_page(run).read_text()
    assert toy.run(run, *RUN, "trainer.steps=4", resume=True) == 0  # nothing is left to do
    assert read_folder(run).notes == folder.notes
    assert toy.run(run, *RUN, "trainer.steps=5", resume=True) == 0
    assert read_folder(run).notes[0].startswith("The run was resumed after steps 2 and 4. ")


@pytest.mark.slow
def test_a_run_that_is_resumed_on_another_day_is_the_same_run(toy: Toy, tmp_path: Path, monkeypatch):
    """Of a model whose chat template prints the day, as Llama 3.2's does: here that many letters."""
    template = tmp_path / "template.jinja"
    template.write_text("{{ 'a' * (strftime_now('%d') | int) }}{{ messages[-1].content }}")
    options = (*RUN, f"chat_template={template}", "trainer.schedule=constant")
    monkeypatch.setattr(command, "today", lambda: date(2024, 2, 9))
    assert toy.run(tmp_path / "whole", *options) == 0
    assert toy.run(tmp_path / "run", *options, "trainer.steps=1") == 0
    monkeypatch.setattr(command, "today", lambda: date(2024, 2, 10))
    assert toy.run(tmp_path / "run", *options, resume=True) == 0
    assert timeless(tmp_path / "run") == timeless(tmp_path / "whole")
    assert "chat_template_date: '2024-02-09'" in (tmp_path / "run" / "config.yaml").read_text()
    assert toy.run(tmp_path / "later", *options) == 0
    assert timeless(tmp_path / "later") != timeless(tmp_path / "whole")


@pytest.fixture(scope="module")
def whole(toy: Toy, tmp_path_factory) -> tuple[Path, int]:
    """The run that was never interrupted, and how many operations on files it takes."""
    output = tmp_path_factory.mktemp("whole") / "run"
    done = killed_run(toy, output, 0, *RUN)
    assert done.returncode == 0, done.stderr
    return output, int(done.stdout.split()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.02, 0.2, 0.35, 0.5, 0.62, 0.75, 0.9, 0.98])
def test_killed_and_resumed_is_as_never_interrupted(toy: Toy, whole, tmp_path, share):
    reference, operations = whole
    output = tmp_path / "run"
    killed = killed_run(toy, output, max(1, round(share * operations)), *RUN)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert toy.run(output, *RUN, resume=True) == 0
    assert timeless(output) == timeless(reference)
    for step in (1, 2, 3):
        assert rollouts(output, step) == rollouts(reference, step)
    states = [
        torch.load(folder / "checkpoint-3" / name / "trainer.pt")["network"]
        for folder in (output, reference)
        for name in ("policy", "critic")
    ]
    for mine, theirs in zip(states[:2], states[2:], strict=True):
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert not [path for path in output.rglob("*") if "partial" in path.name]


def test_a_resumed_run_continues_where_the_first_ended(toy: Toy, tmp_path):
    """With DAPO: the position in the data, which dynamic sampling moves by more than a batch, is kept."""
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    schedule = "trainer.schedule=constant"
    assert toy.run(whole, "trainer.steps=3", schedule, "checkpoint.every=1") == 0
    assert toy.run(halves, "trainer.steps=2", schedule, "checkpoint.every=1") == 0
    assert toy.run(halves, "trainer.steps=3", schedule, "checkpoint.every=1", resume=True) == 0
    assert timeless(halves) == timeless(whole)


def test_the_folder_alone_is_enough_to_resume(toy: Toy, tmp_path):
    assert toy.run(tmp_path / "run", "trainer.steps=1") == 0
    assert train.main(["--output-dir", str(tmp_path / "run"), "--resume"]) == 0
    assert len(metrics(tmp_path / "run")) == 1
    assert train.main(["--output-dir", str(tmp_path / "run"), "--resume", "trainer.steps=2"]) == 0
    assert len(metrics(tmp_path / "run")) == 2


def test_words_after_resume_are_laid_over_the_runs_own_configuration(toy: Toy, tmp_path, capsys):
    """Also where the command reads its words before torch is imported."""
    run = tmp_path / "run"
    assert toy.run(run, "trainer.steps=1", "trainer.schedule=constant", "generation.max_tokens=5") == 0
    before = recipe.load_run(run)
    words = ["--output-dir", str(run), "--resume", "trainer.steps=2", "checkpoint.keep=5"]
    arguments.answer_early(words)
    assert train.main(words) == 0
    assert "resuming after step 1" in capsys.readouterr().out
    after = recipe.load_run(run)
    assert recipe.differences(before, after) == ["trainer.steps: 1 -> 2", "checkpoint.keep: 2 -> 5"]


def test_a_run_that_has_more_steps_already_is_left_alone(toy: Toy, tmp_path, capsys):
    assert toy.run(tmp_path, "trainer.steps=2") == 0
    before = (tmp_path / "config.yaml").read_bytes()
    capsys.readouterr()
    assert train.main(["--output-dir", str(tmp_path), "--resume", "trainer.steps=1"]) == 2
    assert f"{tmp_path} has 2 steps already, more than trainer.steps = 1" in capsys.readouterr().err
    assert (tmp_path / "config.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("folder", "says"),
    [
        ("nothing", "nothing holds no run that --resume could continue: give the folder of one, or name the recipe"),
        ("run/checkpoint-1", "checkpoint-1 is a part of a run: give the run's folder, --output-dir "),
    ],
)
def test_a_folder_without_a_run_is_not_resumed_with_a_recipe_that_nobody_named(
    toy: Toy, tmp_path, capsys, folder, says
):
    assert toy.run(tmp_path / "run", "trainer.steps=1") == 0
    words = ["--output-dir", str(tmp_path / folder), "--resume", "trainer.steps=2"]
    assert train.main(words) == 2
    assert says in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        arguments.answer_early(words)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "nothing").exists()


def test_a_mistyped_word_after_resume_is_named(toy: Toy, tmp_path, capsys):
    assert toy.run(tmp_path / "run", "trainer.steps=1") == 0
    assert train.main(["--output-dir", str(tmp_path / "run"), "--resume", "trainer.stpes=2"]) == 2
    assert "unknown key 'trainer.stpes'; closest: trainer.steps" in capsys.readouterr().err


def test_a_checkpoint_without_a_model_is_continued(toy: Toy, tmp_path):
    """As earlier versions wrote it: what `resume` reads has not changed."""
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    options = ("trainer.schedule=constant", "checkpoint.every=1")
    assert toy.run(whole, *options, "trainer.steps=3") == 0
    assert toy.run(halves, *options, "trainer.steps=2") == 0
    for path in (halves / "checkpoint-2").iterdir():
        if path.is_file() and path.name not in ("trainer_state.json", "rng-0.pt"):
            path.unlink()
    assert toy.run(halves, *options, "trainer.steps=3", resume=True) == 0
    assert timeless(halves) == timeless(whole)


def test_resuming_what_never_began_begins(toy: Toy, tmp_path):
    assert toy.run(tmp_path / "run", "trainer.steps=1", resume=True) == 0
    assert len(metrics(tmp_path / "run")) == 1


def test_a_run_of_another_recipe_is_not_continued(toy: Toy, tmp_path, capsys):
    assert toy.run(tmp_path / "run", "trainer.steps=1") == 0
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert toy.run(tmp_path / "run", "constraint.beta=0.5", resume=True) == 2
    assert "constraint.beta: 0.01 -> 0.5" in capsys.readouterr().err
    assert toy.run(tmp_path / "run", "trainer.steps=1") == 2
    assert "--resume" in capsys.readouterr().err
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before


@needs_deepspeed
@pytest.mark.slow
def test_a_checkpoint_of_another_zero_stage_is_refused_in_a_sentence(toy: Toy, tmp_path):
    """As of a run in bfloat16 from before its stage was 1: its config.yaml names none, and reads as 1 today."""
    output = tmp_path / "run"
    options = ("trainer.steps=1", "constraint.name=none", "engines.trainer=deepspeed", "checkpoint.every=1")
    done = launch(None, *toy.arguments(output, *options))
    assert done.returncode == 0, done.stderr
    config = output / "config.yaml"
    text = config.read_text()
    assert "deepspeed: {}" in text
    config.write_text(text.replace("deepspeed: {}", "deepspeed: {zero_optimization: {stage: 1}}"))
    done = launch(None, "--output-dir", str(output), "--resume")
    assert done.returncode == 2
    assert "was written with another ZeRO stage than 1: go on with the one that it has" in done.stderr
    assert "Traceback" not in done.stderr
