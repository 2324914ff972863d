"""Evaluation during training, on held-out rows of the run's own task."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from refinerl import train
from refinerl.benchmarks.estimate import wilson
from refinerl.engines.models import load_model
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.engines.transformers import TransformersGenerator
from refinerl.records import Sampling
from tiny import write_openrlhf_reward_model
from toy import Toy, metrics, timeless, write_problems

WORDS = ("cab", "dead", "face")


@pytest.fixture
def held_out(tmp_path: Path) -> Path:
    path = tmp_path / "held_out.jsonl"
    rows = [{"prompt": [{"role": "user", "content": word}], "wanted": "a"} for word in WORDS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def options(path: Path) -> list[str]:
    return ["evaluate.every=2", f"evaluate.path={path}"]


def test_dialogues_are_asked_and_judged_as_in_training(toy: Toy, tmp_path: Path, held_out: Path):
    """The metrics of the last step are those of greedy answers of the final model, through its chat template."""
    steps = ["trainer.steps=2", "checkpoint.every=1", "checkpoint.keep=1", "task.system=ab"]
    assert toy.run(tmp_path / "run", *steps, *options(held_out), reward="toy_rewards:by_column") == 0
    row = metrics(tmp_path / "run")[-1]
    assert "evaluate/pass@1" not in row  # the function has no highest value
    final = tmp_path / "run" / "final"
    tokenizer = ChatTokenizer.load(final)
    system = {"role": "system", "content": "ab"}
    prompts = [tokenizer.encode_chat([system, {"role": "user", "content": word}]) for word in WORDS]
    answers = TransformersGenerator(load_model(str(final)), tokenizer).generate(prompts, Sampling(6, 0.0))
    expected = [answer.text.count("a") / 6 for (answer,) in answers]
    assert row["evaluate/reward"] == pytest.approx(sum(expected) / len(WORDS))
    assert row["time/evaluate"] > 0
    # The reward chooses the best step where there is no pass@1.
    state = json.loads((tmp_path / "run" / "checkpoint-2" / "trainer_state.json").read_text())
    assert (state["best_step"], state["best_score"]) == (2, row["evaluate/reward"])

    # Nothing else of the run is changed by it.
    assert toy.run(tmp_path / "without", *steps, reward="toy_rewards:by_column") == 0
    assert training(tmp_path / "run") == training(tmp_path / "without")


def test_an_evaluation_without_a_reward_is_no_best_step(toy: Toy, tmp_path: Path, held_out: Path, monkeypatch):
    """Its mean is NaN, which no later score would exceed."""
    (tmp_path / "late.py").write_text(
        "def reward(completions, wanted, trainer_state, **_):\n"
        "    early = trainer_state.global_step < 2 and len(completions) == 3\n"
        "    return [None if early else 0.5 + i / 9 for i, _ in enumerate(completions)]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ["trainer.steps=3", "evaluate.every=1", f"evaluate.path={held_out}"]
    assert len(WORDS) == 3
    assert toy.run(tmp_path / "run", *words, reward="late:reward") == 0
    first, *_, last = metrics(tmp_path / "run")
    assert first["evaluate/reward"] is None
    assert last["evaluate/reward"] is not None
    state = json.loads((tmp_path / "run" / "checkpoint-3" / "trainer_state.json").read_text())
    assert (state["best_step"], state["best_score"]) == (3, last["evaluate/reward"])


def test_evaluations_without_a_score_are_not_called_missing(
    toy: Toy, tmp_path: Path, held_out: Path, monkeypatch, capsys
):
    (tmp_path / "never.py").write_text(
        "def reward(completions, wanted, **_):\n"
        "    held_out = len(completions) == 3\n"
        "    return [None if held_out else i / 9 for i, _ in enumerate(completions)]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ["trainer.steps=1", "evaluate.every=1", f"evaluate.path={held_out}", "checkpoint.final=best"]
    assert toy.run(tmp_path / "run", *words, reward="never:reward") == 0
    assert "final/ is the model after step 1, the last: no evaluation had a score" in capsys.readouterr().out


def test_a_model_that_training_made_worse_is_not_called_the_best(
    toy: Toy, tmp_path: Path, held_out: Path, monkeypatch, capsys
):
    """The evaluation before training was left out of the comparison, and nothing said so."""
    (tmp_path / "falls.py").write_text(
        "def reward(completions, trainer_state, **_):\n"
        "    held_out = len(completions) == 3\n"
        "    return [1 - trainer_state.global_step / 4 if held_out else i / 9 for i, _ in enumerate(completions)]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ["evaluate.every=2", f"evaluate.path={held_out}", "checkpoint.final=best"]
    assert toy.run(tmp_path / "run", *words, reward="falls:reward") == 0
    assert (
        "warning: final/ is the model after step 2, which has the best evaluation of all steps, 0.75; before training "
        "it was 1, so on these rows the model that the run began with is better"
    ) in capsys.readouterr().out


def training(folder: Path) -> list[dict[str, object]]:
    """Return the rows of the steps without the evaluation."""
    return [{k: v for k, v in row.items() if not k.startswith("evaluate/")} for row in timeless(folder) if row["step"]]


def test_another_split_of_the_data_is_held_out(toy: Toy, tmp_path: Path, capsys):
    """In a data set with splits; the split that the run is trained on is refused."""
    pytest.importorskip("datasets")
    for split, pattern in (("train", "a.*"), ("test", ".*")):
        row = {"prompt": "ab", "pattern": pattern}
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
    data = [f"task.path={tmp_path}", "task.reward=rule:matches", "algorithm.dynamic_sampling=false"]
    words = [*data, *options(tmp_path), "evaluate.split=test"]
    assert toy.run(tmp_path / "run", *words, "trainer.steps=2") == 0
    assert metrics(tmp_path / "run")[-1]["evaluate/pass@1"] == 1
    assert toy.run(tmp_path / "same", *data, *options(tmp_path)) == 2
    assert f"evaluate.path = {tmp_path} is the split train that the run is trained on" in capsys.readouterr().err
    assert toy.run(tmp_path / "file", *data, *options(tmp_path / "test.jsonl"), "evaluate.subset=main") == 2
    assert "evaluate.subset is for data sets" in capsys.readouterr().err


def test_a_rule_has_a_highest_reward(toy: Toy, tmp_path: Path):
    path = tmp_path / "held_out.jsonl"
    path.write_text(json.dumps({"prompt": "cab", "pattern": ".*"}) + "\n" + '{"prompt": "b", "pattern": "z"}\n')
    (tmp_path / "train.jsonl").write_text('{"prompt": "b", "pattern": "a.*"}\n')
    data = [f"task.path={tmp_path / 'train.jsonl'}", "algorithm.dynamic_sampling=false", "trainer.steps=2"]
    assert toy.run(tmp_path / "run", *data, *options(path), reward="rule:matches") == 0
    row = metrics(tmp_path / "run")[-1]
    assert row["evaluate/pass@1"] == row["evaluate/reward"] == 0.5
    assert (row["evaluate/pass@1_low"], row["evaluate/pass@1_high"]) == pytest.approx(wilson(0.5, 2))


def test_a_reward_model_judges_held_out_answers_too(toy: Toy, tmp_path: Path, held_out: Path, capsys):
    """Sampled, three answers a row; the interval stands in the metrics, in the step's line and in the summary."""
    scorer = write_openrlhf_reward_model(tmp_path / "scorer")
    words = [f"reward_model.model={scorer}", "evaluate.n=3", "evaluate.temperature=1", *options(held_out)]
    assert toy.run(tmp_path / "run", *words, "constraint.name=none", reward="model") == 0
    rows = [row for row in metrics(tmp_path / "run") if "evaluate/reward" in row]
    assert [row["step"] for row in rows] == [0, 2]
    assert all(row["evaluate/reward_low"] < row["evaluate/reward"] < row["evaluate/reward_high"] for row in rows)
    assert not any("evaluate/pass@1" in row for row in rows)
    said = capsys.readouterr().out
    half = (rows[-1]["evaluate/reward_high"] - rows[-1]["evaluate/reward_low"]) / 2
    assert f"held-out reward {rows[-1]['evaluate/reward']:+.3f} ± {half:.3f}" in said
    last = "{evaluate/reward:.3g} ({evaluate/reward_low:.3g} to {evaluate/reward_high:.3g}) after step 2"
    assert f"before training → {last.format(**rows[-1])}" in " ".join(said.split())


def test_several_rewards_are_measured_one_by_one(toy: Toy, tmp_path: Path):
    """With their weights, in training and on held-out rows."""
    path = tmp_path / "held_out.jsonl"
    path.write_text("".join(json.dumps({"prompt": word, "wanted": "a", "pattern": ".*"}) + "\n" for word in WORDS))
    (tmp_path / "train.jsonl").write_text('{"prompt": "b", "wanted": "b", "pattern": "z"}\n')
    words = [f"task.path={tmp_path / 'train.jsonl'}", "task.reward_weights=[2,0.5]", *options(path)]
    assert toy.run(tmp_path / "run", *words, reward="[rule:matches,toy_rewards:by_column]") == 0
    row = metrics(tmp_path / "run")[-1]
    assert row["reward/mean"] == pytest.approx(2 * row["reward/matches"] + 0.5 * row["reward/by_column"])
    parts = row["evaluate/reward/matches"], row["evaluate/reward/by_column"]
    assert parts[0] == 1
    assert row["evaluate/reward"] == pytest.approx(2 * parts[0] + 0.5 * parts[1])


def test_programs_run_on_the_tests_of_the_held_out_problems(toy: Toy, tmp_path: Path):
    """Sampled, since the toy model seldom writes the blank that is a program; a problem without any answer fails."""
    problems = write_problems(tmp_path)
    path = tmp_path / "held_out.jsonl"
    never = {"problem_id": "never", "question": "h", "input_output": {"inputs": [""], "outputs": ["x"]}}
    path.write_text(problems.read_text().splitlines()[0] + "\n" + json.dumps(never) + "\n")
    run = [f"model={toy.folder / 'model'}", f"task.path={problems}", "trainer.steps=2", "trainer.batch=8"]
    run += ["generation.max_tokens=2", "refiner.temperature=1", "evaluate.n=8", "evaluate.temperature=2"]
    run += ["evaluate.max_tokens=1", "algorithm.dynamic_sampling=false"]
    assert train.main(["smollm", *run, *options(path), "--output-dir", str(tmp_path / "run")]) == 0
    row = metrics(tmp_path / "run")[-1]
    assert 0 < row["evaluate/pass@1"] <= 0.5
    assert -1 <= row["evaluate/reward"] < 1
    assert row["evaluate/pass@1"] * 16 % 1 == 0
    assert "max_tokens: 1\n" in (tmp_path / "run" / "config.yaml").read_text()


LETTERS = """
import json
import re
import shutil
from pathlib import Path
from refinerl.tasks.base import Task

class Letters(Task):
    max_reward = 1.0

    class Options(Task.Options):
        path: str

    def examples(self):
        return [(line, line) for line in Path(self.options.path).read_text().split()]

    def reward(self, known, answer):
        return answer.count(known[0]) / 6
"""


def test_a_task_of_ones_own_reads_another_file(toy: Toy, tmp_path: Path, monkeypatch, capsys):
    (tmp_path / "letters.py").write_text(LETTERS)
    (tmp_path / "pathless.py").write_text(
        LETTERS.replace("path: str", "file: str").replace("options.path", "options.file")
    )
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "train.txt").write_text("abc bcd cde dea")
    (tmp_path / "test.txt").write_text("ha")
    run = ["task.name=letters:Letters", f"task.options.path={tmp_path / 'train.txt'}", "trainer.steps=2"]
    run += [f"model={toy.folder / 'model'}", "generation.max_tokens=6", "trainer.batch=8", "refiner.temperature=1"]
    assert train.main(["smollm", *run, *options(tmp_path / "test.txt"), "--output-dir", str(tmp_path / "run")]) == 0
    assert 0 <= metrics(tmp_path / "run")[-1]["evaluate/reward"] <= 1
    words = ["smollm", "task.name=pathless:Letters", "task.options.file=x", *options(tmp_path / "test.txt")]
    assert train.main([*words, "--output-dir", str(tmp_path / "other")]) == 2
    assert "have no `path`, which evaluate.path would replace" in capsys.readouterr().err


PROBLEM = {"problem_id": 1, "question": "Print 1.", "input_output": {"inputs": [""], "outputs": ["1"]}}


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        (None, [], "there is no file or folder"),
        ("", [], "no problem left"),
        ('{"prompt": "Hi"}\n', [], "read as task.name=code: .*held_out.jsonl:1: the field problem_id is missing"),
        (json.dumps(PROBLEM) + "\n", ["task.name=dialogue", "task.path=x", "task.reward=rule:answer"],
         "read as task.name=dialogue: .*held_out.jsonl:1: the field prompt is missing"),
        ("", ["task.name=dialogue", "task.path=x", "task.reward=rule:answer"], "is empty: it has no lines"),
        ("", ["evaluate.benchmark=apps"], "evaluate.path is read with evaluate.benchmark=task only"),
        ("", ["evaluate.path=null", "evaluate.benchmark=task"], "evaluate.path must be given for evaluate.benchmark"),
        ('{"prompt": 7}\n', ["task.name=dialogue", "task.path=x", "task.reward=rule:answer"],
         "held_out.jsonl:1: the field prompt must be a text or a list of messages, got a number"),
        ("", ["evaluate.data=x"], "evaluate.data is for benchmarks"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_before_the_model_is_loaded(tmp_path: Path, capsys, text, words, message):
    path = tmp_path / "held_out.jsonl"
    if text is not None:
        path.write_text(text)
    arguments = ["smollm", "model=/nowhere", *options(path), *words]
    assert train.main([*arguments, "--output-dir", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: evaluate.")
    assert said.count("\n") == 1
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert re.search(message, said), said


def test_a_data_set_of_held_out_rows_has_splits_and_subsets_of_its_own(toy: Toy, tmp_path: Path, capsys):
    """The message names the knobs that choose from it; and what save_to_disk wrote has no subset to choose."""
    datasets = pytest.importorskip("datasets")
    for name in ("main", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.jsonl").write_text(json.dumps({"prompt": "cab", "wanted": "a"}) + "\n")
        config = f"---\nconfigs:\n- config_name: {name}\n  data_files: rows.jsonl\n---\n"
        (tmp_path / name / "README.md").write_text(config)
    words = [f"task.path={tmp_path / 'main'}", "task.subset=main"]
    assert toy.run(tmp_path / "run", *words, *options(tmp_path / "other"), reward="toy_rewards:by_column") == 2
    assert capsys.readouterr().err.rstrip().endswith("has no subset main; its subsets are other: evaluate.subset=other")
    datasets.Dataset.from_list([{"prompt": "cab", "wanted": "a"}]).save_to_disk(tmp_path / "saved")
    words += ["trainer.steps=1", "trainer.batch=4", *options(tmp_path / "saved")]
    assert toy.run(tmp_path / "run", *words, reward="toy_rewards:by_column") == 0


@pytest.mark.parametrize("other", ["held_out.jsonl", "./held_out.jsonl", "link.jsonl"])
def test_the_file_of_the_training_rows_is_no_held_out_file(tmp_path: Path, capsys, monkeypatch, other):
    monkeypatch.chdir(tmp_path)
    Path("held_out.jsonl").write_text(json.dumps(PROBLEM) + "\n")
    Path("link.jsonl").symlink_to("held_out.jsonl")
    assert train.main(["smollm", "task.path=held_out.jsonl", *options(Path(other)), "--dry-run"]) == 2
    assert "evaluate.path must be another file than task.path" in capsys.readouterr().err
    words = ["task.embedded=all", "evaluate.path=shipped:miniature", "task.path=shipped:miniature", "--dry-run"]
    assert train.main(["smollm", *words]) == 2
    assert "evaluate.path must be another file than task.path" in capsys.readouterr().err
    assert train.main(["smollm", "task.path=shipped:miniature-held-out", *options(Path(other)), "--dry-run"]) == 0


@pytest.mark.parametrize(
    ("embedded", "path", "choice"),
    [
        ("all", "shipped:problems-held-out", "task.path=shipped:problems-train"),
        ("trivial", "shipped:problems-held-out", "task.path=shipped:problems-train"),
        ("miniature", "shipped:miniature", "evaluate.path=shipped:miniature-held-out"),
    ],
)
def test_embedded_problems_that_are_trained_on_are_no_held_out_rows(capsys, embedded: str, path: str, choice: str):
    """The 18 held-out problems are among the embedded ones."""
    words = [f"task.embedded={embedded}", "evaluate.every=1", f"evaluate.path={path}"]
    assert train.main(["smollm", *words, "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert f"evaluate.path = {path} has problems that the run is trained on, the embedded ones" in said
    assert said.rstrip().endswith(f"choose {choice}")
    assert train.main(["smollm", *words, choice, "--dry-run"]) == 0


def test_held_out_rows_that_the_reward_cannot_score(toy: Toy, tmp_path: Path, capsys):
    path = tmp_path / "held_out.jsonl"
    path.write_text('{"prompt": "cab"}\n')
    assert toy.run(tmp_path / "run", *options(path), reward="toy_rewards:by_column") == 2
    assert "evaluate.path = " in capsys.readouterr().err


def test_a_held_out_row_that_cannot_be_scored_is_named(toy: Toy, tmp_path: Path, capsys):
    path = tmp_path / "held_out.jsonl"
    path.write_text('{"prompt": "cab", "pattern": "("}\n')
    (tmp_path / "train.jsonl").write_text('{"prompt": "b", "pattern": "a.*"}\n')
    words = [f"task.path={tmp_path / 'train.jsonl'}", *options(path)]
    assert toy.run(tmp_path / "run", *words, reward="rule:matches") == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: evaluate.path = {path}, read as task.name=dialogue: the column pattern holds '('")
    assert said.count("\n") == 1
    path.write_text('{"prompt": "cab", "answer": "1"}\n{"prompt": "cab", "answer": ""}\n')
    (tmp_path / "train.jsonl").write_text('{"prompt": "b", "answer": "1"}\n')
    assert toy.run(tmp_path / "run", *words, reward="rule:math") == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: evaluate.path = {path}, read as task.name=dialogue: prompt 2: the column answer")
    assert said.count("\n") == 1


def test_an_answer_may_be_as_long_as_in_training(toy: Toy, tmp_path: Path, held_out: Path, capsys):
    assert train.main([*toy.arguments(tmp_path / "run", *options(held_out)), "--dry-run"]) == 0
    assert "  limit: null\n  n: 1\n  temperature: 0.0\n  max_tokens: 6\n" in capsys.readouterr().out
    assert toy.run(tmp_path / "run", *options(held_out), "evaluate.max_tokens=100000") == 2
    assert "evaluate.max_tokens = 100000 leaves no room for a prompt" in capsys.readouterr().err


def test_the_model_is_evaluated_before_the_first_step_and_not_again(toy: Toy, tmp_path: Path, held_out: Path):
    run = ["checkpoint.every=1", *options(held_out)]
    assert toy.run(tmp_path / "run", *run, "trainer.steps=2") == 0
    first, *_ = metrics(tmp_path / "run")
    names = {"evaluate/reward", "evaluate/reward_low", "evaluate/reward_high"}
    assert first.keys() == {"schema", "step", *names, "time/evaluate"}
    tokenizer = ChatTokenizer.load(toy.folder / "model")
    prompts = [tokenizer.encode_chat([{"role": "user", "content": word}]) for word in WORDS]
    generator = TransformersGenerator(load_model(str(toy.folder / "model")), tokenizer)
    expected = [answer.text.count("a") / 6 for (answer,) in generator.generate(prompts, Sampling(6, 0.0))]
    assert first["evaluate/reward"] == pytest.approx(sum(expected) / len(WORDS))
    assert toy.run(tmp_path / "run", *run, "trainer.steps=3", resume=True) == 0
    assert [row["step"] for row in metrics(tmp_path / "run")] == [0, 1, 2, 3]
    assert metrics(tmp_path / "run")[0] == first

    # A run that was killed before its first checkpoint begins anew, with one row of step 0.
    for folder in (tmp_path / "run").glob("checkpoint-*"):
        shutil.rmtree(folder)
    assert toy.run(tmp_path / "run", *run, "trainer.steps=1", resume=True) == 0
    assert [row["step"] for row in metrics(tmp_path / "run")] == [0, 1]


def test_a_run_whose_first_step_fails_may_begin_again(toy: Toy, tmp_path: Path, held_out: Path, monkeypatch):
    """Although it has been evaluated."""
    (tmp_path / "fails_in_training.py").write_text(
        "def reward(prompts, completions, wanted, **_):\n    return [1.0 if w == 'a' else 1 / 0 for w in wanted]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "train.jsonl").write_text('{"prompt": "b", "wanted": "b"}\n')
    words = [f"task.path={tmp_path / 'train.jsonl'}", *options(held_out)]
    assert toy.run(tmp_path / "run", *words, reward="fails_in_training:reward") != 0
    assert not list((tmp_path / "run").iterdir())
    assert toy.run(tmp_path / "run", "trainer.steps=1", *options(held_out)) == 0


def test_the_sandbox_is_described_once(toy: Toy, tmp_path: Path, capsys):
    """Although a benchmark has a sandbox of its own, with other limits."""
    problems = write_problems(tmp_path)
    words = [f"model={toy.folder / 'model'}", f"task.path={problems}", "trainer.steps=1", "trainer.batch=8"]
    words += ["generation.max_tokens=2", "algorithm.dynamic_sampling=false", "evaluate.every=1"]
    words += ["evaluate.benchmark=apps", f"evaluate.data={problems}", "evaluate.limit=1", "evaluate.max_tokens=1"]
    assert train.main(["smollm", *words, "--output-dir", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.count("protections are on") == 1
