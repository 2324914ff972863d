"""Which engines a run gets, and what they are told."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import date
from pathlib import Path

import pytest

from launching import needs_vllm
from refinerl.config import Config
from refinerl.contracts import ALONE
from refinerl.engines.models import load_model
from refinerl.engines.networks import PolicyNetwork
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.engines.vllm import VllmGenerator
from refinerl.errors import UserError
from refinerl.loop.author import ModelAuthor
from refinerl.run.generators import load_refiner_tokenizer, make_generators
from tiny import write_tiny


def made(folder: Path, closing: ExitStack, **parts):
    network = PolicyNetwork(load_model(str(folder)))
    config = Config(model=str(folder), **parts)
    tokenizer = ChatTokenizer.load(folder)
    weights = network.model.named_parameters
    reference = load_model(str(folder))
    return make_generators(
        config, str(folder), tokenizer, network, weights, reference, ALONE, lambda _: None, closing, lambda _: None
    )


@pytest.mark.parametrize("device", ["cuda:1", "cuda:7"])
def test_vllm_with_another_gpu_than_the_first_is_refused_with_what_works(tiny_folder, device):
    with (
        ExitStack() as closing,
        pytest.raises(UserError, match=f"set CUDA_VISIBLE_DEVICES={device[-1]} in the environment, and device=cuda"),
    ):
        made(tiny_folder, closing, device=device, engines={"generator": "vllm"})


@pytest.mark.parametrize(
    ("source", "whose"), [("reference", "another"), ("policy", "the policy's"), ("model", "a third")]
)
def test_who_refines(tiny_folder, tmp_path, source, whose):
    other = write_tiny(tmp_path / "other", alphabet="abc ")
    refiner = {"source": source, **({"model": str(other)} if source == "model" else {})}
    with ExitStack() as closing:
        engine, author = made(tiny_folder, closing, refiner=refiner)
        assert isinstance(author, ModelAuthor)
        assert (author.generator is engine) == (whose == "the policy's")
        assert (author.redraft is None) == (whose != "a third")
        assert (author.generator.model.config.vocab_size == 8) == (whose == "a third")
        assert not author.adapter


def test_a_lora_policy_refines_with_its_adapter_where_it_is_asked_itself(tiny_folder):
    for source in ("reference", "policy"):
        with ExitStack() as closing:
            engine, author = made(tiny_folder, closing, refiner={"source": source}, lora={"rank": 2})
            assert author.generator is engine
            assert author.adapter == (source == "policy")


@pytest.mark.slow
@needs_vllm
@pytest.mark.parametrize(("vllm", "rows"), [({}, 256), ({"max_num_seqs": 3}, 3)])
def test_vllm_writes_as_many_rows_as_it_is_told_to_whatever_max_batch_is(tmp_path, vllm, rows):
    folder = write_tiny(tmp_path / "model", hidden=128, scale=0.1)
    with ExitStack() as closing:
        options = {"engines": {"generator": "vllm"}, "constraint": {"name": "none"}, "generation": {"max_batch": 2}}
        engine, author = made(folder, closing, vllm=vllm, **options)
        assert isinstance(author, ModelAuthor)
        assert author.generator is engine
        assert isinstance(engine, VllmGenerator)
        assert engine._llm.llm_engine.vllm_config.scheduler_config.max_num_seqs == rows


def test_the_template_of_another_refiner_prints_the_day_of_the_runs_start(tiny_folder):
    config = Config(
        model=str(tiny_folder),
        refiner={"model": str(tiny_folder), "chat_template": "{{ strftime_now('%d %b %Y') }}"},
        chat_template_date=date(2024, 2, 9),
    )
    _, tokenizer = load_refiner_tokenizer(config)
    assert tokenizer.decode(tokenizer.encode_chat([{"role": "user", "content": "x"}])) == "09 Feb 2024"
