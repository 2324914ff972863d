"""The files of docs/extending.md: a constraint, an algorithm and a task from outside the package."""

from __future__ import annotations

import math
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import refinerl
from building import measured
from refinerl import train
from refinerl.contracts import WorldOfOne
from refinerl.contracts.plugins import resolve
from refinerl.loop.batch import collate
from refinerl.records import Completion, Outputs, Prompt, Reward, Rollout, RolloutGroup
from toy import TOY, Toy, metrics, rollouts, timeless

TREE = Path(__file__).parents[1]
EXAMPLES = sorted((TREE / "examples" / "extending").glob("*.py"))
NAMED = ("constraint.name=hinge:Hinge", "algorithm.name=gspo:GSPO")
WORDS = ["abc", "bcd", "cde", "fgh", "gab", "hhh", "dad", "bed"]
KNOBS = {
    "generation.max_tokens": 6,
    "algorithm.samples_per_prompt": 4,
    "trainer.batch": 8,
    "trainer.learning_rate": 5e-3,
    "trainer.steps": 2,
}
LOGPROBS = torch.tensor([[-1.0, -2.0, -0.5], [-0.7, -1.1, 0.0]], dtype=torch.float64)
OLD = torch.tensor([[-1.2, -1.9, -0.5], [-0.9, -1.0, 0.0]], dtype=torch.float64)


def share_of_a(completions, **_):
    return [text.count("a") / 6 for text in completions]


@pytest.fixture(autouse=True)
def _on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(TREE / "examples" / "extending")


def group(*rewards: float, lengths: tuple[int, ...] = (3, 2)) -> RolloutGroup:
    prompt = Prompt("0", "x", (), (5, 6), None)
    members = [
        Rollout(prompt, Completion((7,) * n, (), "", "stop"), Reward(r, "scored"), i)
        for i, (r, n) in enumerate(zip(rewards, lengths, strict=True))
    ]
    return RolloutGroup(prompt, tuple(members))


def test_the_page_has_these_very_files():
    page = (TREE / "docs" / "extending.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(EXAMPLES) == 3
    for path in EXAMPLES:
        assert path.read_text() in blocks, f"{path.name} differs from docs/extending.md"


def test_no_file_of_the_package_names_them():
    named = re.compile(r"hinge|gspo|mathtask", re.IGNORECASE)
    files = [path for path in Path(refinerl.__file__).parent.rglob("*") if path.suffix in (".py", ".yaml", ".html")]
    assert len(files) > 100
    assert [path for path in files if named.search(path.read_text(encoding="utf-8"))] == []


def test_a_constraint_and_an_algorithm_of_ones_own_in_a_run(toy: Toy, tmp_path: Path, capsys):
    folder = tmp_path / "run"
    options = (*NAMED, "constraint.options.margin=0.0001", "constraint.beta=0.5", "checkpoint.every=1")
    assert toy.run(folder, *options, "algorithm.epochs=2", "trainer.schedule=constant") == 0
    rows = metrics(folder)
    # The first step's policy is the reference itself.
    assert (rows[0]["constraint/cost"], rows[1]["constraint/cost"] > 0) == (0, True)
    # GSPO's own clip, a thousandth of PPO's.
    assert rows[1]["policy/ratio_max"] > 1
    assert rows[1]["policy/clip_fraction_low"] + rows[1]["policy/clip_fraction_high"] > 0
    assert not any(key.startswith("refiner/") for key in rows[1])
    written = (folder / "config.yaml").read_text()
    assert "name: hinge:Hinge" in written
    assert "  options:\n    margin: 0.0001\n" in written
    assert "samples_per_prompt: 4" in written  # of smollm
    assert train.main(["--output-dir", str(folder), "--resume"]) == 0
    assert toy.run(folder, *options, "constraint.options.margin=1", "algorithm.epochs=2", resume=True) == 2
    assert "constraint.options.margin: 0.0001 -> 1.0" in capsys.readouterr().err


def test_a_task_of_ones_own_in_a_run(tiny_folder: Path, tmp_path: Path):
    settings = [f"model={tiny_folder}", "generation.max_tokens=4", "trainer.batch=4", "trainer.steps=1"]
    options = ["task.name=maths:MathTask", "task.options.problems=5", "algorithm.dynamic_sampling=false"]
    assert train.main(["smollm", *settings, *options, "--output-dir", str(tmp_path / "run")]) == 0
    rows = rollouts(tmp_path / "run", 1)
    assert len(rows) == 4
    assert all(row["prompt"]["text"].startswith("What is ") for row in rows)
    assert metrics(tmp_path / "run")[0]["reward/mean"] == 0


def test_fine_tune_takes_them_by_name_and_as_objects(toy: Toy, tmp_path: Path):
    """Names and objects give the same run."""
    knobs = {"model": str(toy.folder / "model"), "prompts": WORDS, "reward": share_of_a, **KNOBS}
    hinge, gspo = resolve("constraint", "hinge:Hinge"), resolve("algorithm", "gspo:GSPO")
    own = {"constraint.options.margin": 1e-4, "constraint.beta": 0.5, "algorithm.epochs": 2}
    named = refinerl.fine_tune(
        **knobs, **own, constraint="hinge:Hinge", algorithm="gspo:GSPO", output_dir=tmp_path / "named"
    )
    given = refinerl.fine_tune(
        **knobs,
        constraint=hinge(margin=1e-4, beta=0.5),
        algorithm=gspo(epochs=2, samples_per_prompt=4),
        output_dir=tmp_path / "given",
    )
    assert named.metrics[1]["constraint/cost"] > 0
    assert timeless(given.folder) == timeless(named.folder)
    assert "name: object:hinge.Hinge" in (given.folder / "config.yaml").read_text()
    assert "margin: 0.0001" in (given.folder / "config.yaml").read_text()


def test_fine_tune_takes_the_task(tiny_folder: Path, tmp_path: Path):
    knobs = {"model": str(tiny_folder), "generation.max_tokens": 4, "trainer.batch": 8, "trainer.steps": 1}
    knobs |= {"algorithm.dynamic_sampling": False, "constraint": "none"}
    task = resolve("task", "maths:MathTask")(problems=5)
    given = refinerl.fine_tune(**knobs, reward=task, output_dir=tmp_path / "given")
    named = {"task.name": "maths:MathTask", "task.options.problems": 5}
    again = refinerl.fine_tune(**knobs, **named, output_dir=tmp_path / "named")
    assert timeless(given.folder) == timeless(again.folder)
    assert rollouts(given.folder, 1)[0]["prompt"]["text"].startswith("What is ")
    assert "    problems: 5\n" in (given.folder / "config.yaml").read_text()
    with pytest.raises(refinerl.UserError, match="must be left out where reward is a Task: give it to the MathTask"):
        refinerl.fine_tune(**knobs, reward=task, **{"task.options.problems": 6})
    with pytest.raises(refinerl.UserError, match=r"prompts must be left out for task\.name=maths:MathTask"):
        refinerl.fine_tune(**knobs, **named, prompts=WORDS)


def test_the_sums_task():
    task = resolve("task", "maths:MathTask")(problems=3, digits=1)
    task.connect(lambda messages: [1] * len(messages[-1]["content"]))
    prompt = task.prompts()[0]
    a, b = map(int, re.findall(r"\d+", prompt.text))
    answers = [f"{a} + {b} = {a + b}", f"{a + b}, no: -1", "none"]
    scored = task.score([prompt] * 3, [Completion((), (), text, "stop") for text in answers])
    assert [reward.value for reward in scored] == [1, 0, 0]
    assert len(task.prompts()) == 3


def test_the_hinge_by_hand():
    hinge = resolve("constraint", "hinge:Hinge")(margin=0.01)
    batch = SimpleNamespace(reference_logprobs=OLD)
    cost = hinge.cost(Outputs(LOGPROBS, LOGPROBS, LOGPROBS.sum()), batch)
    d = 0.2  # −1 against −1.2
    assert cost[0, 0].item() == pytest.approx(math.exp(-d) - 1 + d - 0.01, abs=1e-12)
    assert cost[0, 1].item() == 0  # exp(0.1) − 1 − 0.1 = 0.005 is within the margin
    assert (hinge.beta, hinge.apply, hinge.needs_reference) == (1e-2, "loss", True)


@pytest.mark.parametrize("clip", [3e-4, 0.5])
def test_gspo_is_its_formula(clip: float):
    """Loss and gradient of two responses by hand in float64, with weight 1/2 · 1/|y_i| for each token."""
    gspo = resolve("algorithm", "gspo:GSPO")(clip_low=clip, clip_high=clip)
    batch = measured(collate([group(1.0, 0.0)]), old_logprobs=OLD)
    batch = gspo.advantages(batch, torch.zeros(2, 3), WorldOfOne())
    logprobs = LOGPROBS.clone().requires_grad_()
    weights = gspo.weights(batch.mask, tokens=5, sequences=2)
    loss = (gspo.policy_loss(Outputs(logprobs, logprobs, logprobs.sum()), batch) * weights).sum()
    loss.backward()

    std = math.sqrt(0.5)  # of 1 and 0, with Bessel's correction
    expected, gradient = 0.0, [[0.0] * 3, [0.0] * 3]
    for i, (length, advantage) in enumerate([(3, 0.5 / (std + 1e-6)), (2, -0.5 / (std + 1e-6))]):
        d = [float(LOGPROBS[i, t] - OLD[i, t]) for t in range(length)]
        s = math.exp(sum(d) / length)
        clipped = min(max(s, 1 - clip), 1 + clip)
        expected -= min(s * advantage, clipped * advantage) / 2
        if s * advantage <= clipped * advantage:  # not clipped: ds/dlogπ_t = s/|y|
            for t in range(length):
                gradient[i][t] = -advantage * s / length / 2
    assert loss.item() == pytest.approx(expected, abs=1e-7)  # advantages are float32
    assert torch.allclose(logprobs.grad, torch.tensor(gradient, dtype=torch.float64), rtol=1e-6, atol=1e-12)
    low, high = gspo.clipped(gspo.ratio(LOGPROBS, batch), batch)
    assert (low & batch.mask).any(-1).tolist() == [False, False]
    assert (high & batch.mask).any(-1).tolist() == [clip < 0.01, False]


def test_gspos_ratio_and_mean_are_of_responses():
    gspo = resolve("algorithm", "gspo:GSPO")()
    batch = measured(collate([group(1.0, 0.0)]), old_logprobs=OLD)
    ratio = gspo.ratio(LOGPROBS, batch)
    assert ratio[0].tolist() == pytest.approx([math.exp(0.1 / 3)] * 3)
    assert gspo.weights(batch.mask, 5, 2)[1].tolist() == pytest.approx([1 / 4, 1 / 4, 0])


HELP = {
    "constraint.name=hinge:Hinge": "  constraint.options.margin=0.1   Nats of a token that are free.",
    "algorithm.name=gspo:GSPO": "  algorithm.loss_reduction=sequence",
    "task.name=maths:MathTask": "  task.options.digits=2   Most digits of each number.",
}


@pytest.mark.parametrize("word", HELP)
def test_help_shows_their_options(word: str, capsys):
    with pytest.raises(SystemExit) as ended:
        train.main([word, "--help"])
    assert ended.value.code == 0
    assert HELP[word] in capsys.readouterr().out


WRONG = [
    (["constraint.name=hinge:Hing"], "constraint.name=hinge:Hing: hinge has no 'Hing'; closest: Hinge"),
    (["constraint.name=hinges:Hinge"], "there is no module 'hinges' on the Python path; closest: hinge"),
    (
        ["constraint.name=./hinge.py:Hinge"],
        "'./hinge.py' is no module's name; give hinge:Hinge with its folder on PYTH",
    ),
    (["task.name=maths.py:MathTask"], "give maths:MathTask with its folder on PYTHONPATH"),
    (["constraint.name=plugins_wrong:ForeignOptions"], "its Options must derive from Constraint.Options"),
    (["constraint.name=plugins_wrong:PlainOptions"], "its Options must derive from Constraint.Options"),
    (
        ["constraint.name=statik"],
        "constraint.name must be dynamic, fresh, none, peer, static or module:Class of your own",
    ),
    (["constraint.name=statik"], "got 'statik'; closest: static"),
    (["algorithm.name=hinge:Hinge"], "must be a class derived from refinerl.algorithms.Algorithm"),
    (["constraint.name=plugins_wrong:NoCost"], "constraint.name=plugins_wrong:NoCost lacks the method cost"),
    (["task.name=plugins_wrong:NoReward"], "task.name=plugins_wrong:NoReward lacks the method examples and reward"),
    (
        ["constraint.name=hinge:Hinge", "constraint.options.margn=1"],
        "'constraint.options.margn'; closest: constraint.op",
    ),
    (
        ["constraint.name=hinge:Hinge", "constraint.options.margin=-1"],
        "constraint.options.margin: input should be greater",
    ),
    (["constraint.name=hinge:Hinge", "constraint.options=3"], "constraint.options must be a mapping"),
    (["constraint.options.accept=all", "constraint.accept=better"], "constraint.accept is given twice"),
    (["algorithm.name=gspo:GSPO", "algorithm.samples_per_prompt=1"], "must be at least 2 for gspo:GSPO"),
    (["task.name=maths:MathTask", "task.options.digit=1"], "'task.options.digit'; closest: task.options.digits"),
    (["task.name=dialog"], "task.name must be code, dialogue or module:Class of your own, got 'dialog'"),
    (["task.name=code", "task.options.digits=1"], "unknown key 'task.options.digits'; closest: task."),
    (["task.reward=rule:answer", "task.prompt_format=text"], "task.prompt_format: input should be 'chat' or 'apps'"),
    (["constraints=[{name: dynamic}, {name: dynamic}]"], "at most one that refines, got dynamic and dynamic"),
]


@pytest.mark.parametrize(("words", "message"), WRONG)
def test_a_mistake_is_one_sentence(words: list[str], message: str, capsys):
    assert train.main(["smollm", *words, "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


RUNS = [
    (["task.name=plugins_wrong:NoPairs"], "NoPairs.examples must give pairs of a question, .* got 3"),
    (["task.name=plugins_wrong:Messages"], "Messages.examples must give pairs of a question, which is a text, .* got"),
    (
        ["constraint.name=plugins_wrong:Scalar"],
        r"Scalar.cost must return a value for each token, \(R, T\) = .* got \(\)",
    ),
    (["constraint.name=plugins_wrong:Scalar", "constraint.apply=reward"], "Scalar.cost must return a value for each"),
    (["constraint.name=plugins_wrong:NoTensor"], "NoTensor.cost must return a value for each token, .* got a list"),
    (["algorithm.name=plugins_wrong:Unfinished"], "Unfinished.advantages must return a Batch, .* got a Measured"),
    (
        ["algorithm.name=plugins_wrong:ByResponse"],
        r"ByResponse.advantages must return .* for each token, .* got \(\d+,\)",
    ),
    (["algorithm.name=plugins_wrong:OneLoss"], "OneLoss.policy_loss must return a value for each token"),
]


@pytest.mark.parametrize(("words", "message"), RUNS)
@pytest.mark.slow
def test_what_a_part_returns_wrongly_is_one_sentence(words: list[str], message: str, toy: Toy, tmp_path: Path, capsys):
    task = ["task.name=dialogue", f"task.path={toy.folder / 'prompts.jsonl'}", "task.reward=toy_rewards:share_of_a"]
    settings = [f"model={toy.folder / 'model'}", *TOY, *([] if "task.name" in words[0] else task)]
    assert train.main(["smollm", *settings, *words, "--output-dir", str(tmp_path / "run")]) == 2
    assert re.search(f"^error: {message}", capsys.readouterr().err, re.MULTILINE)


def test_a_reward_that_is_no_number(tiny_folder: Path, tmp_path: Path, capsys):
    settings = [f"model={tiny_folder}", "generation.max_tokens=4", "trainer.batch=4", "trainer.steps=1"]
    words = ["smollm", *settings, "task.name=plugins_wrong:Infinite", "--output-dir", str(tmp_path / "run")]
    assert train.main(words) == 2
    assert "Infinite.reward returned inf for an answer to prompt 0" in capsys.readouterr().err
