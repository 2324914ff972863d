"""An author of refinements in this process: a generator with its own chat template and tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from refinerl.contracts import Arrived, Generator
from refinerl.records import Completion, Decoding, Message, Reply, Sampling


@dataclass(frozen=True)
class ModelAuthor:
    """A generator as a `refinerl.contracts.Author`."""

    generator: Generator
    encode_chat: Callable[[Sequence[Message]], Sequence[int]]
    """Applies the chat template and tokenizer of the generator's model."""
    adapter: bool = False
    """True: generate with the adapter of a LoRA policy; False: with the base model."""
    redraft: Callable[[Sequence[int]], Sequence[int]] | None = None
    """Translates a draft from the policy's tokens into the generator's; None: they are the same."""

    @property
    def decoded(self) -> Decoding:
        """Counts of the generator, which may be the policy's too."""
        return self.generator.decoded

    def reply(
        self,
        conversations: Sequence[Sequence[Message]],
        sampling: Sampling,
        drafts: Sequence[Sequence[int]],
        arrived: Arrived | None = None,
    ) -> list[list[Reply | None]]:
        """Generate `sampling.n` replies to each conversation, or none if it does not fit the generator's context."""
        prompts = [tuple(self.encode_chat(conversation)) for conversation in conversations]
        room = self.generator.context_length - sampling.max_tokens
        fitting = [i for i, prompt in enumerate(prompts) if len(prompt) <= room]

        def reply(i: int, c: Completion) -> Reply:
            return Reply(c.text, c.finish_reason, len(c.token_ids), len(prompts[i]))

        def finished(i: int, number: int, c: Completion) -> None:
            if arrived is not None:
                arrived(fitting[i], number, reply(fitting[i], c))

        self.generator.wake()
        written = self.generator.generate(
            [prompts[i] for i in fitting],
            replace(sampling, seeds=[sampling.seeds[i] for i in fitting]),
            adapter=self.adapter,
            drafts=[drafts[i] if self.redraft is None else self.redraft(drafts[i]) for i in fitting],
            finished=finished,
        )
        self.generator.sleep()
        replies: list[list[Reply | None]] = [[] for _ in prompts]
        for i, completions in zip(fitting, written, strict=True):
            replies[i] = [reply(i, c) for c in completions]
        return replies
