"""How the parts are chosen, where the choice is more than a match."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace

import pytest

from machines import H100, stand_in
from refinerl import train
from refinerl.config import Config
from refinerl.errors import UserError
from refinerl.records import Completion
from refinerl.run import tasks as rewards
from refinerl.run.wiring import make_algorithm, room_for_prompts
from threads import on_ranks

FEEDBACK = "refiner.template=refine_code_feedback"


def config(**sections) -> Config:
    return Config(generation={"max_tokens": 100}, **sections)


def test_prompts_have_the_room_that_the_engine_has():
    """A prompt that vLLM's context has no room for would end the run when it is drawn."""
    short = {"max_model_len": 300}
    of = "generation.max_tokens", 100
    assert room_for_prompts(config(), 1000, *of) == 900
    assert room_for_prompts(config(vllm=short), 1000, *of) == 900  # transformers generates
    assert room_for_prompts(config(vllm=short, engines={"generator": "vllm"}), 1000, *of) == 200
    assert room_for_prompts(config(vllm=short, engines={"generator": "vllm"}), 250, *of) == 150
    with pytest.raises(UserError, match=r"context of 100 .*choose at most generation.max_tokens=50"):
        room_for_prompts(config(vllm={"max_model_len": 100}, engines={"generator": "vllm"}), 1000, *of)


@pytest.mark.parametrize(
    ("asked", "cores", "ranks", "workers"),
    [(None, 8, 4, 2), (None, 2, 4, 1), (6, 8, 2, 3), (6, 8, 1, 6), (None, 8, 1, 8)],
)
def test_the_ranks_of_a_machine_share_its_cores_for_scoring(monkeypatch, asked, cores, ranks, workers):
    """Eight ranks that each took all cores would judge in each other's time limits."""
    boxes = []

    def box(**options):
        boxes.append(options["workers"])
        return SimpleNamespace(isolation=())

    monkeypatch.setattr(rewards, "Sandbox", box)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores))
    shared = config(sandbox={"workers": asked})
    on_ranks(ranks, lambda world: rewards.make_sandbox(shared, lambda _: None, world))
    assert boxes == [workers] * ranks


@pytest.mark.parametrize(("isolate", "outcome"), [("test", "passed"), ("program", "wrong_answer")])
def test_the_tests_of_a_program_share_a_process_if_asked(tmp_path, toy, capsys, isolate, outcome):
    """A program that counts its calls tells how many processes it was called in."""
    path = tmp_path / "problems.jsonl"
    tests = {"fn_name": "f", "inputs": [[1], [2]], "outputs": [1, 2]}
    path.write_text(json.dumps({"problem_id": 1, "question": "Return n.", "input_output": tests}) + "\n")
    shared = config(task={"name": "code", "path": str(path)}, sandbox={"isolate": isolate, "workers": 1})
    task = rewards.make_task(shared, SimpleNamespace(encode_chat=lambda _: [1]), lambda _: None, 100)
    counts = "calls = []\ndef f(n):\n    calls.append(n)\n    return n + len(calls) - 1"
    (reward,) = task.score(task.prompts(), [Completion((1,), (), counts, "stop")])
    task.close()
    assert reward.outcome == outcome

    options = ["task.name=code", f"task.path={path}", "task.reward=adaptive", f"sandbox.isolate={isolate}"]
    assert train.main([*toy.arguments(tmp_path / "run", *options), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert f"isolate: {isolate}" in out
    assert ("# sandbox: all tests of a program whose function is called share a process" in out) == (
        isolate == "program"
    )
    assert train.main([*toy.arguments(tmp_path / "run", *options, FEEDBACK), "--dry-run"]) == 0
    assert "# sandbox: all tests" not in capsys.readouterr().out


@pytest.mark.parametrize(("device", "keeps"), [("cpu", 1), ("cuda", 0)])
def test_only_a_cpu_run_keeps_the_memory_that_it_frees(monkeypatch, tmp_path, device, keeps):
    """On a GPU's host the process would hold on to what it needed once, while it loaded its models."""
    calls: list[None] = []
    monkeypatch.setattr("refinerl.run.command.keep_freed_memory", lambda: calls.append(None))
    stand_in(monkeypatch, H100)
    assert train.main(["smollm", f"device={device}", "model=/nowhere", "--output-dir", str(tmp_path / "run")]) == 2
    assert len(calls) == keeps


def test_a_penalty_enters_the_group_where_the_constraint_says():
    charged = {"apply": "reward", "penalty_in_group": "after"}
    assert make_algorithm(config(constraint=charged)).penalty_in_group == "after"
    assert make_algorithm(config()).penalty_in_group == "before"
    several = [{"name": "dynamic"}, {"name": "static", "penalty_in_group": "after"}]
    assert make_algorithm(config(constraints=several)).penalty_in_group == "after"
    assert make_algorithm(config()).max_tokens == 100
