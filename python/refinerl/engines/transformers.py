"""Generation in this process: our own sampling loop over a Hugging Face model.

`model.generate` has one random stream for a batch, so its samples depend on the rest of the batch. Here every sample
has a seed of its own and every token one uniform number, so a completion does not depend on how samples are batched (up
to floating point: a matrix product may round a row differently in a batch of another size).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from refinerl.contracts import Finished
from refinerl.engines import requests
from refinerl.engines.attention import GROUPED
from refinerl.engines.kv_cache import DecodingCache
from refinerl.engines.prefill import prefill
from refinerl.engines.samples import Sample, close_gaps
from refinerl.engines.sampling import greedy, sample, uniforms
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.errors import UserError
from refinerl.records import Completion, Decoding, Sampling


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
        return [[s.finished() for s in samples[i : i + sampling.n]] for i in range(0, len(samples), sampling.n)]

    def _requests(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Sample]:
        requests.check(prompts, sampling, self.context_length)
        samples = []
        for i, prompt in enumerate(prompts):
            limit = min(sampling.max_tokens, self.context_length - len(prompt))
            for j in range(sampling.n):
                noise = uniforms(sampling.seeds[i][j], limit) if sampling.temperature > 0 else torch.empty(0)
                samples.append(Sample(i, j, len(prompt), limit, noise))
        return samples

    def _write(
        self,
        rows: list[Sample],
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        finished: Finished | None,
    ) -> None:
        """Write the completions of one batch; `rows` gets shorter as they finish."""
        device = self.model.device
        # The last prompt token is left to the first step, so that this step is like all others.
        length = max(s.prompt_length for s in rows) - 1
        layers = self.model.config.get_text_config().num_hidden_layers
        cache = DecodingCache(layers, len(rows), length, length + max(s.limit for s in rows))
        prefill(self.model, cache, rows, prompts, self.tokenizer.pad_token_id, self.max_prefill_tokens)
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
                s.finish(self.tokenizer, sampling.stop)
                if s.finish_reason and finished is not None:
                    finished(s.prompt, s.number, s.finished())
            self._report(rows, sampling.max_tokens)
            if any(s.finish_reason for s in rows):
                kept = close_gaps(rows, cache)
                last, positions, visible = last[kept], positions[kept], visible[kept]
                if rows:
                    cache.start = cache.length - int(positions.max())

    def _report(self, rows: list[Sample], max_tokens: int) -> None:
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
