"""Fixtures that all tests share."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Read when torch is imported, here and in the processes of the tests, whose results are compared bit for bit.
    # OpenMP threads that share a core wait for each other many times over.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import devices
from tiny import write_tiny
from toy import Toy


def pytest_configure(config: pytest.Config) -> None:
    """Hides the GPU, before a test file asks whether there is one."""
    if not devices.only_gpu(config.option.markexpr):
        devices.hide(os.environ)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips what needs a GPU where there is none, or where it is hidden."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip(devices.ABSENT)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny Llama with tied embeddings and a byte-level chat tokenizer. Read only."""
    return write_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_untied_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a language-model head of its own. Read only."""
    return write_tiny(tmp_path_factory.mktemp("tiny-untied"), tied=False)


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """A model of nine characters and prompts for it: runs of the real command in about a second."""
    folder = tmp_path_factory.mktemp("toy")
    write_tiny(folder / "model", alphabet="abcdefgh ", scale=0.1)
    words = ["abc", "bcd", "cde", "fgh", "gab", "hhh", "dad", "bed"]
    rows = [{"prompt": [{"role": "user", "content": word}], "wanted": word[0]} for word in words]
    for name in ("prompts.jsonl", "held_out.jsonl"):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Toy(folder)


@pytest.fixture(scope="session")
def wide_toy(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """The toy with a model that vLLM can serve."""
    folder = tmp_path_factory.mktemp("wide-toy")
    write_tiny(folder / "model", alphabet="abcdefgh ", hidden=128, scale=0.05)
    for name in ("prompts.jsonl", "held_out.jsonl"):
        (folder / name).write_text((toy.folder / name).read_text())
    return Toy(folder)


@pytest.fixture(scope="session")
def real_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder for REFINERL_CACHE in which the bundled model is converted once for all slow tests."""
    return tmp_path_factory.mktemp("cache")
