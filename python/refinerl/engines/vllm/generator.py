"""An engine of vLLM that writes completions, in this process.

What the contract asks beyond vLLM's defaults: one request with a seed of its own for each sample, logprobs of the
distribution that was sampled from, weights and adapters taken over from memory, base and adapter requests never in one
call (vLLM's CPU backend then gives all of them the adapter).
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from refinerl.engines import requests
from refinerl.engines.guest import silent_bar, threads, untouched
from refinerl.engines.lora import on_disk
from refinerl.engines.releases import VLLM
from refinerl.engines.stopping import cut_at_stop
from refinerl.engines.vllm.memory import CACHE, WEIGHTS
from refinerl.engines.vllm.process import CUSTODY, import_vllm, name_shared_memory, on_current_device
from refinerl.engines.vllm.weights import ADAPTER, install_adapter, lora_rank, repack_head, take_over
from refinerl.errors import UserError
from refinerl.records import Completion, FinishReason, Sampling
from refinerl.tokenization import ChatTokenizer

CPU_CACHE = 2**30
"""Bytes of the key-value cache on a CPU, where a share of the machine's memory would be far too much."""

WORKER = "refinerl.engines.vllm.worker.SleepingWorker"
"""The class of vLLM's worker where engines sleep."""


class VllmGenerator:
    """Writes completions with a vLLM engine of its own.

    Under torchrun or DeepSpeed's launcher every rank makes its engines at the same time; `tensor_parallel` consecutive
    ranks then share one engine, and call its methods together.

    Args:
        model: folder or hub id.
        tokenizer: for the ids that end a completion, and to decode.
        dtype: of weights and activations.
        context_length: tokens of prompt and completion that fit; default: the model's.
        max_rows: completions written at a time, as far as the cache holds them: the others wait.
        memory: share of the device's memory for weights and cache; None: 0.3 on a GPU, a cache of 1 GiB on a CPU.
        tensor_parallel: ranks that share the engine.
        prefix_caching: keep the keys and values of prompts, which the samples of a group share.
        eager: no CUDA graphs and no compilation; always so on a CPU.
        sleeps: `sleep` frees the memory of weights and cache. A CPU cannot, and needs not.
        frozen: the weights are the folder's for good: `sleep` keeps a copy of them on the host. Else it discards them.
        source: where `wake` gets discarded weights where `load` has brought none since: the trainer's `weights`.
        speculate: tokens guessed at a time by looking up the last ones in the prompt; 0 is off. Pays where outputs copy
            their prompts, as refinements do.
        adapter: rank and alpha of the LoRA adapter whose weights `load` will bring; None: `load` brings the model's.
        progress: as in `TransformersGenerator`.

    Raises:
        UserError: vLLM is not installed, or the installed one cannot serve this model so.
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
        speculate: int = 0,
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
        self._tensor_parallel = tensor_parallel
        from vllm.platforms import current_platform as platform

        self._cpu: bool = platform.is_cpu()
        self._sleeps = sleeps and platform.is_sleep_mode_available()
        self._discards = self._sleeps and adapter is None and not frozen
        self._discarded = False
        options: dict[str, Any] = {
            "dtype": dtype,
            "max_model_len": context_length,
            "max_num_seqs": max_rows,
            "enable_prefix_caching": prefix_caching,
            "enforce_eager": eager or self._cpu,
            "enable_sleep_mode": self._sleeps,
            "tensor_parallel_size": tensor_parallel,
            "logprobs_mode": "processed_logprobs",  # of the distribution that is sampled from
            "generation_config": "vllm",  # not the model's own sampling habits
            "seed": 0,
            "use_tqdm_on_load": False,
        }
        if self._sleeps:
            options["worker_cls"] = WORKER
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            options["distributed_executor_backend"] = "external_launcher"
        if memory is not None or not self._cpu:
            options["gpu_memory_utilization"] = 0.3 if memory is None else memory
        elif not os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
            options["kv_cache_memory_bytes"] = CPU_CACHE
        if adapter is not None:
            options |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": lora_rank(adapter[0])}
        if speculate:
            options["speculative_config"] = {
                "method": "ngram",
                "num_speculative_tokens": speculate,
                "prompt_lookup_min": 2,
                "prompt_lookup_max": 4,
            }
        if self._cpu and tensor_parallel > 1:
            name_shared_memory()
        with untouched():
            try:
                with CUSTODY.making(), on_current_device():
                    self._llm = vllm.LLM(model, **options)
                self._free = weakref.finalize(self, CUSTODY.take(self._llm))
                self._threads = torch.get_num_threads()
                if self._cpu:
                    # It patches its kernels once more for each engine, by a scan of all modules that fails as soon as
                    # one has speculated (numba is loaded then). Once is enough.
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
    ) -> list[list[Completion]]:
        """`sampling.n` completions for each prompt, in order.

        Logprobs are those of the distribution that was sampled from: after temperature, top_k and top_p; for greedy
        sampling those at temperature 1. `drafts` change nothing here: speculation looks its guesses up in the prompt.

        Raises:
            ValueError: a prompt is empty or leaves no room in the context, or the seeds do not match the request.
            FloatingPointError: the model's logits are not finite.
            RuntimeError: the adapter is asked for, and none was loaded; or the weights were discarded.
        """
        requests.check(prompts, sampling, self.context_length)
        if adapter and not self._loaded:
            raise RuntimeError("the adapter was asked for before its weights were loaded")
        self.wake()
        mine = slice(0, len(prompts))
        if self._tensor_parallel > 1:
            prompts, sampling, mine = self._gather(prompts, sampling)
        asked = [[*prompt] for prompt in prompts for _ in range(sampling.n)]
        greedy: Sequence[Sequence[int | None]] = [[None] * sampling.n] * len(prompts)
        params = [
            self._params(sampling, seed, min(sampling.max_tokens, self.context_length - len(prompt)))
            for prompt, seeds in zip(prompts, sampling.seeds or greedy, strict=True)
            for seed in seeds
        ]
        with threads(self._threads):  # compiled code is bound to the count it was compiled with
            outputs = self._request(asked, params, self._lora() if adapter else None)
        done = [self._completion(output.outputs[0], sampling.stop) for output in outputs]
        return [done[i * sampling.n : (i + 1) * sampling.n] for i in range(len(prompts))][mine]

    def _gather(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling
    ) -> tuple[Sequence[Sequence[int]], Sampling, slice]:
        """The prompts of all ranks that share this engine, which must see the same requests, and where ours lie."""
        from vllm.distributed.parallel_state import get_tp_group

        group = get_tp_group()
        parts: list[Any] = [None] * self._tensor_parallel
        torch.distributed.all_gather_object(parts, (list(prompts), list(sampling.seeds)), group=group.cpu_group)
        first = sum(len(part[0]) for part in parts[: group.rank_in_group])
        everything = [prompt for part in parts for prompt in part[0]]
        seeds = [row for part in parts for row in part[1]]
        return everything, replace(sampling, seeds=seeds), slice(first, first + len(prompts))

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
        """Take over the trainer's weights without a copy on disk: the model's, or the adapter's where there is one.

        Raises:
            ValueError: a name that the model or the adapter does not have, or not all that the model has.
            UserError: the installed vLLM cannot take weights from memory.
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
                raise  # it can, so the fault is ours
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

        # The worker holds it under this id already, so that the path is never read.
        return LoRARequest("policy", ADAPTER, "in-memory")

    # --- memory and life ---------------------------------------------------------------------------------

    def sleep(self) -> None:
        """Free the memory of weights and cache, where the platform can; else nothing."""
        if self._sleeps and WEIGHTS not in self._asleep:
            self._llm.sleep(level=2 if self._discards else 1)
            self._asleep = {WEIGHTS, CACHE}
            self._discarded = self._discards

    def wake(self) -> None:
        """Undo `sleep`.

        Raises:
            RuntimeError: the weights were discarded, and nothing says which come in their place.
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
