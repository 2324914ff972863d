"""Reward models, which score conversations in batches, on a device of their own.

A reward model reads conversations in its own chat template and tokens, whatever the policy's are. Its score is read at
the last token, as in OpenRLHF and transformers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from refinerl.errors import UserError
from refinerl.records import Completion, Message, Prompt, Reward


class RewardModel:
    """A sequence classifier with one label, which scores answers.

    Args:
        model: a trunk with a linear `score` (every decoder), or any classifier with its own pooling (encoders). `mean`
            and `std` of its config, if present, are those of its rewards.
        encode: the model's chat template and tokenizer, for a whole conversation with its answer.
        batch: number of conversations that go through the model at once.
        max_length: most tokens of a conversation; a longer one loses its start and is counted.
        normalize: return (score − mean) / std; None does so if the config has both.

    Raises:
        UserError: normalisation is asked for, and the config has no usable mean and std.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        encode: Callable[[Sequence[Message]], Sequence[int]],
        *,
        batch: int = 8,
        max_length: int | None = None,
        normalize: bool | None = None,
    ) -> None:
        self.model = model.eval()
        self._encode = encode
        self._batch = batch
        self._max_length: int = max_length or model.config.max_position_embeddings
        mean, std = (getattr(model.config, name, None) for name in ("mean", "std"))
        self.mean, self.std = 0.0, 1.0
        if normalize or (normalize is None and mean is not None and std is not None):
            if mean is None or std is None or not (math.isfinite(mean) and math.isfinite(std) and std > 0):
                raise UserError(
                    "reward_model.normalize needs the mean and the standard deviation of the rewards in the model's "
                    f"config.json, which has mean = {mean}, std = {std}; set reward_model.normalize=false"
                )
            self.mean, self.std = float(mean), float(std)
        self._truncated = self._scored = 0

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Reward | None]:
        """Score each completion, as the answer to its prompt's messages.

        Raises:
            UserError: a score is not finite, or the chat template refuses a conversation.
        """
        rows = [self._tokens(p, c) for p, c in zip(prompts, completions, strict=True)]
        scores = [0.0] * len(rows)
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))  # rows of similar length share a batch
        for start in range(0, len(order), self._batch):
            chosen = order[start : start + self._batch]
            ids, mask = _padded([rows[i] for i in chosen])
            for i, value in zip(chosen, self.score(ids, mask).tolist(), strict=True):
                scores[i] = value
        for prompt, value in zip(prompts, scores, strict=True):
            if not math.isfinite(value):
                raise UserError(
                    f"the reward model gave {value} for an answer to prompt {prompt.id}: its weights are damaged, or "
                    "reward_model.dtype is too narrow for it"
                )
        return [Reward(value, "scored") for value in scores]

    @torch.no_grad()
    def score(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Score (N, L) token ids, padded on either side; return (N,) float32 normalised scores."""
        device = self.model.device
        ids, mask = input_ids.to(device), attention_mask.to(device).long()
        head = getattr(self.model, "score", None)
        if isinstance(head, nn.Linear):
            # Positions count the row's own tokens, so that padding on the left does not shift them.
            positions = (mask.cumsum(-1) - 1).clamp(min=0)
            hidden = self.model.base_model(
                input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False
            ).last_hidden_state
            last = mask.shape[1] - 1 - mask.flip(-1).argmax(-1)
            # One number from a whole row: in 16 bits it would have two or three digits.
            states = hidden[torch.arange(len(ids), device=device), last].float()
            values = F.linear(states, head.weight.float(), None if head.bias is None else head.bias.float())
        else:
            values = self.model(input_ids=ids, attention_mask=mask).logits
        scores: Tensor = (values.squeeze(-1).float() - self.mean) / self.std
        return scores

    def telemetry(self) -> Mapping[str, float]:
        """Return `reward_model/truncated`, the share of conversations since the last call that lost their start."""
        share = self._truncated / self._scored if self._scored else 0.0
        self._truncated = self._scored = 0
        return {"reward_model/truncated": share}

    def _tokens(self, prompt: Prompt, completion: Completion) -> tuple[int, ...]:
        asked = prompt.messages or ({"role": "user", "content": prompt.text},)
        tokens = tuple(self._encode((*asked, {"role": "assistant", "content": completion.text})))
        self._scored += 1
        self._truncated += len(tokens) > self._max_length
        return tokens[-self._max_length :]


def _padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Pad rows on the right; return (N, L) int64 ids and mask."""
    length = max(len(row) for row in rows)
    ids, mask = torch.zeros(len(rows), length, dtype=torch.int64), torch.zeros(len(rows), length, dtype=torch.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return ids, mask
