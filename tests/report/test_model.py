"""The models of a run: in its checkpoints, as final/, exported, and evaluated by the run's folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.small import write_small
from refinerl import evaluate
from refinerl.benchmarks.model import own_type
from refinerl.engines.models import load_model
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.errors import UserError
from refinerl.report import command as report
from refinerl.report.model import find_model
from toy import Toy, metrics, timeless

HELD_OUT = ("evaluate.every=1", "evaluate.benchmark=task", "trainer.learning_rate=2e-2", "trainer.steps=4")
LORA = ("lora.rank=4", "trainer.learning_rate=2e-2", "constraint.accept=all", "trainer.steps=2", "checkpoint.every=1")


@pytest.fixture(scope="module")
def run(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a run whose best step is not the last, and whose final/ is the best."""
    folder = tmp_path_factory.mktemp("model") / "run"
    words = (*HELD_OUT, f"evaluate.path={toy.folder / 'held_out.jsonl'}", "checkpoint.final=best", "checkpoint.keep=9")
    assert toy.run(folder, *words, "checkpoint.every=1", reward="toy_rewards:by_column") == 0
    return folder


def best_of(run: Path) -> int:
    scores = [row["evaluate/reward"] for row in metrics(run) if row["step"]]
    return scores.index(max(scores)) + 1


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    return found


def trained(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Read what a resumed run goes on with."""
    network = torch.load(checkpoint / "policy" / "trainer.pt")["network"]
    return {name.removeprefix("model."): t for name, t in network.items() if name.startswith("model.")}


def equal(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_a_checkpoint_is_a_model(run: Path) -> None:
    for step in (1, 4):
        folder = run / f"checkpoint-{step}"
        assert equal(weights(folder), trained(folder))
        assert AutoTokenizer.from_pretrained(folder).chat_template
        assert ChatTokenizer.load(folder).eos_token_id == 2
    assert not equal(weights(run / "checkpoint-1"), weights(run / "checkpoint-4"))


def test_final_is_the_best(toy: Toy, run: Path, tmp_path: Path) -> None:
    best = best_of(run)
    assert best != 4  # else the test shows nothing
    assert equal(weights(run / "final"), trained(run / f"checkpoint-{best}"))
    assert find_model(run) == (run / "final", best)
    # Nothing else of the run is changed by it, and it goes on from its last step.
    last = tmp_path / "last"
    words = [*HELD_OUT, f"evaluate.path={toy.folder / 'held_out.jsonl'}", "trainer.schedule=constant"]
    assert toy.run(last, *words, "trainer.steps=5", reward="toy_rewards:by_column") == 0
    assert find_model(last) == (last / "final", 5)
    halves = tmp_path / "halves"
    assert toy.run(halves, *words, "checkpoint.final=best", reward="toy_rewards:by_column") == 0
    words += ["checkpoint.final=best", "trainer.steps=5"]
    assert toy.run(halves, *words, reward="toy_rewards:by_column", resume=True) == 0
    assert timeless(halves) == timeless(last)


def test_best_needs_evaluations(toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert toy.run(tmp_path / "run", "checkpoint.final=best") == 2
    assert "choose an evaluate.every from 1 to trainer.steps = 2, got 0" in capsys.readouterr().err


@pytest.mark.parametrize("step", ["last", "best", "1", None])
def test_the_model_of_a_step_is_exported(
    run: Path, tmp_path: Path, step: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    number = {"last": 4, "best": best_of(run), "1": 1, None: 4}[step]
    words = [] if step is None else ["--step", step]
    output = tmp_path / "model"
    assert report.main(["export", str(run), "--format", "model", *words, "--output", str(output)]) == 0
    assert capsys.readouterr().out == f"{output}: the model after step {number}, for from_pretrained\n"
    assert equal(weights(output), trained(run / f"checkpoint-{number}"))
    assert AutoTokenizer.from_pretrained(output).chat_template
    assert not [name for name in ("policy", "trainer_state.json", "rng-0.pt") if (output / name).exists()]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_is_not_exported(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*words: str, source: Path = run) -> str:
        assert report.main(["export", str(source), *words]) == 2
        return capsys.readouterr().err

    model = ("--format", "model")
    assert f"one of the checkpoints of {run} (1, 2, 3, 4), got 7" in refused(*model, "--step", "7")
    assert "is not the folder of a run" in refused(*model, source=tmp_path)
    (tmp_path / "mine").write_text("a thesis")
    assert "exists and is not empty" in refused(*model, "--output", str(tmp_path / "mine"))
    assert "--output . names no new folder" in refused(*model, "--output", ".")
    assert "--merge is for a LoRA run's adapter" in refused(*model, "--merge", "--output", str(tmp_path / "out"))
    assert "--step and --merge are for --format model" in refused("--format", "sft", "--step", "best")
    assert "--all is for refinements" in refused(*model, "--all")
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    state = copy / "checkpoint-4" / "trainer_state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "best_step": None}))
    assert "has no best step: no evaluation (evaluate.every) had a score" in refused(
        *model, "--step", "best", source=copy
    )
    (copy / "checkpoint-4" / "config.json").unlink()  # a checkpoint of an earlier version
    assert "checkpoints hold no model for from_pretrained: go on with" in refused(*model, source=copy)
    for folder in copy.glob("checkpoint-*"):
        shutil.rmtree(folder)
    assert "holds no model yet: no checkpoint was written" in refused(*model, source=copy)
    assert find_model(copy)[0] == copy / "final"


def test_a_run_that_has_not_ended_gives_its_last_checkpoint(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "final")
    assert find_model(tmp_path / "run") == (tmp_path / "run" / "checkpoint-4", 4)
    with pytest.raises(UserError, match="is not the folder of a run"):
        find_model(tmp_path)


def test_a_run_that_goes_on_beyond_its_final_model_gives_its_last_checkpoint(toy: Toy, tmp_path: Path, monkeypatch):
    """The evaluation of a run that was resumed and interrupted measured the model of its first end."""
    run = tmp_path / "run"
    words = ("trainer.schedule=constant", "checkpoint.every=1")
    assert toy.run(run, *words, "trainer.steps=1") == 0
    assert find_model(run) == (run / "final", 1)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("refinerl.run.checkpoint.export", killed)
    assert toy.run(run, *words, "trainer.steps=2", resume=True) == 130
    assert find_model(run) == (run / "checkpoint-2", 2)
    monkeypatch.undo()
    assert toy.run(run, *words, "trainer.steps=2", resume=True) == 0
    assert find_model(run) == (run / "final", 2)


def test_the_adapter_of_a_lora_run_is_in_its_checkpoints_and_merged_by_the_export(
    toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("peft", reason="peft is not installed")
    run = tmp_path / "run"
    assert toy.run(run, *LORA, "lora.merge=true") == 0
    checkpoint = run / "checkpoint-2"
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {path.name for path in checkpoint.iterdir()}
    assert not (checkpoint / "merged").exists()
    assert ChatTokenizer.load(checkpoint).eos_token_id == 2
    merged = weights(run / "final" / "merged")
    plain = load_model(str(toy.folder / "model")).state_dict()
    for folder in (checkpoint, run / "final"):  # as the evaluation loads it
        found = load_model(str(folder)).state_dict()
        assert found.keys() == plain.keys()
        assert all(torch.allclose(found[name], merged[name], atol=1e-6) for name in merged)
    assert not equal(merged, plain)
    assert "eos_token_id" in json.loads((checkpoint / "generation_config.json").read_text())
    assert own_type(str(checkpoint)) == "float32"
    words = ["--benchmark", "humaneval+", "--data", str(write_small(tmp_path / "data")), "--unverified"]
    assert evaluate.main([str(checkpoint), "--engine", "vllm", *words]) == 2
    assert "holds an adapter, which --engine vllm does not read" in capsys.readouterr().err
    # A run may start from it, with a critic, too.
    options = (f"model={checkpoint}", "algorithm.name=ppo", "trainer.steps=1", "constraint.name=none")
    assert toy.run(tmp_path / "on", *options) == 0
    assert equal(weights(tmp_path / "on" / "final"), trained(tmp_path / "on" / "checkpoint-1"))
    capsys.readouterr()
    assert report.main(["export", str(run), "--format", "model", "--merge"]) == 0
    assert capsys.readouterr().out == f"{run / 'model-2'}: the model after step 2, for from_pretrained\n"
    found = weights(run / "model-2")
    assert all(torch.allclose(found[name], merged[name], atol=1e-6) for name in merged)
    assert not list((run / "model-2").glob("adapter*"))
    assert report.main(["export", str(run), "--format", "model", "--output", str(tmp_path / "adapter")]) == 0
    assert "the adapter after step 2" in capsys.readouterr().out
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "adapter").num_parameters() > 0
