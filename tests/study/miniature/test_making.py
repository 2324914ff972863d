"""The maker: a small base made as the shipped one is, and the shipped one's files."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from refinerl.data import MINIATURE, MINIATURE_FAR
from refinerl.data.apps import load_problems
from refinerl.engines.models import load_model, resolve_model
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.errors import UserError
from refinerl.study.miniature import __main__ as command
from refinerl.study.miniature import corpus, making, training
from refinerl.study.miniature.gates import Gates, measure
from refinerl.study.miniature.making import make
from refinerl.study.miniature.operations import OF_DIFFICULTY, OPERATIONS, SHAPES, fill
from refinerl.study.miniature.problems import Exercise, program
from refinerl.study.miniature.training import Training
from refinerl.study.miniature.vocabulary import save_tokenizer

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


@pytest.mark.parametrize(("name", "folder"), [("miniature", MINIATURE), ("miniature-far", MINIATURE_FAR)])
def test_a_shipped_base_is_small_and_has_a_name(name: str, folder: Path):
    assert resolve_model(name) == str(folder / "base")
    assert (folder / "base" / "model.safetensors").stat().st_size < 1_500_000
    assert json.loads((folder / "base" / "config.json").read_text())["dtype"] == "bfloat16"
    assert load_model(name).dtype == torch.float32
    assert (folder / "base" / "tokenizer.json").read_bytes() == (MINIATURE / "base" / "tokenizer.json").read_bytes()


def test_the_command_makes_a_base_of_a_shape(tmp_path, monkeypatch, capsys):
    """Its errors are far, in the problems as in the corpus, and its card says so."""
    settings: list[Training] = []

    def small(folder: Path, asked: Training, say: object) -> Gates:
        settings.append(asked)
        return make(folder, replace(SMALL, shape=asked.shape, steps=1), lambda _: None, train=4, held_out=2)

    monkeypatch.setattr(making, "make", small)
    assert command.main(["--make", str(tmp_path), "--shape", "far"]) == 0
    assert settings == [Training(shape="far")]
    card = (tmp_path / "base" / "README.md").read_text()
    assert "--steps 1 --shape far`" in card
    assert "practically never samples" in card
    (first, *_) = (json.loads(line) for line in (tmp_path / "held_out.jsonl").read_text().splitlines())
    assert first == json.loads((MINIATURE_FAR / "held_out.jsonl").read_text().splitlines()[0])


@pytest.mark.parametrize("shape", SHAPES)
def test_the_corpus_has_errors_of_the_shape(tmp_path, shape):
    """A far error stands in rows that a base of that shape learns to write from, and in no others."""
    save_tokenizer(tmp_path)
    tokenizer = ChatTokenizer.load(tmp_path)
    rows = training._Rows(tokenizer, Training(shape=shape))
    texts = [tokenizer.decode(answer) for _, answer in (rows.writing() for _ in range(400))]
    far = sum("sorted(x)[:-1]" in text or "sorted(a)[:-1]" in text for text in texts)
    assert (far > 0) == (shape == "far")


@pytest.mark.slow
def test_the_shipped_base_has_the_rates_of_its_card():
    problems = load_problems(MINIATURE / "held_out.jsonl").problems[:40]
    found = measure(MINIATURE / "base", problems)
    assert 0.1 < found.sampled < 0.35
    assert found.corrected > 0.75
    assert found.corrected > found.fresh + 0.5
    assert found.copied > 0.9


@pytest.mark.slow
def test_the_far_base_corrects_what_it_does_not_sample():
    problems = [each for each in load_problems(MINIATURE_FAR / "held_out.jsonl").problems if each.difficulty == "hard"]
    found = measure(MINIATURE_FAR / "base", problems[:40])
    assert found.unsolved > 0.9
    assert found.fresh < 0.05
    assert found.corrected > 0.6


def rarity(name: str, folder: Path) -> float:
    """The base-10 logarithm of the probability that a base writes a right program for one hard operation."""
    tokenizer, model = ChatTokenizer.load(folder / "base"), load_model(str(folder / "base"))
    exercise = Exercise(((name, 3),))
    asked = tokenizer.encode(corpus.request(exercise))
    logprobs = []
    for idiom, values, value in itertools.product(OPERATIONS[name].right, corpus.LISTS, corpus.LOOPS):
        written = program([fill(idiom, 3, values, value)], values)
        if value != corpus.LOOPS[0] and written == program([fill(idiom, 3, values, corpus.LOOPS[0])], values):
            continue  # the idiom has no loop
        answer = [*tokenizer.encode(written), tokenizer.eos_token_id]
        with torch.no_grad():
            logits = model(torch.tensor([[*asked, *answer]])).logits[0, len(asked) - 1 : -1]
        logprobs.append(logits.log_softmax(-1)[range(len(answer)), answer].sum())
    return float(torch.stack(logprobs).logsumexp(0)) / math.log(10)


@pytest.mark.slow
def test_right_lines_are_rarer_in_the_far_base():
    near, far = ([rarity(name, folder) for name in OF_DIFFICULTY["hard"]] for folder in (MINIATURE, MINIATURE_FAR))
    assert -3.5 < statistics.median(near) < -2  # -2.7 where it was written, from -5.2 to -1.4
    assert statistics.median(far) < -5.5  # -6.5, from -12.2 to -3.5
    assert max(far) < -3
