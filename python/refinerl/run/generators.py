"""The engines that generate for the policy and the refiner. A part of the wiring."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial

from torch import Tensor
from transformers import PreTrainedModel

from refinerl.config import Config
from refinerl.contracts import ALONE, Author, Clock, Generator, Task, World
from refinerl.engines.lora import LoraNetwork
from refinerl.engines.models import load_model, resolve_model
from refinerl.engines.networks import PolicyNetwork
from refinerl.engines.server import Limits, ServerAuthor
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.engines.transformers import TransformersGenerator
from refinerl.engines.vllm import VllmGenerator
from refinerl.errors import UserError
from refinerl.loop.author import ModelAuthor
from refinerl.loop.refiner import Refiner
from refinerl.records import Sampling
from refinerl.run.trainers import device_of, home_of_reference


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
    say: Callable[[str], None],
) -> tuple[Generator, Author]:
    """Make the policy's engine, and the author of the refinements.

    Args:
        folder: the model, a name or folder for `from_pretrained`.
        weights: gives the policy's weights from its trainer.
        reference: None if the reference is the policy without its adapter.
        closing: closes engines that hold memory of their own.
        say: prints a line.

    Raises:
        UserError: the engine is not installed, or cannot be used in this way.
    """
    if config.refiner.drafts and config.no_drafts is not None:
        say(f"refiner.drafts is off: {config.no_drafts}")
    theirs, place = tokenizer, folder
    if config.refines and config.refiner.source == "model":
        place, theirs = load_refiner_tokenizer(config)
    if config.engines.generator == "vllm":
        generator, writer = _vllm(config, folder, tokenizer, weights, world, progress, closing, place, theirs)
    else:
        generator, writer = _transformers(config, tokenizer, policy, reference, progress, say, place, theirs)
    if config.refines and config.refiner.source == "server":
        return generator, make_server(config, tokenizer, progress, say)
    by_policy = config.refiner.source == "policy"
    encode = tokenizer.encode_request if theirs is tokenizer else theirs.encode_chat
    adapter = by_policy and config.lora.rank > 0
    return generator, ModelAuthor(writer, encode, adapter=adapter, redraft=translation(tokenizer, theirs))


def translation(ours: ChatTokenizer, theirs: ChatTokenizer) -> Callable[[Sequence[int]], Sequence[int]] | None:
    """Return the translation of drafts from one vocabulary into another; None for one tokenizer."""
    return None if theirs is ours else partial(_translate, ours, theirs)


def _translate(ours: ChatTokenizer, theirs: ChatTokenizer, tokens: Sequence[int]) -> tuple[int, ...]:
    """Return the tokens of another vocabulary for the same text, with its EOS if there is one."""
    ended = bool(tokens) and tokens[-1] in ours.eos_token_ids
    return (*theirs.encode(ours.decode(tokens)), *([theirs.eos_token_id] if ended else []))


def load_refiner_tokenizer(config: Config) -> tuple[str, ChatTokenizer]:
    """Return the folder of refiner.model, and its tokenizer.

    Raises:
        UserError: the model or its tokenizer cannot be loaded.
    """
    place = resolve_model(config.refiner.model or "")
    date = config.chat_template_date
    return place, ChatTokenizer.load(place, chat_template=config.refiner.chat_template, date=date)


def make_server(
    config: Config, tokenizer: ChatTokenizer, progress: Callable[[int], None], say: Callable[[str], None]
) -> ServerAuthor:
    """Connect to the server at refiner.url. `tokenizer` counts the tokens of replies if the server does not.

    Raises:
        UserError: the server cannot be used.
    """
    r = config.refiner
    return ServerAuthor(
        r.url or "",
        model=r.model,
        key_variable=r.api_key_env,
        count=lambda text: len(tokenizer.encode(text)),
        limits=Limits(r.timeout, r.retries, r.concurrency, r.max_failures),
        progress=progress,
        say=say,
    )


def _transformers(
    config: Config,
    tokenizer: ChatTokenizer,
    policy: PolicyNetwork,
    reference: PreTrainedModel | None,
    progress: Callable[[int], None],
    say: Callable[[str], None],
    place: str,
    theirs: ChatTokenizer,
) -> tuple[Generator, Generator]:
    """Make the engines on the trainers' own modules, so that no weights have to be copied."""
    rows, home = config.generation.max_batch, home_of_reference(config)
    base = policy.base if isinstance(policy, LoraNetwork) else nullcontext
    make = partial(TransformersGenerator, max_rows=rows, guesses=config.drafts, progress=progress, say=say)
    generator = make(policy.model, tokenizer, base=base)
    if not config.refiner_apart:
        return generator, generator
    model, device = reference, device_of(config.device)
    if config.refiner.source == "model":
        model = load_model(place, dtype=config.dtype).to("cpu" if home else device)
    assert model is not None  # a separate refiner is one of the two
    return generator, make(model, theirs, home=home)


def make_refiner(
    config: Config,
    author: Author,
    task: Task,
    tokenizer: ChatTokenizer,
    clock: Clock,
    *,
    context: int,
    world: World = ALONE,
    expect: Callable[[int], None] = lambda _: None,
) -> Refiner:
    """Make the refiner of a run or of an audition.

    Args:
        author: writes the refinements.
        task: makes the refiner's prompts and scores.
        tokenizer: the policy's, with which ỹ is tokenized.
        clock: times the phases.
        context: the policy's context in tokens.
        world: the ranks that share the work.
        expect: takes the tokens to generate, for the progress of the phase.

    Raises:
        UserError: refiner.max_tokens leaves no room for a prompt.
    """
    most = config.refiner.max_tokens
    if isinstance(author, ModelAuthor) and most >= (reads := author.generator.context_length):
        raise UserError(
            f"refiner.max_tokens = {most} leaves no room for a prompt in the refiner's context of {reads} tokens: "
            f"choose at most refiner.max_tokens={reads // 2}"
        )
    return Refiner(
        author=author,
        task=task,
        sampling=Sampling(config.refiner.max_tokens, config.refiner.temperature, n=config.refiner.samples),
        answering=Sampling(config.generation.max_tokens, config.generation.temperature, stop=config.generation.stop),
        encode=tokenizer.encode,
        decode=tokenizer.decode,
        eos_token_id=tokenizer.eos_token_id,
        special_token_ids=tokenizer.special_token_ids,
        context_length=context,
        accept=config.accept,
        accept_truncated=config.accept_truncated,
        where=config.refiner.where,
        budget=config.refiner.budget,
        seed=config.seed,
        clock=clock,
        world=world,
        expect=expect,
    )


def _vllm(
    config: Config,
    folder: str,
    tokenizer: ChatTokenizer,
    weights: Callable[[], Iterable[tuple[str, Tensor]]],
    world: World,
    progress: Callable[[int], None],
    closing: ExitStack,
    place: str,
    theirs: ChatTokenizer,
) -> tuple[Generator, Generator]:
    v, lora = config.vllm, config.lora
    if config.device.startswith("cuda:") and config.device != "cuda:0" and world.size == 1:
        index = config.device.removeprefix("cuda:")
        raise UserError(
            f"device={config.device} with engines.generator=vllm: in one process vLLM takes the first GPU that it "
            f"sees; set CUDA_VISIBLE_DEVICES={index} in the environment, and device=cuda"
        )

    on_host = device_of(config.device) == "cpu"  # there the size of vLLM's cache is fixed

    def engine(
        share: float,
        model: str = folder,
        reads: ChatTokenizer = tokenizer,
        *,
        adapter: tuple[int, int] | None = None,
        frozen: bool = False,
        guesses: int = 0,
    ) -> VllmGenerator:
        made = VllmGenerator(
            model,
            reads,
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
            guesses=guesses,
            adapter=adapter,
            progress=progress,
        )
        closing.callback(made.close)
        return made

    generator = engine(v.memory_policy, adapter=(lora.rank, lora.alpha) if lora.rank else None)
    if not config.refiner_apart:
        return generator, generator
    return generator, engine(v.memory_refiner, place, theirs, frozen=True, guesses=config.drafts)
