"""The maker: a small base made as the shipped one is, and the shipped one's files."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from refinerl.data import MINIATURE
from refinerl.data.apps import load_problems
from refinerl.engines.models import load_model, resolve_model
from refinerl.errors import UserError
from refinerl.study.miniature import __main__ as command
from refinerl.study.miniature import making
from refinerl.study.miniature.gates import measure
from refinerl.study.miniature.making import make
from refinerl.study.miniature.training import Training

SMALL = Training(steps=50, batch=12, width=32, layers=1, heads=2)


def made(folder: Path, settings: Training = SMALL) -> tuple[bytes, list[str]]:
    said: list[str] = []
    make(folder, settings, said.append, train=4, held_out=2)
    return (folder / "base" / "model.safetensors").read_bytes(), said


def test_a_small_base_is_made_as_the_shipped_one_is(tmp_path):
    random_state, threads = torch.get_rng_state(), torch.get_num_threads()
    weights, said = made(tmp_path / "first")
    assert made(tmp_path / "again")[0] == weights  # the seed determines it
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.get_num_threads() == threads
    assert said[0] == "4 training problems, 2 held out"
    losses = [float(line.split("loss ")[1].split()[0]) for line in said[1:]]
    assert losses[-1] < 0.7 * math.log(load_model(str(tmp_path / "first" / "base")).config.vocab_size)
    names = {path.name for path in (tmp_path / "first" / "base").iterdir()}
    assert names == {path.name for path in (MINIATURE / "base").iterdir()}
    assert "--seed 0 --steps 50`" in (tmp_path / "first" / "base" / "README.md").read_text()


def test_an_existing_base_is_not_overwritten(tmp_path):
    (tmp_path / "base").mkdir()
    with pytest.raises(UserError, match="exists already"):
        make(tmp_path, SMALL)


def test_an_interrupted_make_leaves_no_base(tmp_path, monkeypatch, capsys):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(making.training, "train", interrupted)
    assert command.main(["--make", str(tmp_path), "--steps", "1"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert {path.name for path in tmp_path.iterdir()} == {"train.jsonl", "held_out.jsonl"}


def test_a_full_disk_leaves_no_base(tmp_path, monkeypatch, capsys):
    def full(*_: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(making.training, "train", lambda *_: None)
    monkeypatch.setattr(making.training, "save", full)
    assert command.main(["--make", str(tmp_path)]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--steps", "0"], "--steps must be at least 1"), (["--skill", "2"], "--skill must be between 0 and 1")],
)
def test_bad_input_is_a_sentence(tmp_path, capsys, words, message):
    assert command.main(["--make", str(tmp_path / "x"), *words]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert not (tmp_path / "x").exists()


def test_a_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert command.main(["--make", str(tmp_path / "file" / "x"), "--steps", "1"]) == 2
    assert capsys.readouterr().err.startswith("error: cannot write the miniature to")


def test_the_shipped_base_is_small_and_has_a_name():
    assert resolve_model("miniature") == str(MINIATURE / "base")
    assert (MINIATURE / "base" / "model.safetensors").stat().st_size < 1_500_000
    assert json.loads((MINIATURE / "base" / "config.json").read_text())["dtype"] == "bfloat16"
    assert load_model("miniature").dtype == torch.float32


@pytest.mark.slow
def test_the_shipped_base_has_the_rates_of_its_card():
    problems = load_problems(MINIATURE / "held_out.jsonl").problems[:40]
    found = measure(MINIATURE / "base", problems)
    assert 0.1 < found.sampled < 0.35
    assert found.corrected > 0.75
    assert found.corrected > found.fresh + 0.5
    assert found.copied > 0.9
