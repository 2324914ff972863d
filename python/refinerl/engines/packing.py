"""Hidden states of rows: of each row alone, or of the tree of rows that share prefixes.

`why_not` tells before training whether a model can take the tree, and `SharesPrefixes` gives it the attention for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import Cache, PreTrainedConfig, PreTrainedModel

from refinerl.engines.attention import PLAIN, SEGMENTED, UnknownAttentionError
from refinerl.engines.cache_argument import cache_argument
from refinerl.engines.segments import Segments, has_flash, on
from refinerl.kernels.prefixes import PrefixTree, Sharing, pays, prefix_tree
from refinerl.records import Rows

_TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-3}
"""Relative error that the probe allows, by type: many models have norms in float32, and TF32 has 11 bits. In 16 bits it
is 0.05."""


@dataclass(frozen=True)
class States:
    """The hidden states that predict the N targets of rows; targets with the same prefix have one of U together."""

    hidden: Tensor  # (U, H)
    targets: Tensor  # (U,) int64 token ids
    which: Tensor  # (N,) int64, which of the U each target is
    row: Tensor  # (N,) int64, the target's row
    token: Tensor  # (N,) int64, its index in the row
    shared: int
    """Tokens of the rows that were not computed, because another row begins with the same ones."""


def read_states(trunk: PreTrainedModel, rows: Rows, sharing: Sharing) -> States:
    """Compute the hidden state that predicts each target.

    Rows are padded at the right, so causal attention never sees padding and no attention mask is needed.
    """
    device = trunk.device
    row, token = rows.mask.cpu().nonzero(as_tuple=True)
    if not len(row):
        width = trunk.config.get_text_config().hidden_size
        row, token = on(device, row, token)
        return States(torch.zeros((0, width), device=device, dtype=trunk.dtype), row, row, row, token, shared=0)
    position = rows.prompt_lengths.cpu()[row] + token
    tree = tree_of(rows, sharing)
    if tree is None:
        given = (row, token, rows.targets.cpu()[row, token], position - 1, torch.arange(len(row)))
        row, token, targets, before, which = on(device, *given)
        hidden = trunk(input_ids=rows.input_ids.to(device), use_cache=False).last_hidden_state
        return States(hidden[row, before], targets, which, row, token, shared=0)
    used, which = torch.unique(tree.slots[row, position], return_inverse=True)
    row, token, targets, before, which = on(device, row, token, tree.ids[used], tree.parents[used], which)
    hidden = _Branches.apply(tree_states(trunk, tree), before)  # type: ignore[no-untyped-call]
    return States(hidden, targets, which, row, token, shared=int(rows.attention_mask.sum()) - len(tree))


class _Branches(torch.autograd.Function):
    """Hidden states (T, H) at some indices, (U,) int64. Where one is taken several times, gradients add up in float32.

    The last token of a prompt has a gradient from each of its responses.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.shape = hidden.shape
        return hidden.index_select(0, index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        kind = torch.promote_types(gradient.dtype, torch.float32)
        summed = gradient.new_zeros(ctx.shape, dtype=kind).index_add_(0, index, gradient.to(kind))
        return summed.to(gradient.dtype), None


def tree_of(rows: Rows, sharing: Sharing) -> PrefixTree | None:
    """Make the tree of rows; None if they are to be computed alone."""
    if sharing == "never" or len(rows) < 2:
        return None
    tree = prefix_tree(rows.input_ids, rows.attention_mask.sum(-1))
    return tree if sharing == "always" or pays(rows.input_ids.numel(), len(tree), len(rows)) else None


def tree_states(
    trunk: PreTrainedModel, tree: PrefixTree, segments: Segments | None = None, cache: Cache | None = None
) -> Tensor:
    """Compute the last hidden state of each token of a tree, (T, H); an empty cache gets their keys and values."""
    segments = segments or Segments(tree, trunk.device)
    hidden = trunk(
        input_ids=segments.ids[None],
        position_ids=segments.positions[None],
        attention_mask=torch.zeros(1, 1, 1, 1, device=trunk.device),  # transformers then makes none of its own
        **({} if cache is None else cache_argument(trunk, cache)),
        use_cache=cache is not None,
        segments=segments,
    )
    return hidden.last_hidden_state[0]  # type: ignore[no-any-return]


class SharesPrefixes(nn.Module):
    """A network whose model can compute prefixes that rows share once."""

    not_shared = ""
    """The reason why the model cannot share prefixes; empty if it can, or if nobody has asked."""

    def __init__(self) -> None:
        super().__init__()
        self._sharing: Sharing = "never"
        self._own_attention: dict[str, str | None] = {}
        """The attention of the model and its parts, while it has ours."""

    @property
    def trunk(self) -> PreTrainedModel:
        """The model without its head."""
        raise NotImplementedError

    @property
    def sharing(self) -> Sharing:
        """Computation of prefixes that rows share. Unless it is `never`, the model has the attention of trees.

        Set it to `never` before others use the model. It may be set to another value if `why_not` finds no reason
        against it.
        """
        return self._sharing

    @sharing.setter
    def sharing(self, sharing: Sharing) -> None:
        config = self.trunk.config
        if sharing != "never" and not self._own_attention:
            self._own_attention = _attention_of(config)
            config._attn_implementation = SEGMENTED
        elif sharing == "never" and self._own_attention:
            config._attn_implementation = self._own_attention
            self._own_attention = {}
        self._sharing = sharing


def _attention_of(config: PreTrainedConfig) -> dict[str, str | None]:
    """Return the kinds of attention of a model and its parts, as transformers takes them."""
    parts = {name: getattr(config, name, None) for name in config.sub_configs}
    return {"": config._attn_implementation} | {
        name: part._attn_implementation for name, part in parts.items() if part is not None
    }


# --- which models ---------------------------------------------------------------------------------


def why_not(trunk: PreTrainedModel) -> str:
    """Return the reason why a model cannot take trees, or an empty string. The model stays as it is.

    The reason is found in the configuration, in the masks that the model makes for rows as long as its context, and by
    computing a small tree and its rows alone, with the gradient of the embeddings: some models take the arguments and
    ignore them, and some go by the name of their attention.

    Raises:
        torch.OutOfMemoryError: there is no memory for the probe, and so none for training.
    """
    config = trunk.config
    if config._attn_implementation != "sdpa":
        return f"its attention is {config._attn_implementation!r} and not PyTorch's"
    before = _attention_of(config)
    try:
        return _limit(config.get_text_config()) or _probe(trunk)
    except UnknownAttentionError as error:
        return str(error)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError) as error:
        first = next(iter(str(error).splitlines()), "")
        return f"its pass over a tree fails ({type(error).__name__}: {first:.200})"
    finally:
        config._attn_implementation = before


def slowness(trunk: PreTrainedModel) -> str:
    """Return the reason why the attention of trees is slow in a model's type on its device, or an empty string."""
    if trunk.device.type == "cpu" or has_flash(trunk.device, trunk.dtype):
        return ""
    if has_flash(trunk.device, torch.bfloat16):
        return "their attention is slow in float32 on a GPU, and fast with dtype=bfloat16"
    return "their attention is slow on this GPU"


_LIMITS = ("sliding_window", "attention_chunk_size", "index_topk", "index_topk_blocks")
"""Numbers of tokens or blocks to which attention is limited, by their names in configurations."""


def _limit(config: PreTrainedConfig) -> str:
    """Return what a configuration says against attention over all of a row, or an empty string."""
    kinds = set(getattr(config, "layer_types", None) or ())
    if others := kinds - {"full_attention", "sliding_attention"}:
        return f"it has layers of {', '.join(sorted(others))}"
    for name in _LIMITS:
        limit = getattr(config, name, None)
        unused = name == "sliding_window" and kinds == {"full_attention"}
        if limit and limit < config.max_position_embeddings and not unused:
            return f"its attention is limited ({name} = {limit})"
    return ""


def _probe(trunk: PreTrainedModel) -> str:
    text = trunk.config.get_text_config()
    prompt, y = range(3, 12), range(12, 17)
    rows = [[*prompt, *y], [*prompt, *y, 5, 4], [*prompt, 12, 13, 7, 8], [*prompt, 20], [9, 3, 9, 4]]
    ids = torch.zeros(len(rows), 16, dtype=torch.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row) % text.vocab_size
    lengths = torch.tensor([len(row) for row in rows])
    tree = prefix_tree(ids, lengths)
    segments = Segments(tree, trunk.device)
    real = torch.arange(ids.shape[1]) < lengths.unsqueeze(-1)
    slots = tree.slots[real].to(trunk.device)

    def rows_alone() -> Tensor:
        hidden = trunk(input_ids=ids.to(trunk.device), use_cache=False).last_hidden_state
        return hidden[real.to(trunk.device)]  # type: ignore[no-any-return]

    alone, gradient = _with_gradient(trunk, rows_alone)  # by transformers' own attention
    with torch.no_grad():
        trunk.config._attn_implementation = PLAIN
        rows_alone()
        trunk.config._attn_implementation = SEGMENTED
        again = rows_alone()
    shared, shared_gradient = _with_gradient(trunk, lambda: tree_states(trunk, tree, segments)[slots])
    layers = text.num_hidden_layers
    if segments.calls != layers:
        return f"{segments.calls} of its {layers} layers have attention that transformers lets others compute"
    summed = torch.zeros_like(shared_gradient[0]).index_add_(0, slots, gradient[real.to(trunk.device)])
    for name, found, wanted in (
        ("rows alone", again, alone),
        ("a shared prefix", shared, alone),
        ("a shared prefix", shared_gradient[0], summed),
    ):
        error = float((found - wanted).norm() / wanted.norm())
        if not error <= _TOLERANCE.get(trunk.dtype, 0.05):
            return f"a probe of {name} is off by {error:.0e}"
    return ""


def _with_gradient(trunk: PreTrainedModel, compute: Any) -> tuple[Tensor, Tensor]:
    """Return hidden states, (N, H), and the gradient that some function of them has in the embeddings."""
    seen: list[Tensor] = []

    def embed(_: Any, __: Any, output: Tensor) -> Tensor:
        seen.append(output.detach().requires_grad_())
        return seen[0]

    handle = trunk.get_input_embeddings().register_forward_hook(embed)
    try:
        with torch.enable_grad():
            hidden = compute()
            slope = torch.linspace(-1, 1, hidden.shape[-1], device=hidden.device, dtype=hidden.dtype)
            (gradient,) = torch.autograd.grad((hidden * slope).sum(), seen[0])
    finally:
        handle.remove()
    return hidden.detach(), gradient
