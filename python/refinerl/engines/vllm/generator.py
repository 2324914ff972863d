"""A vLLM engine that writes completions, in this process.

The contract needs more than vLLM's defaults: one request with its own seed for each sample, logprobs of the
distribution that was sampled from, weights and adapters loaded from memory, and no call with both base and adapter
requests (vLLM's CPU backend then applies the adapter to all of them).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from refinerl.contracts import Finished
from refinerl.engines import requests
from refinerl.engines.guest import silent_bar, threads, untouched
from refinerl.engines.lora import on_disk
from refinerl.engines.releases import VLLM
from refinerl.engines.stopping import cut_at_stop
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.engines.vllm.arguments import arguments
from refinerl.engines.vllm.memory import CACHE, WEIGHTS
from refinerl.engines.vllm.process import CUSTODY, import_vllm, name_shared_memory, on_current_device
from refinerl.engines.vllm.proposer import decoded, expect
from refinerl.engines.vllm.weights import ADAPTER, install_adapter, repack_head, take_over
from refinerl.errors import UserError
from refinerl.records import Completion, Decoding, FinishReason, Sampling


class VllmGenerator:
    """A generator with a vLLM engine of its own.

    Under a launcher all ranks make their engines at the same time; `tensor_parallel` consecutive ranks share one engine
    and call its methods together.

    Args:
        model: folder or hub id.
        tokenizer: for the ids that end a completion, and to decode.
        dtype: the type of weights and activations.
        context_length: tokens of prompt and completion that fit; default: the model's.
        max_rows: completions written at a time, as many as the cache holds; others wait.
        memory: share of the device's memory for weights and cache; None: 0.3 on a GPU, a cache of 1 GiB on a CPU.
        tensor_parallel: ranks that share the engine.
        prefix_caching: keep the keys and values of prompts, which the samples of a group share.
        eager: no CUDA graphs and no compilation; always so on a CPU.
        sleeps: let `sleep` free the memory of weights and cache; ignored on a CPU.
        frozen: the folder's weights never change, so `sleep` keeps a copy of them on the host; else it discards them.
        source: gives the weights that `wake` loads in place of discarded ones if `load` has not: the trainer's
            `weights`.
        guesses: the most tokens of a draft that are guessed at a time, at most 128; 0: drafts are ignored. Only greedy
            requests use drafts, because vLLM would draw other tokens from the same seed.
        adapter: rank and alpha of the LoRA adapter whose weights `load` gets; None if it gets the model's.
        progress: as in `TransformersGenerator`.

    Raises:
        UserError: vLLM is not installed, of an untested series, or cannot serve this model with these arguments.
    """

    def __init__(
        self,
        model: str,
        tokenizer: ChatTokenizer,
        *,
        dtype: str = "float32",
        context_length: int | None = None,
        max_rows: int = 256,
        memory: float | None = None,
        tensor_parallel: int = 1,
        prefix_caching: bool = True,
        eager: bool = False,
        sleeps: bool = True,
        frozen: bool = False,
        source: Callable[[], Iterable[tuple[str, Tensor]]] | None = None,
        guesses: int = 0,
        adapter: tuple[int, int] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        vllm = import_vllm()
        self._vllm = vllm
        self.tokenizer = tokenizer
        self.progress = progress
        self._adapter = adapter
        self._loaded = adapter is None
        self._source = source
        self._asleep: set[str] = set()
        self._guesses = guesses
        self.decoded = Decoding()
        self._tensor_parallel = tensor_parallel
        from vllm.platforms import current_platform as platform

        self._cpu: bool = platform.is_cpu()
        self._sleeps = sleeps and platform.is_sleep_mode_available()
        self._discards = self._sleeps and adapter is None and not frozen
        self._discarded = False
        options = arguments(
            cpu=self._cpu,
            dtype=dtype,
            context_length=context_length,
            max_rows=max_rows,
            memory=memory,
            tensor_parallel=tensor_parallel,
            prefix_caching=prefix_caching,
            eager=eager,
            sleeps=self._sleeps,
            guesses=guesses,
            adapter=adapter,
        )
        if self._cpu and tensor_parallel > 1:
            name_shared_memory()
        with untouched():
            try:
                with CUSTODY.making(), on_current_device():
                    self._llm = vllm.LLM(model, **options)
                self._free = weakref.finalize(self, CUSTODY.take(self._llm))
                self._threads = torch.get_num_threads()
                if self._cpu:
                    # It would patch its kernels again for each engine, by a scan of all modules that fails once an
                    # engine has speculated (numba is loaded then). The first patch suffices.
                    platform.register_triton_kernel_overrides = lambda: None
                self._request([[tokenizer.eos_token_id]], [vllm.SamplingParams(max_tokens=1, logprobs=0)], None)
            except Exception as error:
                reason = " ".join(line.strip() for line in str(error).strip().splitlines()[:2])
                room = "turn vllm.memory_policy or vllm.memory_refiner up, or vllm.max_model_len down; "
                raise UserError(
                    f"engines.generator=vllm cannot serve {model!r}: vLLM {vllm.__version__} says "
                    f"{reason or type(error).__name__} (tested with vLLM {VLLM.tested}); "
                    f"{room if 'memory' in reason.lower() else ''}engines.generator=transformers needs no vLLM"
                ) from error
        self._context_length: int = self._llm.model_config.max_model_len
        self.sleep()

    @property
    def context_length(self) -> int:
        """Tokens of prompt and completion that fit."""
        return self._context_length

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
        sampling those at temperature 1. `drafts`, one for each prompt, are used by greedy requests of an engine that
        guesses, and are treated as in `TransformersGenerator`.

        Raises:
            ValueError: a prompt is empty or leaves no room in the context, or the seeds do not match the request.
            FloatingPointError: the model's logits are not finite.
            RuntimeError: the adapter is asked for before one was loaded, or the weights were discarded.
        """
        requests.check(prompts, sampling, self.context_length)
        if adapter and not self._loaded:
            raise RuntimeError("the adapter was asked for before its weights were loaded")
        self.wake()
        mine = slice(0, len(prompts))
        if self._tensor_parallel > 1:
            prompts, sampling, drafts, mine = self._gather(prompts, sampling, drafts)
        asked = [[*prompt] for prompt in prompts for _ in range(sampling.n)]
        greedy: Sequence[Sequence[int | None]] = [[None] * sampling.n] * len(prompts)
        params = [
            self._params(sampling, seed, min(sampling.max_tokens, self.context_length - len(prompt)))
            for prompt, seeds in zip(prompts, sampling.seeds or greedy, strict=True)
            for seed in seeds
        ]
        if self._guesses:
            known = (
                {}
                if drafts is None or sampling.temperature > 0
                else dict(zip(map(tuple, prompts), drafts, strict=True))
            )
            self._llm.collective_rpc(expect, args=(known,))
        with threads(self._threads):  # compiled code needs the number of threads it was compiled with
            outputs = self._request(asked, params, self._lora() if adapter else None)
        if self._guesses and self._counts():
            self.decoded += self._llm.collective_rpc(decoded)[0]
        done = [self._completion(output.outputs[0], sampling.stop) for output in outputs]
        found = [done[i * sampling.n : (i + 1) * sampling.n] for i in range(len(prompts))][mine]
        self.decoded += Decoding(tokens=sum(len(each.token_ids) for row in found for each in row))
        return found

    def _counts(self) -> bool:
        """Return True on one of the ranks that share this engine."""
        if self._tensor_parallel == 1:
            return True
        from vllm.distributed.parallel_state import get_tp_group

        return bool(get_tp_group().rank_in_group == 0)

    def _gather(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, drafts: Sequence[Sequence[int]] | None
    ) -> tuple[Sequence[Sequence[int]], Sampling, Sequence[Sequence[int]] | None, slice]:
        """Gather the requests and drafts of all ranks that share this engine, and find our requests among them.

        The engine's ranks must all see the same requests.
        """
        from vllm.distributed.parallel_state import get_tp_group

        group = get_tp_group()
        parts: list[Any] = [None] * self._tensor_parallel
        own = (list(prompts), list(sampling.seeds), None if drafts is None else list(drafts))
        torch.distributed.all_gather_object(parts, own, group=group.cpu_group)
        first = sum(len(part[0]) for part in parts[: group.rank_in_group])
        everything = [prompt for part in parts for prompt in part[0]]
        seeds = [row for part in parts for row in part[1]]
        hints = None if drafts is None else [draft for part in parts for draft in part[2]]
        return everything, replace(sampling, seeds=seeds), hints, slice(first, first + len(prompts))

    def _params(self, sampling: Sampling, seed: int | None, limit: int) -> Any:
        return self._vllm.SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            max_tokens=limit,
            seed=None if seed is None else seed % 2**63,  # on a GPU it keeps seeds as int64, and ours have 64 bits
            stop=list(sampling.stop),
            stop_token_ids=sorted(self.tokenizer.eos_token_ids),
            logprobs=0,
            detokenize=bool(sampling.stop),
        )

    def _request(self, prompts: Sequence[list[int]], params: Sequence[Any], lora: Any) -> list[Any]:
        if not prompts:
            return []
        limit = max(p.max_tokens for p in params)
        bar = silent_bar(self.progress, limit) if self.progress is not None else False
        inputs = [{"prompt_token_ids": prompt} for prompt in prompts]
        outputs: list[Any] = self._llm.generate(inputs, list(params), lora_request=lora, use_tqdm=bar)
        return outputs

    def _completion(self, output: Any, stop: tuple[str, ...]) -> Completion:
        ids = tuple(output.token_ids)
        logprobs = tuple(step[token].logprob for step, token in zip(output.logprobs, ids, strict=True))
        if not np.isfinite(logprobs).all():
            raise FloatingPointError("the model's logits are not finite")
        if output.finish_reason not in ("stop", "length"):
            raise RuntimeError(f"vLLM ended a request for the reason {output.finish_reason!r}")
        reason: FinishReason = output.finish_reason
        if isinstance(output.stop_reason, str):
            kept, text = cut_at_stop(self.tokenizer, ids, stop) or (len(ids), output.text)
            return Completion(ids[:kept], logprobs[:kept], text, reason)
        return Completion(ids, logprobs, self.tokenizer.decode(ids), reason)

    # --- weights --------------------------------------------------------------------------------

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Load the trainer's weights from memory: the model's, or the adapter's if there is one.

        Raises:
            ValueError: a name that the model or the adapter does not have, or not all of the model's.
            UserError: the installed vLLM cannot load weights from memory.
        """
        self._wake(WEIGHTS)
        try:
            if self._adapter is None:
                self._llm.collective_rpc(take_over, args=(weights,))
                if self._cpu:
                    self._llm.collective_rpc(repack_head)
            else:
                self._llm.collective_rpc(install_adapter, args=(on_disk(weights), *self._adapter))
        except (AttributeError, ImportError, TypeError, NotImplementedError) as error:
            if self._vllm.__version__.split("+")[0] == VLLM.tested:
                raise  # the tested release can do it, so the fault is ours
            raise UserError(
                f"the installed vLLM {self._vllm.__version__} cannot take weights from memory ({error}); vLLM "
                f"{VLLM.tested} "
                "can, and engines.generator=transformers needs none"
            ) from error
        self._loaded = True
        self._discarded = False
        if not self._llm.reset_prefix_cache():
            raise RuntimeError("vLLM did not drop the prefix cache of the old weights")

    def _lora(self) -> Any:
        if self._adapter is None:
            return None
        from vllm.lora.request import LoRARequest

        # The worker has the adapter under this id already, so the path is never read.
        return LoRARequest("policy", ADAPTER, "in-memory")

    # --- memory and life ---------------------------------------------------------------------------------

    def sleep(self) -> None:
        """Free the memory of weights and cache if the platform can."""
        if self._sleeps and WEIGHTS not in self._asleep:
            self._llm.sleep(level=2 if self._discards else 1)
            self._asleep = {WEIGHTS, CACHE}
            self._discarded = self._discards

    def wake(self) -> None:
        """Take the memory of weights and cache again.

        Raises:
            RuntimeError: the weights were discarded, and there is no source of others.
        """
        if self._discarded:
            if self._source is None:
                raise RuntimeError("the weights were discarded at sleep, and load has brought no others since")
            self.load(self._source())
        self._wake(WEIGHTS)
        self._wake(CACHE)

    def _wake(self, tag: str) -> None:
        if tag in self._asleep:
            self._llm.wake_up(tags=[tag])
            self._asleep.remove(tag)

    def close(self) -> None:
        """Free the engine's memory for good."""
        self._free()
