"""vLLM's proposer of guesses, from drafts that the generator sets. It and these functions run inside vLLM's worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from refinerl.engines.guesses import LOGITS, Confidence, Draft, Guess, Reader, best_length
from refinerl.records import Decoding

PROPOSER = "refinerl.engines.vllm.proposer.DraftProposer"
"""The name of the class for vLLM's `speculative_config`."""


class DraftProposer:
    """Proposes the next tokens of requests that have a draft.

    vLLM makes it with its configuration and calls `propose` after each of its passes.
    """

    def __init__(self, config: Any) -> None:
        self._most: int = config.speculative_config.num_speculative_tokens
        self._context: int = config.model_config.max_model_len
        self._vocabulary: int = config.model_config.get_vocab_size()
        self._fixed = 16.0 if config.device_config.device_type == "cpu" else 512.0
        self._runner: Any = None
        self._drafts: Mapping[tuple[int, ...], Sequence[int]] = {}
        self._readers: dict[str, Reader | None] = {}
        """Readers of requests that are being written: the index of a draft takes time and memory."""
        self._guessed: dict[str, Guess] = {}
        self._confidence = Confidence()
        self.decoded = Decoding()

    def load_model(self, *_: Any, **__: Any) -> None:
        """Load nothing: there is no model."""

    def expect(self, drafts: Mapping[tuple[int, ...], Sequence[int]], runner: Any) -> None:
        """Set the drafts of the next requests, by prompt, and forget all others; `runner` is vLLM's model runner."""
        self._runner = runner
        # Once a request is that near to the context's end, vLLM would not ask, and would verify zeros for all of them.
        # Our guesses stay within the context.
        runner.effective_drafter_max_model_len = self._context + self._most
        self._drafts = drafts
        self._readers, self._guessed = {}, {}
        self._confidence = Confidence()
        self.decoded = Decoding()

    def propose(
        self, sampled_token_ids: Sequence[Sequence[int]], lengths: Any, token_ids: Any, slot_mappings: Any = None
    ) -> list[list[int]]:
        """Guess the next tokens of each row of the batch.

        Args:
            sampled_token_ids: tokens that the last pass gave each row; none for a prompt that is not read to its end.
            lengths: ignored.
            token_ids: ignored.
            slot_mappings: ignored.
        """
        proposed: list[list[int]] = [[] for _ in sampled_token_ids]
        writing = [i for i, new in enumerate(sampled_token_ids) if new]
        if not self._drafts or not writing:
            return proposed
        self.decoded += Decoding(passes=1)
        for ended in self._readers.keys() - self._runner.requests.keys():
            del self._readers[ended]
        names = self._runner.input_batch.req_ids
        room = max(LOGITS // self._vocabulary - len(writing), 0)
        for i in writing:
            self._learn(names[i], len(sampled_token_ids[i]))
        for i in writing:
            guess = self._guess(names[i], room)
            length = best_length([self._confidence.chances(guess)], self._fixed / len(writing))
            taken = replace(guess, tokens=guess.tokens[:length])
            self._guessed[names[i]] = taken
            proposed[i] = list(taken.tokens)
            room -= length
        return proposed

    def _learn(self, name: str, new: int) -> None:
        """Count the guess of a request that has just got `new` tokens, of which the last one was not guessed."""
        guess = self._guessed.pop(name, None)
        if guess is not None and guess.tokens:
            right = min(new - 1, len(guess.tokens))
            self._confidence.learn(guess, min(new, len(guess.tokens)), right)
            self.decoded += Decoding(drafted=len(guess.tokens), accepted=right)

    def _guess(self, name: str, room: int) -> Guess:
        state = self._runner.requests[name]
        if name not in self._readers:
            draft = self._drafts.get(tuple(state.prompt_token_ids))
            self._readers[name] = None if draft is None else Reader(Draft(draft, self._vocabulary))
        reader = self._readers[name]
        if reader is None:
            return Guess()
        limit = min(state.sampling_params.max_tokens, self._context - len(state.prompt_token_ids))
        written = state.output_token_ids
        return reader.guess(written, min(self._most, room, limit - len(written) - 1))


def expect(worker: Any, drafts: Mapping[tuple[int, ...], Sequence[int]]) -> None:
    """Set the drafts of the next requests, by prompt."""
    worker.model_runner.drafter.expect(drafts, worker.model_runner)


def decoded(worker: Any) -> Decoding:
    """Return what was counted since `expect`: passes, and guessed and accepted tokens."""
    found: Decoding = worker.model_runner.drafter.decoded
    return found
