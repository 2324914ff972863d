"""Which engines a run gets, and what they are told."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from launching import needs_vllm
from refinerl.config import Config
from refinerl.contracts import ALONE
from refinerl.engines.models import load_model
from refinerl.engines.networks import PolicyNetwork
from refinerl.engines.vllm import VllmGenerator
from refinerl.errors import UserError
from refinerl.run.generators import make_generators
from refinerl.tokenization import ChatTokenizer
from tiny import write_tiny


def made(folder: Path, closing: ExitStack, **parts):
    network = PolicyNetwork(load_model(str(folder)))
    config = Config(model=str(folder), **parts)
    tokenizer = ChatTokenizer.load(folder)
    weights = network.model.named_parameters
    return make_generators(config, str(folder), tokenizer, network, weights, None, ALONE, lambda _: None, closing)


@pytest.mark.parametrize("device", ["cuda:1", "cuda:7"])
def test_vllm_with_another_gpu_than_the_first_is_refused_with_what_works(tiny_folder, device):
    with (
        ExitStack() as closing,
        pytest.raises(UserError, match=f"set CUDA_VISIBLE_DEVICES={device[-1]} in the environment, and device=cuda"),
    ):
        made(tiny_folder, closing, device=device, engines={"generator": "vllm"})


@pytest.mark.slow
@needs_vllm
@pytest.mark.parametrize(("vllm", "rows"), [({}, 256), ({"max_num_seqs": 3}, 3)])
def test_vllm_writes_as_many_rows_as_it_is_told_to_whatever_max_batch_is(tmp_path, vllm, rows):
    folder = write_tiny(tmp_path / "model", hidden=128, scale=0.1)
    with ExitStack() as closing:
        options = {"engines": {"generator": "vllm"}, "constraint": {"name": "none"}, "generation": {"max_batch": 2}}
        engine, refiner = made(folder, closing, vllm=vllm, **options)
        assert engine is refiner
        assert isinstance(engine, VllmGenerator)
        assert engine._llm.llm_engine.vllm_config.scheduler_config.max_num_seqs == rows
