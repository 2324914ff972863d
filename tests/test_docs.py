"""Commands, code, knobs and metrics of README and docs/: they run, are planned by `--dry-run`, or are excused by name.

docs/gpu.md has a test of its own, `test_gpu_page.py`, and docs/extending.md one for its classes.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import runpy
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pages import PAGES, ROOT, Command, blocks, started
from refinerl import train
from refinerl.config import Config
from refinerl.contracts.plugins import names, resolve
from refinerl.run import arguments, mistakes, recipe
from refinerl.study.file import is_path, load
from tiny import write_tiny

TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
WITH_COMMANDS = [page for page in PAGES if page.name != "gpu.md" and any(b.language == "sh" for b in blocks(page))]
WRITTEN = ("own-data", "choosing", "troubleshooting", "names", "metrics", "dialogue", "refiner", "gpu")
"""Pages whose knobs and metrics are compared with those that exist."""
EXCUSED = {
    "refinerl.evaluate": "downloads a benchmark and generates; tests/test_evaluate.py runs it",
    "refinerl.audition": "generates with the recipe's model; tests/audition runs it",
    "refinerl.study.demo": "prints the end of a finished demo; tests/study/demo runs it",
    "refinerl.study.skill": "reads a finished study; tests/study/test_skill.py has one",
    "refinerl.study.miniature": "trains the miniature's base for minutes; tests/study/miniature makes a small one",
}
"""Commands that are not run; their command lines are parsed as far as they can be."""
FILES = {
    "mine.yaml": "base: demo\ntrainer: {steps: 3}\n",
    "my_rewards.py": "def brevity(completion_ids, **_):\n    return [-len(ids) / 100 for ids in completion_ids]\n",
    "mine.txt": "$question\n$response\n",
    "samples.jsonl": "",
    "prompts.jsonl": '{"prompt": "Say hello."}\n{"prompt": "Say goodbye."}\n',
    "held_out.jsonl": '{"prompt": "Say hello.", "answer": "Hello", "problem_id": 2, "question": "Print 2.", '
    '"input_output": {"inputs": [""], "outputs": ["2\\n"]}}\n',
    "problems.jsonl": '{"problem_id": 1, "question": "Print 1.", "solutions": ["print(1)"], '
    '"input_output": {"inputs": [""], "outputs": ["1\\n"]}}\n',
}
"""Files that a reader is expected to have, where a page does not show them."""
STUDY = """
title: Two arms
recipe: demo
seeds: [0, 1, 2]
arms: {none: {constraint.name: none}, dynamic: {constraint.name: dynamic}}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step, which is evaluated, for the commands that read one."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    small = ["trainer.steps=1", "trainer.batch=16", "trainer.minibatch=16", "evaluate.every=1", "evaluate.limit=4"]
    assert train.main(["demo", *small, "--output-dir", str(folder)]) == 0
    return folder


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with the files that a reader is expected to have; the modules in it are forgotten afterwards."""
    folder = tmp_path / "desk"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (ROOT / "examples" / "extending").glob("*.py"):
        shutil.copy(path, folder)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)  # as `python -m` does
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "") or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: page.name)
def test_commands(page: Path, desk: Path, finished: Path, monkeypatch, capsys):
    for block in blocks(page):
        if block.title:
            (desk / block.title).write_text(block.text)
    if page.name == "studies.md":
        (desk / "mine.yaml").write_text(STUDY)
    stand_ins = desk.parent / "bin"
    stand_ins.mkdir()
    for block in blocks(page):
        for command in started(block.text, desk, stand_ins) if block.language == "sh" else ():
            monkeypatch.chdir(command.folder)
            follow(command, finished)
            capsys.readouterr()


def follow(command: Command, finished: Path) -> None:
    """Run a command as far as a test can; an unknown one fails."""
    program, *rest = command.words
    if command.module in ("refinerl.report", "refinerl.evaluate"):  # of a run that the page started, or another page
        for folder in (Path(word) for word in command.arguments if re.fullmatch(r"runs/[^/]+", word)):
            if not (folder / "metrics.jsonl").exists():
                shutil.copytree(finished, folder, dirs_exist_ok=True)
    if program == "make":
        assert {word for word in rest if "=" not in word} <= TARGETS
    elif command.module == "refinerl.train":
        plan(command)
    elif command.module == "refinerl.study":
        study(command.arguments)
    elif command.module == "refinerl.report":
        assert importlib.import_module("refinerl.report.command").main(command.arguments) == 0, command
    elif command.module == "refinerl.sandbox":
        assert importlib.import_module("refinerl.sandbox.command").main(command.arguments) in (0, 1), command
    elif command.module == "refinerl.doctor":
        assert importlib.import_module("refinerl.run.doctor").main(command.arguments) in (0, 1), command
    elif command.module == "refinerl.evaluate":
        importlib.import_module("refinerl.benchmarks.arguments").parse(command.arguments)
    elif command.module == "refinerl.audition":
        words = importlib.import_module("refinerl.audition.command")._parser().parse_intermixed_args(command.arguments)
        first = Path(words.words[0])
        if first.name == "config.yaml" and not first.exists():  # that of a run which the page started
            write_config(first.parent, recipe.load("demo"))
        if words.words[0] != "RECIPE":
            recipe.load(*arguments.split(words.words))
    elif program == "python" and len(rest) == 1 and rest[0].endswith(".py"):
        runpy.run_path(rest[0], run_name="__main__")
    else:
        foreign = program in ("pip", "docker", "vllm", "cargo") or rest[:2] == ["-m", "pytest"] or rest[:1] == ["-c"]
        assert foreign or command.module in EXCUSED, f"neither run nor excused: {command}"


def study(words: list[str]) -> None:
    """Plan a study; of a shipped one, whose plan takes seconds, check the names of its arms."""
    command: Any = importlib.import_module("refinerl.study.command")
    parsed = command._parser().parse_intermixed_args(words)
    if not is_path(parsed.words[0]):
        assert set((parsed.arms or "").split(",")) - {""} <= set(load(parsed.words[0]).arms)
    elif parsed.check is None and parsed.write_band is None:  # those are for a finished study
        assert command.main([*words, *([] if parsed.dry_run else ["--dry-run"])]) == 0, words


def plan(command: Command) -> None:
    """Plan a run; what it would resume later is left in its folder."""
    words = command.arguments
    if "…" in words:  # a command with a gap
        return
    if {"--help", "--list"} & set(words):
        if "--list" in words:
            assert train.main(words) == 0, command
        return
    parsed = arguments.parse(words)
    if parsed.words[:1] == ["RECIPE"]:
        return
    # A checkpoint of a run that the page started is there while it is planned with.
    named = [word.partition("=")[2] for word in parsed.words if re.fullmatch(r"model=runs/[^/]+/checkpoint-\d+", word)]
    models = [write_tiny(place) for place in named]
    if parsed.resume and not (parsed.output_dir / "config.yaml").exists():
        write_config(parsed.output_dir, recipe.load("smollm"))
    assert train.main([*words, *([] if parsed.dry_run else ["--dry-run"])]) == 0, command
    for model in models:
        shutil.rmtree(model)
    if parsed.output_dir is not None and not parsed.resume:
        write_config(parsed.output_dir, recipe.load(*arguments.split(parsed.words)))


def write_config(folder: Path, config: Config) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(recipe.to_yaml(config))


@pytest.mark.slow
def test_the_code_of_the_quick_start(desk: Path, capsys):
    (code,) = [block.text for block in blocks(ROOT / "docs" / "quickstart.md") if block.language == "python"]
    exec(compile(code, "quickstart.md", "exec"), {})
    assert (desk / "runs" / "python" / "final").is_dir()
    assert "'step': 2" in capsys.readouterr().out


@pytest.mark.slow
def test_the_mathematics_of_own_data_trains(desk: Path, tiny_folder: Path):
    """With a tiny model and few tokens, the rewards of the page at once, and one that random answers differ in."""
    for block in blocks(ROOT / "docs" / "own-data.md"):
        if block.title:
            (desk / block.title).write_text(block.text)
    (desk / "extra.py").write_text("def differ(completion_ids, **_): return [min(i) / 1000 for i in completion_ids]")
    runpy.run_path("make_sums.py")
    small = ["trainer.steps=1", "trainer.batch=8", "algorithm.samples_per_prompt=4", "generation.max_tokens=8"]
    rewards = ["task.reward=[my_rewards:correct,my_rewards:brevity,rule:answer,extra:differ]"]
    rewards += ["task.reward_weights=[1,0.1,1,1]", "evaluate.every=1", "evaluate.limit=4"]
    words = ["sums.yaml", f"model={tiny_folder}", *small, *rewards, "--output-dir", "runs/sums"]
    assert train.main(words) == 0
    first, row = [json.loads(line) for line in (desk / "runs" / "sums" / "metrics.jsonl").read_text().splitlines()]
    assert first["evaluate/reward"] < 0.5
    parts = [row[f"reward/{name}"] for name in ("correct", "brevity", "answer", "differ")]
    assert row["reward/mean"] == pytest.approx(parts[0] + 0.1 * parts[1] + parts[2] + parts[3])
    assert row["reward/brevity"] < 0 < row["reward/differ"]
    assert row["update/steps"] == 1


def test_the_rewards_of_own_data_judge_what_they_say(desk: Path):
    texts = {block.title: block.text for block in blocks(ROOT / "docs" / "own-data.md") if block.title}
    exec(texts["make_sums.py"], {})
    rows = [json.loads(line) for line in (desk / "sums.jsonl").read_text().splitlines()]
    assert (len(rows), len((desk / "held_out.jsonl").read_text().splitlines())) == (200, 50)
    names: dict[str, Any] = {}
    exec(texts["my_rewards.py"], names)
    said = [[{"role": "assistant", "content": f"The answer is {answer}."}] for answer in (rows[0]["answer"], "x")]
    assert names["correct"](said, answer=[rows[0]["answer"]] * 2) == [1.0, 0.0]
    assert names["brevity"]([[1] * 24, [1] * 96]) == [-0.5, -1.0]


def test_commands_stand_in_blocks_of_sh():
    """Elsewhere the tests would not see them."""
    hidden = [
        f"{page.name}: {line}"
        for page in PAGES
        for block in blocks(page)
        for line in block.text.splitlines()
        if block.language not in ("sh", "python") and re.match(r"(python -m )?refinerl(\.\w+)? \w|make \w", line)
    ]
    assert hidden == []
    indented = [
        f"{page.name}: {line}"
        for page in PAGES
        for line in re.findall(r"^ {4}(?:python -m|refinerl).*", page.read_text(), re.M)
    ]
    assert [line for line in indented if "evaluate runs/$arm" not in line] == []


def knobs() -> set[str]:
    """Every key of a recipe, of all built-in parts."""
    found = set(mistakes.knobs())
    for kind in ("algorithm", "constraint", "task"):
        for name in names(kind):
            found |= {f"{kind}.{key}" for key in resolve(kind, name).Options.model_fields}
    return found


@pytest.mark.parametrize("name", WRITTEN)
def test_knobs_exist(name: str):
    page = ROOT / "docs" / f"{name}.md"
    if not page.exists():
        pytest.skip(f"there is no {page.name}")
    known = knobs()
    sections = {key.split(".")[0] for key in known if "." in key} - {"deepspeed"}
    text = re.sub(
        r"^\|.*\|$", lambda row: row[0].rsplit("|", 2)[1] if name == "names" else row[0], page.read_text(), flags=re.M
    )
    named = set(re.findall(rf"`(?:[\w-]+ )*((?:{'|'.join(sections)})\.[a-z_]+)(?=[=`\s])", text))
    assert named
    assert {key for key in named if key not in known and not key.endswith((".jsonl", ".py", ".options"))} == set()


@pytest.mark.parametrize("name", ["quickstart", "own-data", "choosing", "troubleshooting", "names"])
def test_metrics_exist(name: str):
    """They are in the table of docs/metrics.md, which a test of its own compares with those of runs."""
    table = ROOT / "docs" / "metrics.md"
    if not table.exists():
        pytest.skip("there is no metrics.md")
    known = table.read_text()
    pattern = r"`((?:reward|policy|constraint|refiner|completion|rollout|time|evaluate|tokens)/[\w@/]+)`"
    page = (ROOT / "docs" / f"{name}.md").read_text()
    if name == "names":
        page = "\n".join(line.rsplit("|", 2)[1] for line in page.splitlines() if line.startswith("|"))
    named = set(re.findall(pattern, page)) - {"reward/NAME", "reward/correct", "reward/brevity"}
    assert {metric for metric in named if f"`{metric}`" not in known} == set()


def test_names_of_trl():
    """The column of TRL in docs/names.md, where TRL is installed."""
    trl, transformers = (importlib.util.find_spec(name) for name in ("trl", "transformers"))
    if trl is None:
        pytest.skip("trl is not installed")
    assert trl.submodule_search_locations is not None
    assert transformers is not None
    assert transformers.submodule_search_locations is not None
    sources = (
        Path(trl.submodule_search_locations[0], "trainer", "grpo_config.py"),
        Path(trl.submodule_search_locations[0], "trainer", "grpo_trainer.py"),
        Path(trl.submodule_search_locations[0], "trainer", "base_config.py"),
        Path(transformers.submodule_search_locations[0], "training_args.py"),
    )
    defined = set(re.findall(r"^ +(\w+):", "\n".join(path.read_text() for path in sources if path.exists()), re.M))
    table = (ROOT / "docs" / "names.md").read_text().split("## Knobs")[1].split("## Metrics")[0]
    rows = [line.split("|")[2] for line in table.splitlines() if line.startswith("|")][2:]
    named = {name for cell in rows for name in re.findall(r"`(\w+)`", cell)} - {"prompt", "dapo"}
    assert len(named) > 20
    assert named <= defined | {"model", "train_dataset", "reward_funcs", "peft_config"}
