"""Which engines write: the policy's and the refiner's. A part of the wiring."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack

from torch import Tensor
from transformers import PreTrainedModel

from refinerl.config import Config
from refinerl.contracts import ALONE, Clock, Generator, Task, World
from refinerl.engines.lora import LoraNetwork
from refinerl.engines.networks import PolicyNetwork
from refinerl.engines.transformers import TransformersGenerator
from refinerl.engines.vllm import VllmGenerator
from refinerl.errors import UserError
from refinerl.loop.refiner import Refiner
from refinerl.records import Sampling
from refinerl.run.trainers import device_of, home_of_reference
from refinerl.tokenization import ChatTokenizer


def make_generators(
    config: Config,
    folder: str,
    tokenizer: ChatTokenizer,
    policy: PolicyNetwork,
    weights: Callable[[], Iterable[tuple[str, Tensor]]],
    reference: PreTrainedModel | None,
    world: World,
    progress: Callable[[int], None],
    closing: ExitStack,
) -> tuple[Generator, Generator]:
    """The policy's engine and the refiner's; the same one twice for a LoRA policy, where `reference` is None.

    Args:
        folder: the model, as `from_pretrained` reads it.
        weights: the trainer's, of the policy.
        closing: ends what holds memory of its own.

    Raises:
        UserError: the engine is not installed, or cannot be had so.
    """
    if config.engines.generator == "vllm":
        return _vllm(config, folder, tokenizer, weights, world, progress, closing)
    rows = config.generation.max_batch
    # On the trainers' own modules, so that handing over weights is free.
    if isinstance(policy, LoraNetwork):
        both = TransformersGenerator(policy.model, tokenizer, max_rows=rows, base=policy.base, progress=progress)
        return both, both
    generator = TransformersGenerator(policy.model, tokenizer, max_rows=rows, progress=progress)
    if reference is None:
        return generator, generator
    home = home_of_reference(config)
    return generator, TransformersGenerator(reference, tokenizer, max_rows=rows, home=home, progress=progress)


def make_refiner(
    config: Config,
    generator: Generator,
    task: Task,
    writer: ChatTokenizer,
    clock: Clock,
    *,
    policy: ChatTokenizer | None = None,
    context: int | None = None,
    world: World = ALONE,
) -> Refiner:
    """The refiner of a run or of an audition.

    Args:
        generator: writes the refinements.
        task: gives the refiner's prompts and the rewards.
        writer: the tokenizer of the model that writes.
        clock: times its phases.
        policy: the policy's tokenizer, whose tokens ỹ becomes; None: `writer`.
        context: tokens that the policy reads at most; None: the generator's.
        world: the ranks that share the work.
    """
    tokenizer = policy or writer
    return Refiner(
        generator=generator,
        task=task,
        sampling=Sampling(config.refiner.max_tokens, config.refiner.temperature),
        encode_chat=writer.encode_chat,
        encode=tokenizer.encode,
        decode=tokenizer.decode,
        eos_token_id=tokenizer.eos_token_id,
        special_token_ids=tokenizer.special_token_ids,
        context_length=context or generator.context_length,
        accept=config.accept,
        accept_truncated=config.accept_truncated,
        where=config.refiner.where,
        budget=config.refiner.budget,
        seed=config.seed,
        clock=clock,
        world=world,
    )


def _vllm(
    config: Config,
    folder: str,
    tokenizer: ChatTokenizer,
    weights: Callable[[], Iterable[tuple[str, Tensor]]],
    world: World,
    progress: Callable[[int], None],
    closing: ExitStack,
) -> tuple[Generator, Generator]:
    v, lora = config.vllm, config.lora
    if config.device.startswith("cuda:") and config.device != "cuda:0" and world.size == 1:
        index = config.device.removeprefix("cuda:")
        raise UserError(
            f"device={config.device} with engines.generator=vllm: in one process vLLM takes the first GPU that it "
            f"sees; set CUDA_VISIBLE_DEVICES={index} in the environment, and device=cuda"
        )

    on_host = device_of(config.device) == "cpu"  # where vLLM has a cache of a fixed size

    def engine(
        share: float, *, adapter: tuple[int, int] | None = None, frozen: bool = False, speculate: int = 0
    ) -> VllmGenerator:
        made = VllmGenerator(
            folder,
            tokenizer,
            dtype=config.dtype,
            context_length=v.max_model_len,
            max_rows=v.max_num_seqs,
            memory=None if on_host else share,
            tensor_parallel=v.tensor_parallel,
            prefix_caching=v.prefix_caching,
            eager=v.enforce_eager,
            sleeps=v.sleep,
            frozen=frozen,
            source=weights,
            speculate=speculate,
            adapter=adapter,
            progress=progress,
        )
        closing.callback(made.close)
        return made

    if lora.rank:
        both = engine(v.memory_policy, adapter=(lora.rank, lora.alpha))
        return both, both
    generator = engine(v.memory_policy)
    if not config.refines:
        return generator, generator  # nobody refines
    return generator, engine(v.memory_refiner, frozen=True, speculate=v.speculate)
