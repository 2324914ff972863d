"""Whole runs with another refiner than the reference: the policy, a model with another tokenizer, a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from refinerl import train
from refinerl.config import Config
from refinerl.run import recipe
from serving import Request, Serving
from tiny import write_tiny
from toy import Toy, metrics, rollouts, write_problems

SAMPLED = ("refiner.temperature=1", "constraint.accept=all")


def refinements(folder: Path, step: int = 1) -> list[str]:
    return [row["refinement"]["completion"]["text"] for row in rollouts(folder, step) if row["refinement"]]


def test_a_model_with_another_tokenizer_refines_through_text(toy: Toy, tmp_path: Path) -> None:
    """Its alphabet is in another order and holds letters that the policy's has not."""
    other = write_tiny(tmp_path / "other", alphabet="hgfedcba zyx", scale=0.3, seed=5)
    assert toy.run(tmp_path / "run", f"refiner.model={other}", *SAMPLED) == 0
    assert metrics(tmp_path / "run")[0]["refiner/refined"] == 8
    config = recipe.load(str(tmp_path / "run" / "config.yaml"))
    assert (config.refiner.source, config.refiner.model) == ("model", str(other))
    found = [row["refinement"]["completion"] for row in rollouts(tmp_path / "run", 1) if row["refinement"]]
    letters = {letter: 4 + i for i, letter in enumerate("abcdefgh ")}
    for completion in found:
        ids = [i for i in completion["token_ids"] if i != 2]
        assert ids == [letters.get(letter, 3) for letter in completion["text"]]  # 3 is <unk>
    assert any(letter in text for text in refinements(tmp_path / "run") for letter in "abcdefgh")


def test_the_policy_refines_itself(toy: Toy, tmp_path: Path) -> None:
    assert toy.run(tmp_path / "a", "refiner.source=policy", *SAMPLED) == 0
    assert toy.run(tmp_path / "b", *SAMPLED) == 0
    assert refinements(tmp_path / "a") == refinements(tmp_path / "b")  # before the first update they are one model
    assert refinements(tmp_path / "a", 2) != refinements(tmp_path / "b", 2)


def test_several_tries_cost_tokens_and_improve_more(toy: Toy, tmp_path: Path) -> None:
    one, four = tmp_path / "one", tmp_path / "four"
    for folder, tries in ((one, 1), (four, 4)):
        assert toy.run(folder, "trainer.steps=1", "refiner.temperature=1", f"refiner.samples={tries}") == 0
    (first,), (second,) = metrics(one), metrics(four)
    assert second["refiner/tokens"] > 2 * first["refiner/tokens"]
    assert second["refiner/refined"] == first["refiner/refined"]
    gains = [
        [r["refinement"]["reward"]["value"] for r in rollouts(folder, 1) if r["refinement"]] for folder in (one, four)
    ]
    assert all(four >= one for one, four in zip(*gains, strict=True))  # the first try is among the four
    assert sum(gains[1]) > sum(gains[0])


def test_a_server_refines(toy: Toy, tmp_path: Path) -> None:
    """It answers every third request with nonsense: those responses stay as they are, and the run goes on."""
    count = 0

    def act(request: Request) -> None:
        nonlocal count
        count += 1
        if count % 3 == 0:
            request.answer(b"<html>busy</html>")
        else:
            request.reply("aaa", usage={"completion_tokens": 7, "prompt_tokens": 30})

    server = Serving(act)
    with server as url:
        assert toy.run(tmp_path / "run", f"refiner.url={url}/v1", "refiner.retries=0", "refiner.concurrency=1") == 0
    for step, row in enumerate(metrics(tmp_path / "run"), 1):
        assert row["refiner/failed"] >= 2
        assert row["refiner/refined"] + row["refiner/failed"] + row["refiner/skipped_perfect"] == 8
        assert row["refiner/tokens"] == 7 * row["refiner/refined"]
        assert row["refiner/tokens_read"] == 30 * row["refiner/refined"]
        assert set(refinements(tmp_path / "run", step)) == {"aaa"}
    assert server.seen[0].json["messages"][0]["content"].startswith("Below are a question")


def test_a_server_that_dies_ends_the_run_with_one_sentence_and_it_goes_on(
    toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alive = True

    def act(request: Request) -> None:
        if alive:
            request.reply("aaa")
        else:
            request.raw(b"")

    options = ("refiner.retries=0", "refiner.max_failures=4", "refiner.timeout=5", "checkpoint.every=1")
    with Serving(act) as url:
        words = toy.arguments(tmp_path / "run", f"refiner.url={url}", *options)
        assert train.main([*words, "trainer.steps=1"]) == 0
        alive = False
        capsys.readouterr()
        assert train.main([*words, "trainer.steps=3", "--resume"]) == 1
        error = capsys.readouterr().err
        assert error.startswith("stopped: the refiner's server http://127.0.0.1:")
        assert "failed 4 requests in a row: the last time it broke the connection off; start it anew" in error
        assert error.count("\n") == 1
    alive = True
    with Serving(act) as elsewhere:
        words = toy.arguments(tmp_path / "run", f"refiner.url={elsewhere}", *options)
        assert train.main([*words, "trainer.steps=3", "--resume"]) == 0
    assert len(metrics(tmp_path / "run")) == 3


def test_a_refiner_is_told_of_the_visible_test_and_of_no_hidden_one(toy: Toy, tmp_path: Path) -> None:
    """Every byte that the server is sent: the first test's markers are there, those of the others are not."""
    marks = [(f"Given{i}QXZ", f"Wanted{i}KVJ") for i in range(4)]
    tests = {"inputs": [given for given, _ in marks], "outputs": [wanted for _, wanted in marks]}
    rows = [{"problem_id": n, "question": "abcdefgh"[n], "input_output": tests} for n in range(8)]
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    server = Serving(lambda r: r.reply("a"))
    with server as url:
        code = [f"task.path={path}", "task.name=code", "task.reward=adaptive", "refiner.template=refine_code_feedback"]
        short = ["generation.max_tokens=2", "refiner.max_tokens=4", "algorithm.dynamic_sampling=false"]
        assert toy.run(tmp_path / "run", *code, *short, f"refiner.url={url}") == 0
    sent = b"".join(request.body for request in server.seen).decode()
    assert len(server.seen) >= 8
    assert all(mark in sent for mark in marks[0])
    assert "NameError" in sent
    assert not [mark for pair in marks[1:] for mark in pair if mark in sent]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["refiner.source=model"], "refiner.model must be given"),
        (["refiner.source=server"], "refiner.url must be given"),
        (["refiner.url=localhost:8000"], "refiner.url must be a URL such as http://localhost:8000/v1"),
        (["refiner.url=http://localhost:99999/v1"], "refiner.url must be a URL such as http://localhost:8000/v1"),
        (["refiner.url=http://a b:80/v1"], "refiner.url must be a URL such as http://localhost:8000/v1"),
        (["refiner.url=http://me:secret@a/v1"], "refiner.url must not contain a user or a password"),
        (["refiner.url=http://127.0.0.1:9/v1"], "refiner.url=http://127.0.0.1:9/v1: the server refused the connection"),
        (["refiner.chat_template=x{{}}"], "refiner.chat_template must be left out for refiner.source=reference"),
        (["refiner.api_key_env=HOME"], "refiner.api_key_env must be left out for refiner.source=reference"),
        (["refiner.max_tokens=512"], "no room for a prompt in the refiner's context of 512 tokens: choose at most"),
        (["refiner.source=policy", "refiner.model=x"], "refiner.model must be left out for refiner.source=policy"),
        (["refiner.source=policy", "refiner.url=http://a/v1"], "refiner.url must be left out"),
        (["refiner.samples=2", "refiner.temperature=0"], "refiner.temperature must be above 0"),
        (["refiner.model=/nowhere"], "/nowhere"),
        (["refiner.template=refine_code_feedback"], "uses $feedback, which this task does not have: only rules"),
        (["refiner.source=teacher"], "refiner.source"),
    ],
)
def test_mistakes(
    toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], said: str
) -> None:
    assert toy.run(tmp_path / "run", *overrides) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error


@pytest.mark.parametrize(
    ("visible", "said"),
    [
        ("2", "must be at most the number of tests of each problem, got 2 where problem 0 has 1: choose"),
        ("-1", "task.visible_tests must be a number of tests, such as 2, or a share, such as 0.5, got -1"),
        ("1.5", "task.visible_tests must be a number of tests, such as 2, or a share, such as 0.5, got 1.5"),
        ("half", "task.visible_tests must be a number of tests"),
        ("true", "task.visible_tests must be a number of tests"),
    ],
)
def test_visible_tests_that_there_are_not(toy: Toy, tmp_path: Path, capsys: Any, visible: str, said: str) -> None:
    code = [f"task.path={write_problems(tmp_path)}", "task.name=code", "task.reward=adaptive"]
    assert toy.run(tmp_path / "run", *code, f"task.visible_tests={visible}") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error


def test_the_source_follows_from_the_model_and_the_url() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "reference"),
        ({"model": "x"}, "model"),
        ({"url": "http://a/v1"}, "server"),
        ({"url": "https://a/v1", "model": "x"}, "server"),
    ]
    for given, source in cases:
        config = Config(refiner=given)
        assert config.refiner.source == source
        assert recipe.validate(config.model_dump(mode="json")) == config


def test_the_plan_names_the_refiner_and_counts_its_weights(toy: Toy, tmp_path: Path, capsys: Any) -> None:
    large = write_tiny(tmp_path / "large", hidden=64, layers=4)

    def plan(*overrides: str) -> str:
        assert train.main([*toy.arguments(tmp_path / "run", *overrides), "--dry-run"]) == 0
        return capsys.readouterr().out

    assert f"# refiner: the model {large}" in (text := plan(f"refiner.model={large}"))
    assert frozen(text) > frozen(plan())
    assert "# refiner: m at http://a/v1, whose memory is not counted" in plan(
        "refiner.url=http://a/v1", "refiner.model=m"
    )
    assert "# refiner: the policy itself" in plan("refiner.source=policy")
    assert "not counted, neither on this machine nor known here: the refiner model someone/else" in plan(
        "refiner.model=someone/else"
    )


def frozen(text: str) -> float:
    """MiB of frozen weights while the refiner writes."""
    heads = next(line for line in text.splitlines() if "phase" in line).split()
    row = next(line for line in text.splitlines() if line.startswith("#   refine")).split()
    return float(row[heads.index("frozen")])
