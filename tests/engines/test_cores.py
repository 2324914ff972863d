"""Small models are written with on one thread, and the number of threads is restored."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from refinerl.engines.cores import few_threads
from refinerl.engines.models import load_model
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.engines.transformers import TransformersGenerator
from refinerl.records import Sampling
from tiny import tiny_model, tiny_tokenizer


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    assert torch.get_num_threads() == 3
    torch.set_num_threads(before)


def threads(model: nn.Module, tokens: int) -> int:
    with few_threads(model, tokens):
        return torch.get_num_threads()


def test_the_largest_product_decides() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(128, 256))  # 2¹⁵ weights
    assert threads(model, 32) == 1
    assert threads(model, 33) == 3
    assert threads(nn.Linear(256, 257), 1) == 3  # takes long to read, however few tokens there are
    assert threads(nn.Linear(256, 256), 1) == 1
    assert threads(nn.Embedding(8, 8), 1) == 3


def test_passes_elsewhere_are_left_alone() -> None:
    assert threads(nn.Linear(8, 8, device="meta"), 1) == 3


def test_they_are_restored_after_an_error() -> None:
    def fail() -> None:
        with few_threads(nn.Linear(8, 8), 1):
            assert torch.get_num_threads() == 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()


def test_generation() -> None:
    seen: set[int] = set()
    generator = TransformersGenerator(tiny_model(), ChatTokenizer(tiny_tokenizer()))
    generator.model.register_forward_pre_hook(lambda *_: seen.add(torch.get_num_threads()))
    request = Sampling(max_tokens=3, n=2, seeds=[[1, 2]])
    found = generator.generate([(5, 6, 7)], request)
    assert seen == {1}
    torch.set_num_threads(1)
    assert [c.token_ids for c in generator.generate([(5, 6, 7)], request)[0]] == [c.token_ids for c in found[0]]
    torch.set_num_threads(3)


def test_the_miniature_is_small() -> None:
    """Of whose passes the rule was measured: as many rows as are written at a time."""
    model = load_model("miniature")
    assert threads(model, 32) == 1
    assert threads(model, 2048) == 3
