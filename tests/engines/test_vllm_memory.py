"""Engines that sleep and wake, with vLLM's own worker and allocator; a recorder in the driver's place tells all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import card as recorder
from card import Card
from launching import needs_vllm
from refinerl.engines.models import load_model
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.engines.transformers import TransformersGenerator
from refinerl.engines.vllm import VllmGenerator
from refinerl.errors import UserError
from refinerl.records import Sampling
from tiny import tiny_model, write_tiny
from toy import metrics

pytestmark = [
    pytest.mark.slow,
    needs_vllm,
]

WIDE = {"hidden": 128, "scale": 0.1}
GREEDY = Sampling(max_tokens=12, temperature=0)
PROMPTS = [(5, 6, 7), (8, 9)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("wide"), **WIDE)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> ChatTokenizer:
    return ChatTokenizer.load(folder)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[Card]:
    """vLLM's worker believes in a GPU; products read the parameters, not packed copies of them."""
    from refinerl.engines.vllm import arguments, process

    process.import_vllm()
    from vllm import _custom_ops, device_allocator
    from vllm.model_executor.layers import utils
    from vllm.platforms import current_platform
    from vllm.v1.worker import gpu_worker
    from vllm.v1.worker.cpu import shm  # noqa: F401  # its import replaces torch.accelerator.get_memory_info, set below

    class Gpu(type(current_platform)):
        def is_cpu(self) -> bool:
            return False

        def is_cuda_alike(self) -> bool:
            return True

    monkeypatch.setattr(_custom_ops, "_supports_onednn", False)
    monkeypatch.setattr(utils, "check_cpu_sgl_kernel", lambda *_: False)
    monkeypatch.setattr(type(current_platform), "is_sleep_mode_available", lambda _: True)
    monkeypatch.setattr(device_allocator, "current_platform", Gpu())
    monkeypatch.setattr(gpu_worker, "current_platform", Gpu())
    monkeypatch.setattr(torch.cuda.memory, "get_allocator_backend", lambda: "another")
    monkeypatch.setattr(torch.accelerator, "get_memory_info", lambda *_: (0, 0))
    monkeypatch.setattr(arguments, "WORKER", "host_workers.Ours")
    monkeypatch.setattr(arguments, "CPU_CACHE", 2**22)
    with recorder.put_in() as card:
        yield card


@pytest.fixture
def make(card: Card, folder: Path, tokenizer: ChatTokenizer) -> Iterator[Callable[..., VllmGenerator]]:
    """Makes engines, and closes them in the opposite order."""
    made: list[VllmGenerator] = []

    def make(**options) -> VllmGenerator:
        made.append(VllmGenerator(str(folder), tokenizer, **options))
        return made[-1]

    yield make
    for engine in reversed(made):
        engine.close()


def written(engine, **options) -> list[tuple[int, ...]]:
    return [group[0].token_ids for group in engine.generate(PROMPTS, GREEDY, **options)]


def of_transformers(model, tokenizer: ChatTokenizer) -> list[tuple[int, ...]]:
    return written(TransformersGenerator(model, tokenizer))


def named(model) -> list[tuple[str, torch.Tensor]]:
    return [(name, p.detach()) for name, p in model.named_parameters()]


@pytest.fixture
def theirs(card: Card, monkeypatch: pytest.MonkeyPatch) -> Card:
    """The same card under vLLM's own worker."""
    from refinerl.engines.vllm import arguments

    monkeypatch.setattr(arguments, "WORKER", "host_workers.Theirs")
    return card


def weights(model: torch.nn.Module) -> int:
    """Bytes on the card, where vLLM pads the vocabulary to a multiple of 64."""
    table = model.get_input_embeddings().weight
    return sum(p.nbytes for p in model.parameters()) + -table.shape[0] % 64 * table[0].nbytes


ROTARY = 512 * 32 * 4
"""Bytes of the tiny model's table of rotations, the one thing that its layers keep beside their parameters."""


def test_vllm_itself_has_one_engine_for_a_process_and_unmaps_it_twice(theirs, make):
    """Why there is a worker of ours; should this fail, vLLM may have learned it."""
    engine = make()
    assert torch.accelerator.get_memory_info() == (0, 0)  # not this machine's, which other processes change
    with pytest.raises(UserError, match="CuMem allocator can only be used for one instance per process"):
        make()
    engine.close()
    assert "unmapped twice: weights" in theirs.faults


def test_a_step_moves_each_weight_once_and_nothing_to_the_host(card, make, folder, tokenizer):
    """The policy's weights come from the trainer and the refiner's from the host; neither wakes with the other."""
    policy, refiner = make(), make(frozen=True)
    original, trained = load_model(str(folder)), tiny_model(seed=1, **WIDE)
    size = weights(original)
    mine, refiners = dict.fromkeys(e.tag for e in card.events if e.tag.startswith("weights"))
    assert card.mapped() == 0
    made = card.moved()
    assert made["to host", mine] == ROTARY  # once: of the policy's engine what `load` does not bring
    assert made["to host", refiners] == size + ROTARY  # once and for good: the refiner does not learn

    for model in (trained, original):
        since = len(card.events)
        with card.watching_loads():
            policy.load(named(model))
        assert card.mapped("kv_cache") == 0  # the trainer still needs the room
        policy.wake()
        assert card.mapped(refiners) == 0
        assert written(policy) == of_transformers(model, tokenizer)
        policy.sleep()
        assert card.mapped() == 0

        refiner.wake()
        assert card.mapped(mine) == 0
        assert written(refiner) == of_transformers(original, tokenizer)
        refiner.sleep()
        assert card.mapped() == 0

        moved = {what: size for what, size in card.moved(since).items() if what[0] not in ("map", "unmap")}
        assert moved == {("load", mine): size, ("to card", mine): ROTARY, ("to card", refiners): size + ROTARY}
    assert not card.faults


def test_discarded_weights_are_not_written_with(make, folder, tokenizer):
    policy = make()
    with pytest.raises(RuntimeError, match="weights were discarded at sleep, and load has brought no others"):
        policy.generate(PROMPTS, GREEDY)
    whole = named(load_model(str(folder)))
    with pytest.raises(ValueError, match=r"1 are missing, such as model\.norm\.weight"):
        policy.load(pair for pair in whole if pair[0] != "model.norm.weight")
    with pytest.raises(RuntimeError, match="weights were discarded"):
        policy.generate(PROMPTS, GREEDY)
    policy.load(whole)
    policy.sleep()  # at once: the weights go, though the cache was asleep
    with pytest.raises(RuntimeError, match="weights were discarded"):
        policy.wake()


def test_an_engine_asks_its_source_for_weights_that_load_did_not_bring(card, make, tokenizer):
    """An evaluation after a step, then the next step."""
    trained = tiny_model(seed=2, **WIDE)
    policy = make(source=lambda: named(trained))
    for _ in range(2):
        assert written(policy) == of_transformers(trained, tokenizer)
        policy.sleep()
    since = len(card.events)
    with card.watching_loads():
        policy.load(named(trained))
        policy.wake()
    assert sum(e.size for e in card.events[since:] if e.kind == "load") == weights(trained)  # not asked once more


def test_an_adapter_survives_sleep_and_the_weights_below_it_move_to_the_host_once(card, make, folder, tokenizer):
    pytest.importorskip("peft", reason="peft is not installed")
    from refinerl.engines.lora import LoraNetwork

    network = LoraNetwork(load_model(str(folder)), rank=4, alpha=8)
    with torch.no_grad():
        for name, p in network.model.named_parameters():
            if "lora_B" in name:
                p.normal_(generator=torch.Generator().manual_seed(0))
    adapter = [(name, p.detach()) for name, p in network.model.named_parameters() if p.requires_grad]
    tuned = written(TransformersGenerator(network.model, tokenizer, base=network.base))
    base = of_transformers(load_model(str(folder)), tokenizer)
    assert tuned != base
    both = make(adapter=(4, 8))
    first = sum(e.size for e in card.events if e.kind == "to host")
    assert written(both, adapter=False) == base
    both.load(adapter)
    for _ in range(2):
        assert written(both) == tuned
        both.sleep()
        since = len(card.events)
        assert written(both) == tuned
        assert written(both, adapter=False) == base
        both.sleep()
        again = sum(e.size for e in card.events[since:] if e.kind == "to host")
        assert again == first - weights(load_model(str(folder)))  # the adapter's slots and what chooses among them
    assert not card.faults


def test_an_engine_that_is_closed_takes_its_own_memory_and_unmaps_it_once(card, make, folder, tokenizer):
    """The second while both sleep, the first while it is awake."""
    first, second = make(frozen=True), make(frozen=True)
    tags = {segment.tag for segment in card.segments.values()}
    second.close()
    assert len({segment.tag for segment in card.segments.values()}) == len(tags) - 2
    assert written(first) == of_transformers(load_model(str(folder)), tokenizer)
    first.close()
    assert not card.segments
    assert not card.faults


def test_a_whole_run(card, wide_toy, tmp_path):
    """The command itself: the engines write with the trainer's and the folder's weights, and close cleanly."""
    options = ("engines.generator=vllm", "constraint.accept=all", "trainer.learning_rate=1e-2", "trainer.steps=2")
    assert wide_toy.run(tmp_path / "run", *options, "algorithm.dynamic_sampling=false") == 0
    for row in metrics(tmp_path / "run"):
        assert row["update/steps"] == 1
        assert 0 <= row["policy/mismatch_kl"] < 1e-6  # the engine has the trainer's weights in every step
        assert row["refiner/accepted_fraction"] > 0
    kinds = [e.kind for e in card.events if e.kind in ("to host", "to card")]
    assert "to host" not in kinds[kinds.index("to card") :]  # nothing after the engines were made
    assert not card.segments
    assert not card.faults
