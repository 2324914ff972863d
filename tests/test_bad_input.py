"""Mistakes of users: a message, exit code 2, no traceback, nothing lost, nothing half begun."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import pytest

from machines import H100, OLD_DRIVER, OLD_FOR_KERNELS, T4, stand_in
from refinerl import evaluate, train
from refinerl.audition import command as audition
from refinerl.run import loading, wiring
from tiny import write_tiny
from toy import Toy, metrics


def refused(capsys, arguments) -> str:
    capsys.readouterr()
    assert train.main([str(a) for a in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "Traceback" not in error
    return error


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.stepz=3"], "trainer.steps"),
        (["constraint.beta=-1"], "constraint.beta"),
        (["trainer.steps=0"], "trainer.steps"),
        (["seed=9223372036854775808"], "seed: input should be less than 9223372036854775808"),
        (["model=/nowhere/model"], "/nowhere/model"),
        (["task.path=/nowhere/prompts.jsonl"], "/nowhere/prompts.jsonl"),
        (["task.reward=nowhere:reward"], "nowhere"),
        (["task.reward=toy_rewards:share_of_b"], "share_of_a"),
        (["refiner.template=/nowhere/template.txt"], "/nowhere/template.txt"),
        (["chat_template=/nowhere/template.jinja"], "/nowhere/template.jinja"),
        (["engines.generator=sglang"], "'transformers' or 'vllm'"),
        (
            ["engines.generator=vllm", "vllm.tensor_parallel=2"],
            "vllm.tensor_parallel must divide the number of ranks, 1",
        ),
        (["vllm.sleep=false", "vllm.memory_policy=0.6", "vllm.memory_refiner=0.6"], "0.3 each"),
        (["vllm.speculate=8"], "engines.generator=vllm"),
        (["vllm.speculate=8", "engines.generator=vllm", "refiner.temperature=1"], "refiner.temperature=0"),
        (["lora.dropout=0.1"], "lora.dropout must be 0"),
        (["lora.merge=true"], "lora.rank"),
        (["lora.rank=4", "engines.offload_reference=true"], "engines.offload_reference must be false"),
        (
            [
                "engines.offload_reference=true",
                "engines.generator=vllm",
                "engines.trainer=deepspeed",
                "deepspeed.zero_optimization.stage=3",
            ],
            "deepspeed.zero_optimization.offload_param.device=cpu",
        ),
        (["engines.trainer=deepspeed", "deepspeed.bf16=true"], "deepspeed.bf16.enabled=true"),
        (["deepspeed.data_types=fp32"], "deepspeed.data_types must hold keys of its own"),
        (["device=nonsense", "--dry-run"], "device must be auto, cpu, cuda or cuda:N"),
        (["reward_model.device=cuda:-1", "--dry-run"], "reward_model.device must be auto, cpu, cuda or cuda:N"),
        (["lora.rank=4", "lora.targets=[qproj]"], "lora.targets must be among down_proj"),
        (["generation.max_tokens=512"], "choose at most generation.max_tokens=256"),
        (["mismatch.correction=both"], "mismatch.correction"),
        (["mismatch.cap=0.5"], "mismatch.cap"),
        (
            ["engines.trainer=deepspeed", "deepspeed.zero_optimization.stage=4"],
            "deepspeed.zero_optimization.stage must be 0, 1, 2 or 3",
        ),
    ],
)
def test_mistakes_on_the_command_line(toy: Toy, tmp_path, capsys, overrides, message):
    assert message in refused(capsys, toy.arguments(tmp_path / "run", *overrides))
    assert not (tmp_path / "run").exists()


def test_an_unknown_recipe(capsys):
    assert "closest: smollm" in refused(capsys, ["smolm"])


def test_resuming_needs_a_folder(capsys):
    assert "--output-dir" in refused(capsys, ["smollm", "--resume"])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"prompt": "a"}', "{"], "bad.jsonl:2"),
        (['{"prompt": "a"}', '{"question": "b"}'], "bad.jsonl:2"),
        (['{"prompt": 3}'], "bad.jsonl:1"),
        ([], "bad.jsonl"),
    ],
)
def test_lines_that_are_no_prompts_are_named(toy: Toy, tmp_path, capsys, lines, message):
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join(lines))
    assert message in refused(capsys, toy.arguments(tmp_path / "run", f"task.path={path}"))


def problems(path: Path, *rows: object) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return path


GOOD = {"problem_id": 1, "question": "Print 1.", "input_output": json.dumps({"inputs": [""], "outputs": ["1\n"]})}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{]\n", "bad.jsonl:2"),
        ({"problem_id": 2, "input_output": GOOD["input_output"]}, "question"),
        ({**GOOD, "input_output": "{"}, "bad.jsonl:2"),
    ],
)
def test_lines_that_are_no_problems_are_named(toy: Toy, tmp_path, capsys, row, message):
    path = problems(tmp_path / "bad.jsonl", GOOD, row)
    options = [f"model={toy.folder / 'model'}", f"task.path={path}", "trainer.steps=1"]
    assert message in refused(capsys, ["smollm", *options, "--output-dir", tmp_path / "run"])


def test_problems_without_tests_are_skipped_and_counted(toy: Toy, tmp_path, capsys):
    empty = {**GOOD, "problem_id": 2, "input_output": ""}
    path = problems(tmp_path / "some.jsonl", GOOD, empty, {**empty, "problem_id": 3})
    options = [f"model={toy.folder / 'model'}", f"task.path={path}", "trainer.steps=1", "generation.max_tokens=4"]
    assert train.main(["smollm", *options, "--output-dir", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.count("2 problems without tests were skipped") == 1
    path = problems(tmp_path / "none.jsonl", empty)
    message = refused(capsys, ["smollm", *options, f"task.path={path}", "--output-dir", tmp_path / "other"])
    assert "no problem left" in message


def test_a_tokenizer_without_a_chat_template(toy: Toy, tmp_path, capsys):
    model = write_tiny(tmp_path / "model", alphabet="abcdefgh ", chat_template=None)
    arguments = toy.arguments(tmp_path / "run", f"model={model}", "trainer.steps=1")
    assert "chat_template=" in refused(capsys, arguments)
    template = tmp_path / "template.jinja"
    template.write_text("{% for m in messages %}{{ m['content'] }} {% endfor %}")
    assert train.main([*toy.arguments(tmp_path / "other", f"model={model}", f"chat_template={template}")]) == 0


def test_a_folder_that_holds_something_else(toy: Toy, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    assert "not empty" in refused(capsys, toy.arguments(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_full_disk_leaves_what_was_written_and_says_how_to_go_on(toy: Toy, tmp_path, capsys, monkeypatch):
    """The reward function puts /dev/full, which acts as a full disk, where step 2 will write."""
    run = tmp_path / "run"
    options = ["trainer.steps=2", "checkpoint.every=1"]
    trap = run / "rollouts" / f".step-2.jsonl.{os.getpid()}.partial"
    monkeypatch.setenv("TOY_FULL_DISK", str(trap))
    assert "full" in refused(capsys, toy.arguments(run, *options, reward="toy_rewards:fills_the_disk"))
    assert [row["step"] for row in metrics(run)] == [1]
    assert (run / "checkpoint-1" / "trainer_state.json").exists()
    monkeypatch.delenv("TOY_FULL_DISK")
    assert toy.run(run, *options, reward="toy_rewards:fills_the_disk", resume=True) == 0
    assert [row["step"] for row in metrics(run)] == [1, 2]


@pytest.mark.parametrize(
    ("package", "overrides", "message"),
    [
        ("vllm", ["engines.generator=vllm"], "pip install 'vllm>=0.32,<0.33', or set engines.generator=transformers"),
        ("peft", ["lora.rank=4"], "pip install 'peft>=0.17', or set lora.rank=0"),
    ],
)
def test_what_is_not_installed_is_named_with_what_works_without(
    toy: Toy, tmp_path, capsys, monkeypatch, package, overrides, message
):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == package else find(name, *a))
    assert message in refused(capsys, toy.arguments(tmp_path / "run", *overrides))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("cards", "facts", "overrides", "message"),
    [
        ([], {}, ["device=cuda"], "set device=cpu"),
        ([H100, H100], {}, ["device=cuda:3"], "choose device=cuda:1"),
        ([H100], {}, ["device=gpu"], "device must be auto, cpu, cuda or cuda:N"),
        ([T4], {}, ["dtype=bfloat16"], "set dtype=float32"),
        ([], {"says": OLD_DRIVER}, [], "update the driver"),
        ([H100], {"without_kernels": OLD_FOR_KERNELS}, ["kernels.impl=cuda"], "set kernels.impl=auto"),
        ([], {}, ["kernels.impl=cuda"], "set kernels.impl=auto"),
        ([H100], {"free": 0.0}, [], "0.0 of 79.1 GiB free"),
    ],
)
def test_devices_are_seen_to_before_a_model_is_loaded(
    toy: Toy, tmp_path, capsys, monkeypatch, cards, facts, overrides, message
):
    def load(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    stand_in(monkeypatch, *cards, **facts)
    monkeypatch.setattr(loading, "load_model", load)
    monkeypatch.setattr(wiring, "resolve_model", load)  # which fetches or converts some
    error = refused(capsys, toy.arguments(tmp_path / "run", *overrides))
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_other_commands_see_to_their_devices_too(capsys, monkeypatch):
    stand_in(monkeypatch, T4)
    evaluation = ["smollm2-135m-instruct", "--benchmark", "humaneval"]
    for main, arguments, message in [
        (evaluate.main, [*evaluation, "--device", "cuda:2"], "choose --device=cuda:0"),
        (evaluate.main, [*evaluation, "--dtype", "bfloat16"], "set --dtype=float32"),
        (audition.main, ["smollm", "device=cuda:2"], "choose device=cuda:0"),
        (audition.main, ["smollm", "dtype=bfloat16"], "set dtype=float32"),
    ]:
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
