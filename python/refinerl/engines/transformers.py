"""Generation in this process: our own sampling loop over a Hugging Face model.

`model.generate` has one random stream for a batch, so its samples depend on the rest of the batch. Here every sample
has a seed of its own and every token one uniform number, so a completion does not depend on how samples are batched (up
to floating point: a matrix product may round a row differently in a batch of another size).
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from refinerl.contracts import Finished
from refinerl.engines import requests
from refinerl.engines.attention import decoding
from refinerl.engines.cache_argument import cache_argument
from refinerl.engines.cores import few_threads
from refinerl.engines.guessing import Guessing
from refinerl.engines.kv_cache import DecodingCache, PlacedCache
from refinerl.engines.prefill import Prompts
from refinerl.engines.samples import Sample, close_gaps, next_noise
from refinerl.engines.sampling import draw, draw_several, uniforms
from refinerl.engines.slots import Slots
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.engines.verifying import Passes, fault
from refinerl.errors import UserError
from refinerl.records import Completion, Decoding, Sampling

AHEAD = 4
"""Share of the cache's tokens, as a divisor, that prompts may have which are computed ahead of their samples."""


@dataclass(frozen=True)
class Given:
    """A request."""

    prompts: Sequence[Sequence[int]]
    sampling: Sampling
    drafts: Sequence[Sequence[int]] | None
    finished: Finished | None


class TransformersGenerator:
    """A generator over a Hugging Face causal language model.

    Args:
        model: stays on its device and may be a trainer's own module; its mode and attention are restored after each
            call.
        tokenizer: for the ids that end a completion, and to decode.
        context_length: tokens of prompt and completion that fit; default: the model's.
        max_rows: completions written at a time.
        max_prefill_tokens: prompt tokens, padding included, that go through the model at a time.
        base: a context without the model's adapter, if it has one: `LoraNetwork.base`.
        home: the device of the weights while the generator is awake; `sleep` moves them to the CPU, so nothing else may
            use the model then. None: they stay where they are.
        guesses: the most tokens of a draft that are guessed at a time; 0: drafts are ignored.
        progress: called now and then with a number of finished tokens; over a call of `generate` these numbers add up
            to len(prompts) · n · max_tokens, because a completion that ends early counts in full.
        say: called once with what is slower, and why, if the model takes no masks of tokens and columns: drafts are
            ignored, or samples beyond `max_rows` wait for whole batches; None: a warning.

    Raises:
        UserError: the model has layers other than attention, whose state the cache cannot hold.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: ChatTokenizer,
        *,
        context_length: int | None = None,
        max_rows: int = 64,
        max_prefill_tokens: int = 4096,
        base: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
        home: str | None = None,
        guesses: int = 32,
        progress: Callable[[int], None] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.max_rows = max_rows
        self.max_prefill_tokens = max_prefill_tokens
        self.base = base
        self.progress = progress
        config = model.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
        if kinds:
            raise UserError(
                f"models of type {config.model_type!r} cannot generate in this process: they have layers other than "
                f"attention ({', '.join(sorted(kinds))})"
            )
        self._context_length: int = context_length or config.max_position_embeddings
        self._home = home
        self._guesses = guesses
        self._say = say
        self._fault: str | None = None
        self._probed = False
        self._told: set[str] = set()
        self.decoded = Decoding()

    @property
    def context_length(self) -> int:
        """Tokens of prompt and completion that fit."""
        return self._context_length

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        adapter: bool = True,
        drafts: Sequence[Sequence[int]] | None = None,
        finished: Finished | None = None,
    ) -> list[list[Completion]]:
        """Write `sampling.n` completions for each prompt, in order.

        Logprobs are those of the distribution that was sampled from, after temperature, top_k and top_p; for greedy
        sampling those at temperature 1. `finished` is called with each completion.

        With `drafts`, one for each prompt, a pass verifies several tokens. Each is drawn from the logits and the random
        number that it has without drafts, so the completions are the same, up to floating point as for batches. A draft
        may be empty, too long, or have tokens that the model lacks, which are not guessed.

        Raises:
            ValueError: a prompt is empty or leaves no room in the context, or the seeds do not match the request.
            FloatingPointError: the model's logits are not finite.
        """
        samples = self._requests(prompts, sampling)
        if not samples:
            return []
        # Longest first: prompts of similar length share a pass, and rows too long for the memory fail early.
        queue = sorted(samples, key=lambda s: -s.prompt_length)
        base = contextlib.nullcontext() if adapter else self.base()
        with decoding(self.model) as shared, base, few_threads(self.model, min(self.max_rows, len(queue))):
            given = Given(prompts, sampling, drafts if self._guesses else None, finished)
            if self._takes_masks(drafts is not None, len(queue)):
                self._write(queue, given, shared)
            else:
                for first in range(0, len(queue), self.max_rows):
                    self._write_padded(queue[first : first + self.max_rows], given, shared)
        return [[s.finished() for s in samples[i : i + sampling.n]] for i in range(0, len(samples), sampling.n)]

    def _requests(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Sample]:
        requests.check(prompts, sampling, self.context_length)
        samples = []
        for i, prompt in enumerate(prompts):
            limit = min(sampling.max_tokens, self.context_length - len(prompt))
            for j in range(sampling.n):
                noise = uniforms(sampling.seeds[i][j], limit).numpy() if sampling.temperature > 0 else None
                samples.append(Sample(i, j, len(prompt), limit, noise))
        return samples

    def _write(self, queue: list[Sample], given: Given, shared: bool) -> None:
        """Write all completions. A pass reads a token of each row, and verifies guessed ones where there are drafts."""
        config = self.model.config.get_text_config()
        capacity = max(s.prompt_length + s.limit for s in queue)
        cache = PlacedCache(config.num_hidden_layers, min(self.max_rows, len(queue)), capacity)
        slots = Slots(cache, self._prompts(queue, given, shared, cache.rows * capacity // AHEAD), queue)
        rows, passes = slots.rows, Passes(self.model, cache)
        guessing = None if given.drafts is None else Guessing(given.drafts, self._guesses, self.model)
        while rows:
            taken = [()] * len(rows) if guessing is None else guessing.guess(rows)
            fed = [
                [s.token_ids[-1] if s.token_ids else given.prompts[s.prompt][-1], *tokens]
                for s, tokens in zip(rows, taken, strict=True)
            ]
            logits = passes.next_logits(fed, [s.prompt_length - 1 + s.written for s in rows])
            lengths = [len(row) for row in fed]
            drawn = draw_several(logits, next_noise(rows, lengths), lengths, given.sampling, self.max_rows)
            written, right = [], []
            for s, tokens, (found, logprobs) in zip(rows, taken, drawn, strict=True):
                before = s.written
                right.append(s.accept(tokens, found, logprobs, self.tokenizer, given.sampling.stop))
                written.append(s.written - before)
            if guessing is not None:
                guessing.learn(written, right)
            self.decoded += Decoding(sum(written), 1, sum(map(len, taken)), sum(right))
            self._report(rows, written, given)
            slots.turn()

    def _write_padded(self, rows: list[Sample], given: Given, shared: bool) -> None:
        """Write the completions of one batch with masks that the model makes; `rows` gets shorter as they finish."""
        device, prompts, sampling = self.model.device, given.prompts, given.sampling
        # The last prompt token is left to the first step, so that this step is like all others.
        length = max(s.prompt_length for s in rows) - 1
        layers = self.model.config.get_text_config().num_hidden_layers
        cache = DecodingCache(layers, len(rows), length, length + max(s.limit for s in rows))
        self._prompts(rows, given, shared, 0).fill(cache, range(len(rows)), rows)
        last = torch.tensor([prompts[s.prompt][-1] for s in rows], device=device)
        positions = torch.tensor([s.prompt_length - 1 for s in rows], device=device)
        columns = torch.arange(cache.capacity, device=device)
        visible = columns >= cache.length - positions[:, None]
        while rows:
            out = self.model(
                input_ids=last[:, None],
                attention_mask=visible[:, cache.start : cache.length + 1],
                position_ids=positions[:, None],
                **cache_argument(self.model, cache),
                use_cache=True,
                logits_to_keep=1,
            )
            cache.advance()
            self.decoded += Decoding(tokens=len(rows), passes=1)
            last, logprobs = draw(out.logits[:, -1], next_noise(rows, [1] * len(rows)), sampling)
            positions += 1
            for s, token, logprob in zip(rows, last.tolist(), logprobs.tolist(), strict=True):
                s.add(token, logprob, self.tokenizer, sampling.stop)
            self._report(rows, [1] * len(rows), given)
            if any(s.finish_reason for s in rows):
                kept = close_gaps(rows, cache)
                last, positions, visible = last[kept], positions[kept], visible[kept]
                if rows:
                    cache.start = cache.length - int(positions.max())

    def _prompts(self, queue: Sequence[Sample], given: Given, shared: bool, ahead: int) -> Prompts:
        padding, most = self.tokenizer.pad_token_id, self.max_prefill_tokens
        return Prompts(self.model, given.prompts, queue, padding, most, ahead=ahead, shared=shared)

    def _takes_masks(self, drafts: bool, samples: int) -> bool:
        """Return True if the model takes masks of tokens and columns; else say once what is slower, and why."""
        if not self._probed:
            self._fault, self._probed = fault(self.model), True
        if self._fault is not None and drafts and self._guesses:
            self._tell(
                f"drafts are ignored, so refinements take longer: the refiner cannot verify them, because {self._fault}"
            )
        elif self._fault is not None and samples > self.max_rows:
            self._tell(
                f"samples are written in batches of {self.max_rows}, each until its last one ends, so generation takes "
                f"longer: the model does not take rows at different places, because {self._fault}"
            )
        return self._fault is None

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            (warnings.warn if self._say is None else self._say)(text)

    def _report(self, rows: Sequence[Sample], written: Sequence[int], given: Given) -> None:
        """Report a pass that wrote these numbers of tokens; `rows` still has the samples that it finished."""
        done = [s for s in rows if s.finish_reason]
        if self.progress is not None:
            self.progress(sum(written) + sum(given.sampling.max_tokens - s.written for s in done))
        if given.finished is not None:
            for s in done:
                given.finished(s.prompt, s.number, s.finished())

    @torch.no_grad()
    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Copy the trainer's weights by name; tensors that share memory with the trainer's are left alone.

        Raises:
            ValueError: a name or shape that the model does not have.
        """
        mine = self.model.state_dict()
        for name, tensor in weights:
            if name not in mine or mine[name].shape != tensor.shape:
                raise ValueError(f"weights must fit the generator's model, got {name} of shape {tuple(tensor.shape)}")
            if mine[name].data_ptr() != tensor.data_ptr():
                mine[name].copy_(tensor)

    def sleep(self) -> None:
        """Free device memory: move the weights to the CPU if they have a `home`."""
        if self._home is not None:
            self.model.to("cpu")

    def wake(self) -> None:
        """Move the weights back to their `home`."""
        if self._home is not None:
            self.model.to(self._home)
