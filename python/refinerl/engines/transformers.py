"""Generation in this process: our own sampling loop over a Hugging Face model.

`model.generate` has one random stream for a batch, so its samples depend on the rest of the batch. Here every sample
has a seed of its own and every token one uniform number, so a completion does not depend on how samples are batched (up
to floating point: a matrix product may round a row differently in a batch of another size).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from refinerl.contracts import Finished
from refinerl.engines import requests
from refinerl.engines.attention import GROUPED
from refinerl.engines.kv_cache import DecodingCache
from refinerl.engines.sampling import greedy, sample, uniforms
from refinerl.engines.stopping import cut_at_stop
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.errors import UserError
from refinerl.records import Completion, Decoding, FinishReason, Sampling


@dataclass(eq=False)
class _Sample:
    """A completion that is being written."""

    prompt: int
    number: int
    prompt_length: int
    limit: int
    noise: Tensor  # (limit,) float64
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    text: str = ""
    finish_reason: FinishReason | None = None


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
        progress: called now and then with a number of finished tokens; over a call of `generate` these numbers add up
            to len(prompts) · n · max_tokens, because a completion that ends early counts in full.

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
        progress: Callable[[int], None] | None = None,
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
        sampling those at temperature 1. `drafts` are ignored. `finished` is called with each completion.

        Raises:
            ValueError: a prompt is empty or leaves no room in the context, or the seeds do not match the request.
            FloatingPointError: the model's logits are not finite.
        """
        samples = self._requests(prompts, sampling)
        # Longest first: prompts of similar length share a batch, and a batch too large for the memory fails early.
        order = sorted(samples, key=lambda s: -s.prompt_length)
        with self._decoding(), contextlib.nullcontext() if adapter else self.base():
            for first in range(0, len(order), self.max_rows):
                self._write(order[first : first + self.max_rows], prompts, sampling, finished)
        return [[_finished(s) for s in samples[i : i + sampling.n]] for i in range(0, len(samples), sampling.n)]

    def _requests(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[_Sample]:
        requests.check(prompts, sampling, self.context_length)
        samples = []
        for i, prompt in enumerate(prompts):
            limit = min(sampling.max_tokens, self.context_length - len(prompt))
            for j in range(sampling.n):
                noise = uniforms(sampling.seeds[i][j], limit) if sampling.temperature > 0 else torch.empty(0)
                samples.append(_Sample(i, j, len(prompt), limit, noise))
        return samples

    def _write(
        self,
        rows: list[_Sample],
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        finished: Finished | None,
    ) -> None:
        """Write the completions of one batch; `rows` gets shorter as they finish."""
        device = self.model.device
        # The last prompt token is left to the first step, so that this step is like all others.
        cache = self._prefill(rows, prompts)
        last = torch.tensor([prompts[s.prompt][-1] for s in rows], device=device)
        positions = torch.tensor([s.prompt_length - 1 for s in rows], device=device)
        columns = torch.arange(cache.capacity, device=device)
        visible = columns >= cache.length - positions[:, None]
        while rows:
            out = self.model(
                input_ids=last[:, None],
                attention_mask=visible[:, cache.start : cache.length + 1],
                position_ids=positions[:, None],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache.advance()
            self.decoded += Decoding(tokens=len(rows), passes=1)
            logits = out.logits[:, -1]
            if sampling.temperature > 0:
                uniform = torch.stack([s.noise[len(s.token_ids)] for s in rows]).to(device)
                last, logprobs = sample(
                    logits, uniform, sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p
                )
            else:
                last, logprobs = greedy(logits)
            positions += 1
            for s, token, logprob in zip(rows, last.tolist(), logprobs.tolist(), strict=True):
                s.token_ids.append(token)
                s.logprobs.append(logprob)
                self._finish(s, sampling.stop)
                if s.finish_reason and finished is not None:
                    finished(s.prompt, s.number, _finished(s))
            self._report(rows, sampling.max_tokens)
            if any(s.finish_reason for s in rows):
                kept = _close_gaps(rows, cache)
                last, positions, visible = last[kept], positions[kept], visible[kept]
                if rows:
                    cache.start = cache.length - int(positions.max())

    def _prefill(self, rows: list[_Sample], prompts: Sequence[Sequence[int]]) -> DecodingCache:
        """Compute keys and values of each prompt without its last token, once, and copy them to all its samples."""
        where: dict[int, list[int]] = {}
        for row, s in enumerate(rows):
            where.setdefault(s.prompt, []).append(row)
        length = max(s.prompt_length for s in rows) - 1
        layers = self.model.config.get_text_config().num_hidden_layers
        cache = DecodingCache(layers, len(rows), length, length + max(s.limit for s in rows))
        for group in self._prefill_groups([i for i in where if len(prompts[i]) > 1], prompts):
            # Padded at the right: causal attention needs no mask then, and positions count from 0.
            width = len(prompts[group[0]]) - 1
            ids = torch.full((len(group), width), self.tokenizer.pad_token_id)
            for i, index in enumerate(group):
                ids[i, : len(prompts[index]) - 1] = torch.tensor(prompts[index][:-1])
            prefilled = DynamicCache()
            self.model.base_model(input_ids=ids.to(self.model.device), past_key_values=prefilled, use_cache=True)
            cache.fill(prefilled, [len(prompts[i]) - 1 for i in group], [where[i] for i in group])
        return cache

    def _prefill_groups(self, order: list[int], prompts: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """Group the prompts, longest first, so that each group's padded size is within `max_prefill_tokens`."""
        group: list[int] = []
        for i in order:
            if group and (len(group) + 1) * len(prompts[group[0]]) > self.max_prefill_tokens:
                yield group
                group = []
            group.append(i)
        if group:
            yield group

    def _finish(self, s: _Sample, stop: tuple[str, ...]) -> None:
        """Set the finish reason of a sample if the token that it has just got ends it."""
        if s.token_ids[-1] in self.tokenizer.eos_token_ids:
            s.finish_reason = "stop"
        elif stop and self._stopped(s, stop):
            return
        elif len(s.token_ids) == s.limit:
            s.finish_reason = "length"
        if s.finish_reason:
            s.text = self.tokenizer.decode(s.token_ids)

    def _stopped(self, s: _Sample, stop: tuple[str, ...]) -> bool:
        """Tell whether a stop string has appeared; if so, cut text and tokens where the first one begins."""
        tail = max(len(text.encode()) for text in stop) + 8  # a token holds at least a byte
        if not any(text in self.tokenizer.decode(s.token_ids[-tail:]) for text in stop):
            return False
        cut = cut_at_stop(self.tokenizer, s.token_ids, stop)
        if cut is None:
            return False
        kept, s.text = cut
        del s.token_ids[kept:], s.logprobs[kept:]
        s.finish_reason = "stop"
        return True

    def _report(self, rows: list[_Sample], max_tokens: int) -> None:
        if self.progress is not None:
            written = [len(s.token_ids) for s in rows if not s.finish_reason]
            self.progress(len(written) + sum(max_tokens - len(s.token_ids) + 1 for s in rows if s.finish_reason))

    @contextlib.contextmanager
    def _decoding(self) -> Iterator[None]:
        """Put the model in evaluation mode with attention for single tokens, and restore both on leaving."""
        modes = [(module, module.training) for module in self.model.modules()]
        config = self.model.config
        attention = config._attn_implementation
        self.model.eval()
        if attention == "sdpa":
            config._attn_implementation = GROUPED
        try:
            yield
        finally:
            config._attn_implementation = attention
            for module, training in modes:
                module.training = training

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


def _finished(s: _Sample) -> Completion:
    assert s.finish_reason is not None
    return Completion(tuple(s.token_ids), tuple(s.logprobs), s.text, s.finish_reason)


def _close_gaps(rows: list[_Sample], cache: DecodingCache) -> list[int]:
    """Drop finished rows by moving the last row into each gap; return the old index of every remaining row."""
    kept = list(range(len(rows)))
    row = 0
    while row < len(rows):
        if rows[row].finish_reason is None:
            row += 1
            continue
        if row != len(rows) - 1:
            if rows[-1].finish_reason is None:
                cache.move(len(rows) - 1, row)
            rows[row], kept[row] = rows[-1], kept[-1]
        rows.pop()
        kept.pop()
    cache.rows = len(rows)
    return kept
