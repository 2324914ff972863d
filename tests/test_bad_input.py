"""Mistakes of users: a message, exit code 2, no traceback, nothing lost, nothing half begun."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
from pathlib import Path

import pytest

from machines import H100, OLD_DRIVER, OLD_FOR_KERNELS, T4, stand_in
from refinerl import evaluate, train
from refinerl.audition import command as audition
from refinerl.config.synonyms import SYNONYMS
from refinerl.contracts.options import COMMON
from refinerl.contracts.plugins import names, resolve
from refinerl.run import loading, preflight, wiring
from refinerl.run.mistakes import knobs
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
        (["vllm.speculate=8"], "refiner.drafts=8"),
        (["refiner.drafts=129"], "refiner.drafts: input should be less than or equal to 128"),
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


TYPED = [
    # how a knob is written
    ("smollm --trainer.steps=3", "trainer.steps=3"),
    ("smollm --model x", "model=x"),
    ("smollm --learning-rate 1e-5", "trainer.learning_rate=1e-5"),
    ("smollm --num_generations 4", "algorithm.samples_per_prompt=4"),
    ("smollm --output_dir runs/a", "--output-dir runs/a"),
    ("smollm --top_p 0.9", "--top_p is generation.temperature alone, as the policy"),
    ("smollm --kl_coef=0.1", "--kl_coef is constraint.beta with constraint.name=static; knobs are"),
    ("smollm --reward_model.max_length=99", "dashes: reward_model.max_length=99 in place of"),
    ("smollm --path x.jsonl", "task.path=x.jsonl"),
    ("smollm --every 5", "checkpoint.every=5 or evaluate.every=5"),
    ("smollm trainer.steps", "key=value"),
    ("smollm trainer.steps:3", "key=value"),
    ("smollm apps-dapo", "name one of them"),
    ("gpus-4 smollm", "a recipe comes before its parts: smollm gpus-4"),
    ("smolm", "closest: smollm"),
    ("gsm8k", "unknown recipe 'gsm8k'; closest: gsm8k-dapo-dynamic"),
    ("GSM8K", "unknown recipe 'GSM8K'; closest: gsm8k-dapo-dynamic"),
    ("smollm dialogue", "nor a part; closest: table-2-dialogue;"),
    ("smollm trainer.learning=1e-5", "unknown key 'trainer.learning'; closest: trainer.learning_rate"),
    (
        "smollm trainer.rate=1e-5",
        "unknown key 'trainer.rate'; closest: trainer.learning_rate, trainer.min_learning_rate, c",
    ),
    ("smollm gpus-5", "gpus-4"),
    ("--resume", "--output-dir"),
    # names from elsewhere
    ("smollm num_generations=4", "algorithm.samples_per_prompt"),
    ("smollm batch_size=4", "trainer.batch, in responses"),
    ("smollm trainer.batch_size=4", "trainer.batch, in responses"),
    ("smollm kl_coef=0.1", "constraint.beta with constraint.name=static"),
    ("smollm lr=1e-5", "trainer.learning_rate"),
    ("smollm trainer.max_steps=5", "trainer.steps"),
    ("smollm max_new_tokens=9", "generation.max_tokens"),
    ("smollm generation.max_new_tokens=9", "generation.max_tokens"),
    ("smollm generation.top_p=0.9", "generation.temperature"),
    ("smollm data.train_files=x", "task.path"),
    ("smollm actor_rollout_ref.actor.optim.lr=1e-5", "trainer.learning_rate"),
    ("smollm use_vllm=true", "engines.generator=vllm"),
    ("smollm report_to=wandb", "telemetry.trackers"),
    ("smollm lora.r=8", "closest: lora.rank"),
    ("smollm actor_rollout_ref.rollout.n=4", "algorithm.samples_per_prompt"),
    ("smollm critic.optim.lr=1e-5", "it is critic.learning_rate here"),
    ("smollm --reward.model_name_or_path x", "reward_model.model with task.reward=model"),
    ("smollm algorithm.filter_groups.enable=true", "it is algorithm.dynamic_sampling here"),
    # values
    ("smollm trainer.stepz=3", "trainer.steps"),
    ("smollm trainer.steps=many", "trainer.steps"),
    ("smollm trainer.steps=0", "greater than or equal to 1"),
    ("smollm trainer.batch=6", "multiple of algorithm.samples_per_prompt = 4"),
    ("smollm trainer.minibatch=3", "trainer.minibatch must divide trainer.batch = 16"),
    ("smollm trainer.schedule=linea", "'linear'"),
    ("smollm constraint.beta=-1", "greater than or equal to 0"),
    ("smollm constraint.name=kl", "static"),
    ("smollm constraint.name=static constraint.apply=loss constraint.estimator=k1", "k2 or k3"),
    ("smollm algorithm.name=grpo", "dapo"),
    ("smollm algorithm.samples_per_prompt=1", "at least 2"),
    ("smollm task.name=chat", "dialogue"),
    ("smollm task.reward=exact", "module:function"),
    ("smollm task.name=dialogue", "task.path"),
    ("smollm task.name=dialogue task.path=x.jsonl task.reward=model", "reward_model.model"),
    ("smollm refiner.url=localhost:8000", "http://localhost:8000/v1"),
    ("smollm refiner.samples=4", "such as 0.7"),
    ("smollm evaluate.every=1 evaluate.benchmark=task", "evaluate.path=held_out.jsonl"),
    ("smollm engines.generator=sglang", "'transformers' or 'vllm'"),
    ("smollm dtype=fp16", "'bfloat16'"),
    ("smollm device=gpu --dry-run", "auto, cpu, cuda or cuda:N"),
    ("smollm seed=-1", "seed"),
    ("smollm trainer.steps=", "'trainer.steps=' has no value: write one, or trainer.steps=null"),
    ("smollm model=", "'model=' has no value"),
    ("smollm|trainer.steps = 3", "has spaces around its sign: write trainer.steps=3"),
    ("smollm trainer.steps=3,", "trainer.steps: input should be a valid integer"),
    ("smollm trainer=3", "trainer is a section, got 3: write its knobs one by one, such as trainer.steps="),
    ("smollm task=dialogue", "task is a section, got 'dialogue': write task.name=dialogue"),
    ("smollm constraint=static", "constraint.name=static"),
    ("smollm constraints=static", "constraints must be a section, such as constraints=[{name: static, beta: 0.01}]"),
    ("smollm constraints=[static]", "constraints.0 must be a section, such as"),
    ("smollm constraints=[{name:static}]", "unknown key 'constraints.0.name:static'"),
    ("smollm deepspeed=ds_config.json", "deepspeed is a section"),
    ("smollm engines.trainer=deepspeed deepspeed.zero_optimization=3", "deepspeed.zero_optimization.stage=3, got 3"),
    ("smollm device=0", "device must be auto, cpu, cuda or cuda:N, such as device=cuda:0"),
    ("smollm telemetry.trackers=wandb", "telemetry.trackers must be a list, such as telemetry.trackers=[wandb]"),
    ("smollm generation.stop=END", "generation.stop must be a list, such as generation.stop=[END]"),
    ("smollm lora.rank=8 lora.targets=q_proj", "lora.targets=[q_proj]"),
    ("smollm trainer.betas=[0.9,0.95,0.99]", "at most 2 items"),
    ("smollm trainer.learning_rate=0", "greater than 0"),
    ("smollm trainer.warmup=100", "less than or equal to 1"),
    ("smollm vllm.memory_policy=90", "less than or equal to 1"),
    ("smollm generation.temperature=0", "greater than 0"),
    ("smollm checkpoint.keep=0", "greater than or equal to 1"),
    ("smollm dtype=bf16", "'bfloat16'"),
    ("smollm constraint.beta=none", "constraint.beta: input should be a valid number"),
    ("smollm refiner.url=http://localhost:8000/v1/chat/completions", "such as http://localhost:8000/v1, got"),
    ("smollm task.reward=rule:answer", "task.reward=rule:answer is for task.name=dialogue"),
    (
        "smollm task.name=dialogue task.path=ROWS task.reward=my_rewards.correct",
        "module:function for task.name=dialogue",
    ),
    ("smollm task.name=dialogue task.path=ROWS task.reward=rule:answer task.reward_weights=0.5", "such as [1,0.5]"),
    ("TAB.yaml", "TAB.yaml is not YAML: found character that cannot start any token (line 3, column 1)"),
    ("TWICE.yaml", "TWICE.yaml is not YAML: found duplicate key seed (line 3, column 1)"),
    ("DOTTED.yaml", "'trainer.steps' is nested in a file: write trainer: {steps: 3}"),
    ("LIST.yaml", "must be a mapping of keys to values"),
    ("NOBASE.yaml", "unknown recipe 'smolm'; closest: smollm"),
    ("ROWS", "'ROWS' is no recipe: the name of a recipe file ends in .yaml"),
    ("EMPTY", "'EMPTY' is no recipe"),
    # what is found before a model is loaded, by the run and by the dry run
    (
        "smollm sandbox.packages=[nowhere_pkg] --dry-run",
        "sandbox.packages must name installed packages, such as [numpy]",
    ),
    ("smollm task.name=dialogue task.path=EMPTY task.reward=rule:answer --dry-run", "holds no files of data"),
    ("smollm task.name=dialogue task.path=openai/gsm8k task.reward=rule:answer --dry-run", "as hub:openai/gsm8k"),
    (
        "smollm task.name=dialogue task.path=https://huggingface.co/datasets/openai/gsm8k task.reward=rule:answer",
        "as hub:openai/gsm8k",
    ),
    (
        "smollm task.name=dialogue task.path=ANSWERED task.reward=rule:answer task.system=Hi task.prompt_format=text",
        "task.system is for conversations",
    ),
    ("smollm task.path=ROWS --dry-run", "rows with the field prompt are read by task.name=dialogue"),
    ("smollm task.name=dialogue task.path=QUESTIONS task.reward=rule:answer --dry-run", "with task.column"),
    ("smollm device=cuda:0", "device=cpu"),
    ("smollm --output-dir FILE/run", "--output-dir, such as runs/a"),
    ("smollm --output-dir FILE/run --dry-run", "--output-dir, such as runs/a"),
    ("LATIN1.yaml", "UTF-8"),
    ("nowhere.yaml", "cannot be read"),
    ("smollm task.path=~/nowhere.jsonl", "/nowhere.jsonl"),
    ("smollm task.path=nowhere.jsonl --dry-run", "nowhere.jsonl"),
    ("smollm task.reward=nowhere:reward", "Python path"),
    ("smollm task.reward=toy_rewards:share_of_b --dry-run", "share_of_a"),
    ("smollm task.name=dialogue task.path=ROWS task.reward=rule:maths --dry-run", "math"),
    ("smollm task.name=dialogue task.path=ROWS task.reward=rule:answer --dry-run", "'answer'"),
    ("smollm task.name=dialogue task.path=ROWS task.reward=rule:answer", "'answer'"),
    ("smollm task.name=dialogue task.path=ROWS task.reward=rule:matches task.column=question --dry-run", "prompt"),
    (
        "smollm task.name=dialogue task.path=ROWS task.reward=[a:b,c:d] task.reward_weights=[0,0]",
        "a weight other than 0",
    ),
    (
        "smollm task.name=dialogue task.path=ANSWERED task.reward=[rule:answer,rule:matches,rule:answer] --dry-run",
        "task.reward must name each reward once, got rule:answer 2 times",
    ),
    ("smollm refiner.template=refine_cod", "refine_code"),
    ("smollm task.template=nowhere.txt --dry-run", "nowhere.txt"),
    (
        "smollm task.name=dialogue task.path=ROWS task.reward=toy_rewards:share_of_a task.template=no.txt --dry-run",
        "no.txt",
    ),
    ("smollm task.embedded=hard", "'easy'"),
    ("smollm task.embedded=all task.difficulty=hard --dry-run", "trivial"),
    ("smollm evaluate.every=1 evaluate.path=nowhere.jsonl --dry-run", "nowhere.jsonl"),
    (
        "smollm evaluate.every=1 evaluate.benchmark=apps evaluate.data=nowhere --dry-run",
        "evaluate.data = nowhere: there is",
    ),
    ("smollm evaluate.every=1 evaluate.benchmark=apps evaluate.data=nowhere", "evaluate.data = nowhere: there is"),
    (
        "smollm evaluate.every=1 evaluate.benchmark=humaneval evaluate.data=FILE --dry-run",
        "evaluate.data must be a folder",
    ),
    (
        "smollm task.name=dialogue task.path=ANSWERED task.reward=rule:answer evaluate.every=1 evaluate.path=ROWS",
        "ROWS, read as task.name=dialogue: the reward function rule:answer needs 'answer'",
    ),
    (
        "smollm model=/nowhere/model --dry-run",
        "cannot load model '/nowhere/model': there is no such folder; give model",
    ),
    ("smollm model=runs/a/final", "cannot load model 'runs/a/final': there is no such folder"),
    ("smollm refiner.model=./nowhere --dry-run", "give refiner.model the folder"),
    ("smollm algorithm.name=ppo critic.model=../nowhere --dry-run", "give critic.model the folder"),
    (
        "smollm task.name=dialogue task.path=ROWS task.reward=model reward_model.model=/nowhere --dry-run",
        "give reward_model.model the folder",
    ),
    ("smollm model=RUN --dry-run", "give its final/ or a checkpoint-N/"),
    ("smollm model=EMPTY --dry-run", "the folder of model has no config.json"),
    ("smollm model=PLAIN --dry-run", "chat_template="),
    ("smollm model=PLAIN", "chat_template="),
]
"""What a user types, and the key or the value that the message has to name."""


@pytest.fixture(scope="module")
def mistaken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that TYPED names."""
    folder = tmp_path_factory.mktemp("typed")
    (folder / "FILE").write_text("a file")
    (folder / "LATIN1.yaml").write_bytes("base: smollm  # café".encode("latin-1"))
    (folder / "ROWS").write_text('{"prompt": "a"}\n')
    (folder / "ANSWERED").write_text('{"prompt": "a", "answer": "b"}\n')
    (folder / "QUESTIONS").write_text('{"question": "a", "answer": "b"}\n')
    (folder / "TAB.yaml").write_text("base: smollm\ntrainer:\n\tsteps: 3\n")
    (folder / "TWICE.yaml").write_text("base: smollm\nseed: 1\nseed: 2\n")
    (folder / "DOTTED.yaml").write_text("base: smollm\ntrainer.steps: 3\n")
    (folder / "LIST.yaml").write_text("- smollm\n")
    (folder / "NOBASE.yaml").write_text("base: smolm\n")
    for name in ("RUN", "EMPTY"):
        (folder / name).mkdir()
    (folder / "RUN" / "config.yaml").write_text("seed: 0\n")
    write_tiny(folder / "PLAIN", alphabet="abcdefgh ", chat_template=None)
    return folder


@pytest.mark.parametrize(("line", "named"), TYPED, ids=[line for line, _ in TYPED])
def test_a_mistake_gets_one_sentence_before_a_model_is_loaded(mistaken: Path, monkeypatch, capsys, line, named):
    def load(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.chdir(mistaken)
    monkeypatch.setattr(loading, "load_model", load)
    before = sorted(mistaken.iterdir())
    error = refused(capsys, line.split("|") if "|" in line else line.split())
    assert named in error
    assert error.count("\n") == 1
    assert sorted(mistaken.iterdir()) == before


def test_a_disk_without_room_for_the_checkpoints_is_found_before_a_model_is_loaded(toy, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10, 10, 0))
    error = refused(capsys, toy.arguments(tmp_path / "run"))
    assert "of this run need 1 MiB, by arithmetic" in error
    assert "has 0 MiB free" in error
    assert "checkpoint.keep=1" in error
    assert not (tmp_path / "run").exists()
    assert train.main([*toy.arguments(tmp_path / "run"), "--dry-run"]) == 0
    assert "which is too little" in capsys.readouterr().out


def test_the_plan_names_reward_rows_disk_and_a_time_that_is_known(toy, tmp_path, capsys):
    run = tmp_path / "run"
    assert train.main([*toy.arguments(run), "--dry-run"]) == 0
    out = capsys.readouterr().out
    for line in ("# data: 8 prompts", "# reward: toy_rewards:share_of_a", "# memory: ", "# disk: ", "# time: unknown"):
        assert line in out
    assert toy.run(run) == 0
    capsys.readouterr()
    assert train.main(["--output-dir", str(run), "--resume", "trainer.steps=5", "--dry-run"]) == 0
    assert "# time: 3 steps are left" in capsys.readouterr().out


def test_the_plan_names_devices_and_trackers_that_are_not_here(toy, tmp_path, capsys, monkeypatch):
    stand_in(monkeypatch)
    words = ["device=cuda:3", "telemetry.trackers=[wandb,tensorboard]"]
    find = importlib.util.find_spec
    there = {"wandb": object(), "tensorboard": None}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: there[name] if name in there else find(name, *a))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    assert train.main([*toy.arguments(tmp_path / "run", *words), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "# not here: device=cuda:3 needs a GPU, and PyTorch finds none here" in out
    assert "# not here: telemetry.trackers=wandb, for which no login is found: `wandb login`" in out
    assert "# not here: telemetry.trackers=tensorboard, which is not installed: pip install" in out
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    assert train.main([*toy.arguments(tmp_path / "run", "telemetry.trackers=[wandb]"), "--dry-run"]) == 0
    assert "not here" not in capsys.readouterr().out


def test_every_foreign_name_stands_for_a_knob_or_an_option():
    keys = {*knobs(), *(f"{kind}.{key}" for kind in COMMON for part in names(kind)
                        for key in resolve(kind, part).Options.model_fields)}  # fmt: skip
    for said in SYNONYMS.values():
        for word in re.findall(r"[a-z_]+(?:\.[a-z_]+)+", said):
            assert word in keys or word.startswith("deepspeed.")
        assert (
            said.startswith("--")
            or said.partition(" ")[0].partition("=")[0].rstrip(",") in keys
            or "deepspeed." in said
        )
