"""`refinerl.fine_tune` with objects: what it gives back, what it leaves alone, and what it says when it cannot."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

import refinerl
import toy_rewards
from launching import launch
from refinerl.algorithms.dapo import DAPO
from refinerl.constraints.dynamic import Dynamic
from refinerl.constraints.static import Static
from refinerl.records import Reward
from refinerl.report.rows import RolloutRow
from refinerl.run import wiring
from refinerl.run.borrowed import as_found
from refinerl.tasks import Task
from tiny import tiny_model, tiny_tokenizer
from toy import Toy, timeless

ALPHABET = "abcdefgh "
WORDS = ["abc", "bcd", "cde", "fgh", "gab", "hhh", "dad", "bed"]
KNOBS: dict[str, Any] = {
    "generation.max_tokens": 6,
    "refiner.temperature": 1.0,
    "algorithm.samples_per_prompt": 4,
    "trainer.batch": 8,
    "trainer.learning_rate": 5e-3,
    "trainer.steps": 2,
}


def share_of_a(completions, **_):
    return [text.count("a") / 6 for text in completions]


def brevity(completions, **_):
    return [-float(len(text)) for text in completions]


def columns(prompts, completions, completion_ids, wanted, **_):
    """TRL's columns, as lists of Python's own types."""
    assert all(isinstance(text, str) for text in [*prompts, *completions, *wanted])
    assert all(isinstance(ids, list) for ids in completion_ids)
    return [text.count(letter) / 6 for text, letter in zip(completions, wanted, strict=True)]


async def later(completions, **_):
    await asyncio.sleep(0)
    return share_of_a(completions)


def in_a_process_of_its_own(code: str, argument: Path) -> subprocess.CompletedProcess[str]:
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1]), *sys.path]
    return subprocess.run(
        [sys.executable, "-c", code.format(paths=paths), str(argument)],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


@pytest.fixture
def small() -> dict[str, Any]:
    """A run in about a second, all of it objects."""
    return objects()


def objects() -> dict[str, Any]:
    tokenizer = tiny_tokenizer(alphabet=ALPHABET)
    model = tiny_model(len(tokenizer), scale=0.1)
    return {"model": model, "tokenizer": tokenizer, "prompts": WORDS, "reward": share_of_a, **KNOBS}


def test_importing_the_package_takes_a_tenth_of_a_second_and_no_torch():
    code = (
        "import sys, time; start = time.perf_counter(); import refinerl; refinerl.fine_tune, refinerl.UserError; "
        "print(time.perf_counter() - start); print(sorted({'torch', 'transformers', 'pydantic'} & set(sys.modules)))"
    )
    done = [subprocess.check_output([sys.executable, "-c", code], text=True).splitlines() for _ in range(3)]
    assert min(float(seconds) for seconds, _ in done) < 0.1
    assert all(heavy == "[]" for _, heavy in done)


def test_a_run_gives_back_what_it_did(small, tmp_path):
    seen: list[Any] = []
    rows = datasets.Dataset.from_dict({"prompt": WORDS, "wanted": [word[0] for word in WORDS]})
    given = {**small, "prompts": rows, "reward": [columns, brevity], "reward_weights": [1.0, 0.01]}
    run = refinerl.fine_tune(output_dir=tmp_path / "run", on_step=seen.append, **given)
    assert run.metrics == seen
    assert [row["step"] for row in seen] == [1, 2]
    assert run.metrics_frame().loc[2, "reward/mean"] == seen[1]["reward/mean"]
    row = run.rollouts(1)[0]
    assert isinstance(row, RolloutRow)
    assert isinstance(row.reward, Reward)
    text, letter = row.completion.text, WORDS[int(row.prompt.id)][0]
    assert row.reward.value == pytest.approx(text.count(letter) / 6 - 0.01 * len(text))
    assert row.reward.parts == pytest.approx({"columns": text.count(letter) / 6, "brevity": -len(text)})
    lengths = [len(row.completion.text) for row in run.rollouts(1)]
    assert seen[0]["reward/brevity"] == pytest.approx(-sum(lengths) / len(lengths))
    assert any(row.refinement is not None and row.refinement.completion.text for row in run.rollouts(2))
    assert run.report() == tmp_path / "run" / "report.html"
    assert "refinerl" not in (run.folder / "final" / "config.json").read_text()
    saved = AutoModelForCausalLM.from_pretrained(run.folder / "final").state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in run.model.state_dict().items())
    assert run.tokenizer.decode(row.completion.token_ids, skip_special_tokens=True) == text
    again = refinerl.Run(run.folder)
    assert again.metrics == seen
    assert all(torch.equal(tensor, saved[name]) for name, tensor in again.model.state_dict().items())
    assert again.tokenizer.chat_template
    assert repr(again).startswith(f"Run('{run.folder}': 2 steps, mean reward ")
    with pytest.raises(refinerl.UserError, match="no rollouts of step 3: it has 1 to 2"):
        run.rollouts(3)


def test_a_value_that_a_frame_lacks_is_none(small, tmp_path):
    """It was NaN, a value like any other to a rule."""
    seen: list[Any] = []

    def reward(completions, wanted, level, **_):
        seen.extend(zip(wanted, level, strict=True))
        return [
            None if letter is None else text.count("a") / 6 for text, letter in zip(completions, wanted, strict=True)
        ]

    rows = [
        {"prompt": word, "wanted": None if word < "c" else word[0], "level": i or None} for i, word in enumerate(WORDS)
    ]
    frame = datasets.Dataset.from_list(rows).to_pandas()
    refinerl.fine_tune(output_dir=tmp_path / "run", **{**small, "prompts": frame, "reward": reward})
    assert {letter for letter, _ in seen} >= {None, "c"}
    assert {level for _, level in seen} <= {None, *map(float, range(8))}


FRESH = """
import sys
sys.path[:0] = {paths}
import torch
import test_library
import refinerl
refinerl.fine_tune(output_dir=sys.argv[1], **test_library.objects())
"""


@pytest.mark.slow
def test_a_second_run_is_as_one_in_a_fresh_process(small, tmp_path):
    """Whatever the first one was: here another algorithm on several threads, with an error at its end."""
    fresh = in_a_process_of_its_own(FRESH, tmp_path / "fresh")
    assert fresh.returncode == 0, fresh.stderr
    with pytest.raises(ZeroDivisionError):
        refinerl.fine_tune(**{**small, "algorithm": "ppo", "on_step": lambda row: 1 / 0}, output_dir=tmp_path / "first")
    for name in ("second", "third"):
        refinerl.fine_tune(output_dir=tmp_path / name, **small)
        assert timeless(tmp_path / name) == timeless(tmp_path / "fresh")
        assert (tmp_path / name / "rollouts/step-2.jsonl").read_text() == (
            tmp_path / "fresh" / "rollouts/step-2.jsonl"
        ).read_text()


TWICE = """
import os, sys
sys.path[:0] = {paths}
import torch
import test_library
import refinerl
given = test_library.objects() | {{"engines.trainer": "deepspeed"}}
for name in ("a", "b"):
    refinerl.fine_tune(output_dir=f"{{sys.argv[1]}}/{{name}}", **given)
    assert not torch.distributed.is_initialized() and "LOCAL_RANK" not in os.environ
"""


@pytest.mark.slow
def test_deepspeed_leaves_no_group_for_the_second_run(tmp_path):
    """Its module keeps the groups of the process, which end with the run."""
    pytest.importorskip("deepspeed")
    done = in_a_process_of_its_own(TWICE, tmp_path)
    assert done.returncode == 0, done.stderr
    assert timeless(tmp_path / "a") == timeless(tmp_path / "b")


def test_a_run_leaves_process_and_model_as_it_found_them(small, tmp_path, capfd, monkeypatch):
    model = small["model"].train()
    model.lm_head.weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    learns = [p.requires_grad for p in model.parameters()]
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    threads, handlers = threading.active_count(), signal.getsignal(signal.SIGINT)
    environment = dict(os.environ)
    joined = torch.distributed.is_initialized()  # engines of other tests may have
    refinerl.fine_tune(output_dir=tmp_path / "run", on_step=lambda row: None, **small)
    assert torch.equal(torch.rand(1), expected)
    assert model.config._attn_implementation == "sdpa"
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == learns
    assert model.training
    assert all(module.training for module in model.modules())
    assert (threading.active_count(), signal.getsignal(signal.SIGINT)) == (threads, handlers)
    assert torch.distributed.is_initialized() == joined
    assert dict(os.environ) == environment
    said = capfd.readouterr()
    assert said.err == ""
    assert said.out.count("\n") == 2  # its device, and that texts do not go through the chat template


@pytest.mark.parametrize("part", ["make_generators", "share_prefixes", "make_stream"])
def test_a_run_that_cannot_start_leaves_a_models_attention(small, tmp_path, monkeypatch, part):
    monkeypatch.setattr(wiring, part, lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        refinerl.fine_tune(output_dir=tmp_path / "run", **small)
    assert small["model"].config._attn_implementation == "sdpa"


def test_weights_from_inference_mode_and_another_default_device(small, tmp_path):
    """A notebook that said torch.set_default_device("cuda") keeps it, and a run does not go by it."""
    with torch.inference_mode():
        model = tiny_model(13, scale=0.1)
    torch.set_default_device("meta")
    try:
        refinerl.fine_tune(output_dir=tmp_path / "run", **{**small, "model": model, "trainer.steps": 1})
        assert torch.get_default_device() == torch.device("meta")
    finally:
        torch.set_default_device(None)


def test_the_library_leaves_the_allocator_alone(small, tmp_path, monkeypatch):
    """It is the process's, and cannot be set back; the command's process is the run's own."""
    asked = []
    monkeypatch.setattr("refinerl.run.command.keep_freed_memory", lambda: asked.append(1))
    refinerl.fine_tune(output_dir=tmp_path / "run", **{**small, "trainer.steps": 1})
    assert not asked


def test_it_runs_inside_an_event_loop_with_async_rewards(small, tmp_path):
    async def notebook():
        return refinerl.fine_tune(output_dir=tmp_path / "async", **{**small, "reward": later})

    asyncio.run(notebook())
    refinerl.fine_tune(output_dir=tmp_path / "plain", **small)
    assert timeless(tmp_path / "async") == timeless(tmp_path / "plain")


def test_ctrl_c_while_an_async_reward_waits_ends_it_too(small, tmp_path):
    cancelled = threading.Event()

    async def hangs(completions, **_):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def notebook():
        handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # as a notebook's kernel has it
        try:
            with pytest.raises(KeyboardInterrupt, match="resume=True begins again"):
                refinerl.fine_tune(output_dir=tmp_path / "run", **{**small, "reward": hangs})
        finally:
            signal.signal(signal.SIGINT, handler)

    asyncio.run(notebook())
    assert cancelled.wait(10)


def test_ctrl_c_says_what_goes_on_and_it_does(small, tmp_path):
    """With the same model object, which is the reference still."""
    calls = []

    def interrupted(completions, **_):
        calls.append(1)
        if len(calls) == 4:  # y and ỹ of a step, each in a call
            raise KeyboardInterrupt
        return share_of_a(completions)

    longer = {**small, "trainer.steps": 3, "algorithm.dynamic_sampling": False, "output_dir": tmp_path / "run"}
    told = f"^interrupted; resume=True goes on after step 1, from {tmp_path / 'run' / 'checkpoint-1'}$"
    with pytest.raises(KeyboardInterrupt, match=told):
        refinerl.fine_tune(**{**longer, "reward": interrupted})
    calls[:] = [1] * 9
    run = refinerl.fine_tune(**{**longer, "reward": interrupted}, resume=True)
    whole = refinerl.fine_tune(**{**longer, "output_dir": tmp_path / "whole"})
    assert timeless(run.folder) == timeless(whole.folder)


def test_a_name_is_the_commands_run(toy: Toy, tmp_path):
    """The same knobs and prompts give the same metrics through either."""
    assert toy.run(tmp_path / "command") == 0
    knobs = {k: v for k, v in KNOBS.items() if k != "algorithm.samples_per_prompt"}
    run = refinerl.fine_tune(
        recipe="smollm",
        model=toy.folder / "model",
        prompts=toy.folder / "prompts.jsonl",
        reward=toy_rewards.share_of_a,
        output_dir=tmp_path / "library",
        **knobs,
        **{"task.prompt_format": "chat", "constraint.accept_truncated": True},
    )
    assert timeless(run.folder) == timeless(tmp_path / "command")


def test_a_stream_of_datasets(small, tmp_path):
    """A resumed run draws what an uninterrupted one does, and no prompt before all others were drawn."""
    rows = datasets.Dataset.from_dict({"prompt": WORDS, "wanted": [word[0] for word in WORDS]}).to_iterable_dataset()
    given = {**small, "prompts": rows, "reward": columns, "algorithm.dynamic_sampling": False}
    whole = refinerl.fine_tune(**{**given, "trainer.steps": 5}, output_dir=tmp_path / "whole")
    drawn = [row.prompt.text for step in (1, 2, 3, 4) for row in whole.rollouts(step) if not row.sample]
    assert sorted(drawn) == sorted(WORDS)
    assert drawn != WORDS
    refinerl.fine_tune(**given, output_dir=tmp_path / "run")
    resumed = refinerl.fine_tune(**{**given, "trainer.steps": 5}, output_dir=tmp_path / "run", resume=True)
    assert timeless(resumed.folder)[2:] == timeless(whole.folder)[2:]


@pytest.mark.parametrize("algorithm", ["dapo", "ppo"])
def test_a_peft_models_adapter_learns_in_place(small, tmp_path, algorithm):
    """PPO's critic starts from the model without it."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj"])
    model = peft.get_peft_model(small["model"], config)
    base = {name: t.clone() for name, t in model.state_dict().items() if ".lora_" not in name}
    run = refinerl.fine_tune(**{**small, "model": model, "algorithm": algorithm}, output_dir=tmp_path / "run")
    assert run.model is model
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in base.items())
    assert any(tensor.any() for name, tensor in state.items() if "lora_B" in name)
    assert "rank: 4" in (run.folder / "config.yaml").read_text()
    plain = peft.PeftModel.from_pretrained(tiny_model(13, scale=0.1), run.folder / "final")
    assert all(torch.equal(state[name], tensor) for name, tensor in plain.state_dict().items() if "lora_" in name)


def test_lora_by_a_knob_leaves_a_given_model_without_it(small, tmp_path):
    pytest.importorskip("peft")
    names = list(small["model"].state_dict())
    run = refinerl.fine_tune(output_dir=tmp_path / "run", **small, **{"lora.rank": 2})
    assert list(small["model"].state_dict()) == names
    assert any("lora_A" in name for name in run.model.state_dict())


def test_objects_of_the_contracts(small, tmp_path):
    """The configuration names them, with their own options, and a resumed run gets them again."""
    given = {**small, "output_dir": tmp_path / "run", "algorithm.samples_per_prompt": 2}
    chosen = {"constraint": Dynamic(beta=0.5, accept="all"), "algorithm": DAPO(clip_high=0.4, dynamic_sampling=False)}
    run = refinerl.fine_tune(**given, **chosen)
    assert [row["constraint/beta"] for row in run.metrics] == [0.5, 0.5]
    written = (run.folder / "config.yaml").read_text()
    assert "name: object:refinerl.constraints.dynamic.Dynamic" in written
    assert "clip_high: 0.4" in written
    names = {**given, "output_dir": tmp_path / "names", "constraint.beta": 0.5, "constraint.accept": "all"}
    named = refinerl.fine_tune(**names, **{"algorithm.clip_high": 0.4, "algorithm.dynamic_sampling": False})
    assert timeless(named.folder) == timeless(run.folder)
    longer = refinerl.fine_tune(**{**given, "trainer.steps": 3}, **chosen, resume=True)
    assert len(longer.metrics) == 3
    with pytest.raises(refinerl.UserError, match=r"constraint\.beta must be left out where constraint is an object"):
        refinerl.fine_tune(**small, **chosen, **{"constraint.beta": 0.1})


class Elsewhere:
    """A part that fits the contract without deriving from its base class."""

    def __init__(self, part: Any):
        self._part = part

    def __getattr__(self, name: str) -> Any:
        return (self,) if name == "parts" else getattr(self._part, name)


def test_objects_that_derive_from_nothing_of_ours(small, tmp_path):
    given = {k: v for k, v in small.items() if k != "algorithm.samples_per_prompt"}
    run = refinerl.fine_tune(
        output_dir=tmp_path / "run", **given, constraint=Elsewhere(Static(beta=0.25)), algorithm=Elsewhere(DAPO())
    )
    assert [row["constraint/beta"] for row in run.metrics] == [0.25, 0.25]
    assert max(row.sample for row in run.rollouts(1)) == 7


def test_a_task_object_brings_prompts_and_rewards(small, tmp_path):
    from refinerl.data.conversations import Dialogue
    from refinerl.engines.tokenization import ChatTokenizer
    from refinerl.tasks.dialogue import DialogueTask
    from refinerl.tasks.user_reward import UserReward

    encode = ChatTokenizer.of(small["tokenizer"]).encode_chat
    task = DialogueTask([Dialogue(w, w, {}) for w in WORDS], encode, reward=UserReward(toy_rewards.share_of_a))
    given = {**small, "reward": task, "prompts": None}
    run = refinerl.fine_tune(output_dir=tmp_path / "run", **given)
    assert {row.prompt.id for row in run.rollouts(1)} <= set(WORDS)
    with pytest.raises(refinerl.UserError, match="prompts must be left out"):
        refinerl.fine_tune(output_dir=tmp_path / "other", **{**given, "prompts": WORDS})


class Letters(Task):
    """A task of the base class, which the run connects to its tokenizer."""

    def examples(self):
        return [(word, word[0]) for word in WORDS]

    def reward(self, known, answer):
        return answer.count(known)


def test_a_task_of_the_base_class_needs_no_tokenizer_of_its_own(small, tmp_path):
    run = refinerl.fine_tune(output_dir=tmp_path / "run", **{**small, "reward": Letters(), "prompts": None})
    assert {row.prompt.text for row in run.rollouts(1)} <= set(WORDS)


def test_knobs_and_weights_of_numpy_and_torch(small, tmp_path):
    """As a sweep over np.logspace gives them."""
    knobs = {"trainer.steps": np.int64(1), "trainer.learning_rate": torch.tensor(0.5), "dtype": torch.float32}
    given = {**small, "model": None, "recipe": write_recipe(small["model"], small["tokenizer"], tmp_path)}
    given |= {"reward": [share_of_a, brevity], "reward_weights": np.array([1.0, 0.5]), "device": torch.device("cpu")}
    run = refinerl.fine_tune(output_dir=tmp_path / "run", **{**given, **knobs})
    written = yaml.safe_load((run.folder / "config.yaml").read_text())
    assert (written["trainer"]["steps"], written["trainer"]["learning_rate"]) == (1, 0.5)
    assert (written["dtype"], written["device"]) == ("float32", "cpu")
    assert written["task"]["reward_weights"] == [1.0, 0.5]


def write_recipe(model, tokenizer, folder):
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    (folder / "mine.yaml").write_text(f"model: {folder / 'model'}\n")
    return folder / "mine.yaml"


def test_prompts_from_a_generator(small, tmp_path):
    given = {**small, "prompts": (word for word in WORDS), "trainer.steps": 1}
    assert (
        "path: object:builtins.generator"
        in (refinerl.fine_tune(output_dir=tmp_path / "run", **given).folder / "config.yaml").read_text()
    )


def test_problems_in_memory_are_judged_in_the_sandbox(small, tmp_path):
    tests = {"inputs": [""], "outputs": [""]}
    rows = [{"problem_id": n, "question": letter, "input_output": tests} for n, letter in enumerate("abcdefgh")]
    run = refinerl.fine_tune(
        output_dir=tmp_path / "run", **{**small, "prompts": rows, "reward": "code", "trainer.steps": 1}
    )
    assert run.rollouts(1)[0].reward.pass_rate is not None


BY_TORCHRUN = """
import refinerl
refinerl.fine_tune(model="nobody/has-it", prompts=["a"], reward=len, resume=True)
"""


@pytest.mark.slow
def test_a_mistake_in_one_of_several_ranks_is_said_once_and_ends_with_code_2(tmp_path):
    script = tmp_path / "tune.py"
    script.write_text(BY_TORCHRUN)
    done = launch("torchrun", script=script)
    assert "exitcode  : 2" in done.stderr  # torchrun's own is 1 whatever its ranks end with
    assert done.stderr.count("error: resume=True needs output_dir: the folder of the run that is to go on") == 1
    assert 'Traceback (most recent call last):\n  File "' + str(script) not in done.stderr
    assert "UserError" not in done.stderr


def test_what_is_an_object_cannot_be_resumed_by_the_command(toy: Toy, small, tmp_path, capsys):
    refinerl.fine_tune(output_dir=tmp_path / "run", **small)
    from refinerl import train

    assert train.main(["--output-dir", str(tmp_path / "run"), "--resume"]) == 2
    assert "only refinerl.fine_tune(model=…) can hand over" in capsys.readouterr().err
    assert train.main(["smollm", "task.name=object:mine.Task", "--dry-run"]) == 2
    assert "task.name=object:mine.Task was an object" in capsys.readouterr().err


@pytest.mark.gpu
def test_the_gpus_generator_and_the_current_gpu_are_as_found():
    torch.cuda.manual_seed(3)
    before, current = torch.cuda.get_rng_state(), torch.cuda.current_device()
    with as_found():
        torch.manual_seed(0)
        torch.rand(3, device="cuda")
        torch.cuda.set_device(torch.cuda.device_count() - 1)
    assert torch.cuda.current_device() == current
    assert torch.equal(torch.cuda.get_rng_state(), before)


def nan(completions, **_):
    return [float("nan") for _ in completions]


def one_too_few(completions, **_):
    return [0.0 for _ in completions[1:]]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"tokenizer": None}, "model is an object, so its tokenizer must be given too"),
        ({"tokenizer": "gpt2"}, "tokenizer must be a tokenizer of transformers, got str"),
        ({"model": 7}, "model must be a name, a folder, a PreTrainedModel or a peft model"),
        ({"model": "no/such/folder/anywhere", "tokenizer": None}, "cannot load"),
        ({"model": tiny_model(13).model}, "model must be a causal language model, .* got LlamaModel"),
        ({"model": tiny_model(13).to("meta")}, "model has weights on the device meta, which hold nothing"),
        ({"model": tiny_model(12)}, r"the tokenizer has 13 tokens and the model embeds 12: give the model's own"),
        ({"prompts": None}, "prompts must be given"),
        ({"prompts": []}, "prompts is empty"),
        ({"prompts": 7}, "prompts must be a data set, a list of rows or texts, or a path, got int"),
        ({"prompts": datasets.Dataset.from_dict({"prompt": []})}, "prompts is empty: it has no rows"),
        ({"prompts": [None]}, r"prompts\[0\] must be a text or a row"),
        ({"prompts": [*WORDS, ""]}, "prompt 8 is an empty text, which a model cannot continue"),
        ({"prompts": [7]}, r"prompts\[0\] must be a text or a row"),
        ({"prompts": {"prompt": WORDS}}, "prompts must be rows, not columns"),
        ({"prompts": [{"prompt": None}]}, r"prompts\[0\]: the field prompt must be a text or .* got null"),
        ({"prompts": [{"question": "abc"}]}, r"prompts\[0\] has no column prompt; it has question"),
        ({"prompts": datasets.Dataset.from_dict({"question": WORDS})}, "prompts has no column prompt or .* question"),
        ({"prompts": datasets.DatasetDict(train=datasets.Dataset.from_dict({"prompt": WORDS}))}, "the splits train"),
        ({"reward": None}, "reward must be given"),
        ({"reward": []}, "reward must hold at least one"),
        ({"reward": 7}, "reward must be a function in TRL's signature"),
        ({"reward": ["rule:answer", "rule:answer"]}, "reward must hold each reward once, got rule:answer 2 times"),
        ({"reward": [brevity, share_of_a, brevity]}, "reward must hold each reward once, got brevity 2 times"),
        ({"reward": "rule:nothing"}, "there is no rule 'nothing'"),
        ({"reward": columns}, "needs 'wanted'"),
        ({"reward": [share_of_a, brevity], "reward_weights": [1, 2, 3]}, "reward_weights must have .* 2, got 3"),
        (
            {"prompts": None, "reward": "code", "recipe": "smollm", "reward_weights": [1]},
            "reward_weights must be left out",
        ),
        ({"reward": nan}, "nan returned nan for completion 0"),
        ({"reward": one_too_few}, "one_too_few returned 7 values, not 8"),
        ({"reward_weights": 2.0}, "reward_weights must be a list, one for each reward, got 2.0"),
        ({"constraint": Static}, r"constraint must be a name or an object, got the class: make one, Static\(\)"),
        ({"constraint": "none", "constraints": [{"name": "dynamic"}]}, "constraint is given twice, .* constraints"),
        ({"constraint": object()}, "object lacks anchor, apply, beta"),
        ({"algorithm": "grop"}, "algorithm.name"),
        ({"constraint": "static", "constraint.name": "none"}, "constraint.name is given twice"),
        ({"trainer.stepz": 1}, "unknown key 'trainer.stepz'; closest: trainer.steps"),
        ({"learning_rate": 1}, "unknown key 'learning_rate'; closest: trainer.learning_rate"),
        ({"reward": None, "reward_funcs": share_of_a}, "unknown argument 'reward_funcs': .* is reward here"),
        ({"rewards": share_of_a}, "unknown argument 'rewards'; closest: reward"),
        ({"trainer.learning_rate": share_of_a}, "trainer.learning_rate must be a number, a text, .* got function"),
        ({"trainer.learning_rate": "${rate}"}, "the knobs: Interpolation key 'rate' not found"),
        ({"trainer.steps": 0}, "trainer.steps: .* got 0"),
        ({"recipe": "nowhere"}, "unknown recipe 'nowhere'"),
        ({"recipe": 3}, "recipe must be a name, a file or a list of them, got 3"),
        ({"on_step": later}, "on_step must be a plain function"),
        ({"on_step": 7}, "on_step must be a function"),
        ({"resume": True}, "resume=True needs output_dir"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(small, tmp_path, monkeypatch, wrong, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(refinerl.UserError, match=said) as raised:
        refinerl.fine_tune(**{**small, **wrong})
    assert "\n" not in str(raised.value)
    assert not any(flag in str(raised.value) for flag in ("--resume", "--output-dir", "see --list"))


def test_a_folder_that_exists_is_refused_and_kept(small, tmp_path):
    folder = tmp_path / "run"
    refinerl.fine_tune(output_dir=folder, **small)
    before = (folder / "metrics.jsonl").read_text()
    with pytest.raises(
        refinerl.UserError, match="already holds a run: continue it with resume=True, or choose another"
    ):
        refinerl.fine_tune(output_dir=folder, **small)
    assert (folder / "metrics.jsonl").read_text() == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    with pytest.raises(refinerl.UserError, match="exists and is not empty: choose another output_dir"):
        refinerl.fine_tune(output_dir=tmp_path / "other", **small)


def test_a_first_step_that_fails_leaves_the_folder_free(small, tmp_path):
    """A notebook's cell runs again once its reward is mended."""
    folder = tmp_path / "run"
    with pytest.raises(refinerl.UserError, match="returned nan"):
        refinerl.fine_tune(output_dir=folder, **{**small, "reward": nan})
    with pytest.raises(ZeroDivisionError):
        refinerl.fine_tune(output_dir=folder, **{**small, "reward": lambda completions: 1 / 0})
    assert len(refinerl.fine_tune(output_dir=folder, **small).metrics) == 2


def test_folders_that_cannot_be(small, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(refinerl.UserError, match=r"cannot create .* is a file; choose another output_dir"):
        refinerl.fine_tune(output_dir=tmp_path / "file" / "run", **small)
    with pytest.raises(refinerl.UserError, match="output_dir must be a path, got 3"):
        refinerl.fine_tune(output_dir=3, **small)


def test_a_reward_that_fails_late_loses_no_step(small, tmp_path):
    calls = []

    def late(completions, **_):
        calls.append(1)
        return share_of_a(completions) if len(calls) < 3 else nan(completions)

    with pytest.raises(refinerl.UserError, match="returned nan"):
        refinerl.fine_tune(
            output_dir=tmp_path / "run", **{**small, "reward": late, "algorithm.dynamic_sampling": False}
        )
    assert (tmp_path / "run" / "checkpoint-1").is_dir()


def test_runs_without_a_folder_of_their_own_get_one_each(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = {refinerl.fine_tune(**{**small, "trainer.steps": 1}).folder for _ in range(2)}
    assert len(folders) == 2
    assert all(folder.parent == Path("runs") for folder in folders)


def test_a_run_is_shown_by_means_over_windows(tmp_path: Path):
    """Its repr compared the first and the last step, which have other prompts."""
    (tmp_path / "config.yaml").touch()
    rewards = [0.9, 0.1, 0.2, 0.5, 0.7, 0.0]
    rows = [json.dumps({"schema": 1, "step": n, "reward/mean": r}) + "\n" for n, r in enumerate(rewards, 1)]
    (tmp_path / "metrics.jsonl").write_text("".join(rows))
    assert repr(refinerl.Run(tmp_path)).endswith(": 6 steps, mean reward 0.4 in steps 1–3 → 0.4 in steps 4–6)")
    (tmp_path / "metrics.jsonl").write_text("".join(rows[:2]))
    assert repr(refinerl.Run(tmp_path)).endswith(": 2 steps, mean reward 0.5 in steps 1–2)")
    (tmp_path / "metrics.jsonl").unlink()
    assert repr(refinerl.Run(tmp_path)).endswith(": 0 steps)")
