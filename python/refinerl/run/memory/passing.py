"""Temporary memory of forward and backward passes: activations, logits, the head's gradient, ZeRO's copies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from refinerl.run.memory.learning import Training, buckets, held
from refinerl.run.memory.shapes import Shape

CHUNK = 512 * 2**20
"""Bytes of float32 logits that exist at once on a GPU (`kernels.chunked.WORKSPACE`)."""
KEYS = 2
"""Keys that attention over shared prefixes gathers at once, in multiples of the tokens (`engines.segments.KEYS`)."""


def of_a_layer(shape: Shape, width: int) -> int:
    """Count the bytes per token that one layer keeps for its backward pass.

    The normalisations keep their input in float32 and two tensors of its size; attention keeps queries, keys, values,
    its output and the softmax's sums, but no scores (flash attention); the MLP keeps four tensors of its width. A test
    measures them.
    """
    norms = 2 * (4 * shape.hidden + 4) + 4 * width * shape.hidden
    attention = width * (2 * shape.q + 2 * shape.kv) + 4 * shape.heads
    return norms + attention + 4 * width * shape.intermediate


def attending(shape: Shape, width: int) -> int:
    """Count the bytes per token that the backward pass of attention over shared prefixes takes on a GPU.

    These are the gradients of residual state, output and queries; keys and values, gathered, with their gradients,
    which PyTorch makes for each query head before it adds them up; the sums of these, and the queries' gradients, in
    float32. Of the last, a node has 128 more than it has queries.
    """
    of_each_head = 2 * width * shape.q if shape.q > shape.kv else 0
    gathered = 4 * width * shape.kv + max(of_each_head, 4 * shape.kv)
    return width * (2 * shape.hidden + shape.q) + KEYS * (gathered + 4 * shape.q) + 8 * shape.kv + 4 * shape.q


def activations(shape: Shape, tokens: int, width: int, *, recompute: bool) -> int:
    """Count the bytes that a forward pass keeps for the backward pass, and the gradients inside one layer."""
    one = of_a_layer(shape, width)
    kept = shape.layers * width * shape.hidden + one if recompute else shape.layers * one
    mlp = width * (3 * shape.intermediate + 2 * shape.hidden)
    # What the MLP keeps is gone when the backward pass comes to its layer's attention.
    on_the_way = max(mlp, attending(shape, width) - 4 * width * shape.intermediate)
    states = 3 * width * shape.hidden + 4 * shape.hidden  # last norm, states of the targets and their gradient
    return tokens * (kept + on_the_way + states)


def reading(shape: Shape, tokens: int, width: int) -> int:
    """Count the bytes of a forward pass without gradients: those of one layer, and the residual states."""
    return tokens * (of_a_layer(shape, width) + 2 * width * shape.hidden)


def logits(shape: Shape, tokens: int) -> int:
    """Count the bytes of a chunk of logits."""
    return min(CHUNK, 4 * shape.vocabulary * tokens)


def head(shape: Shape, tokens: int, width: int, *, constraint: bool) -> int:
    """Count the bytes of the cross-entropy: a chunk of logits, its copy in the weights' type, the head's gradients.

    The head's gradient is summed in float32, then converted. In bfloat16 three more exist: that of the constraint's
    rows, made in the forward pass, that of y's rows, and their sum.
    """
    chunk = logits(shape, tokens)
    if width == 2:
        return chunk + chunk // 2 + shape.embedding * (4 + 2 * (3 if constraint else 2))
    return chunk + shape.embedding * 4 * (3 if constraint else 2)


def gathered(parameters: int, training: Training) -> int:
    """Count the bytes of weights that ZeRO-3 has gathered at once."""
    t = training
    if t.stage != 3:
        return 0
    return t.width * min(parameters, t.live + t.prefetch)


def staying(shape: Shape, training: Training, learning: int) -> int:
    """Count the bytes of DeepSpeed's buffers that exist for the whole run, for a model with `learning` trained weights.

    Stage 3 keeps its bucket. Stages 1 and 2 keep a buffer for the largest gradient if the optimizer is offloaded.
    """
    t = training
    if t.stage == 3:
        return buckets(learning, t)
    return t.width * min(learning, shape.embedding) if t.offload else 0


@dataclass(frozen=True)
class Pass:
    """A forward and backward pass over a micro-batch."""

    shape: Shape
    training: Training
    tokens: int
    """Number of rows times the longest row, or tokens of a tree of rows that share prefixes."""
    loss: Literal["policy", "value"] = "policy"
    constraint: bool = True
    """True if the micro-batch has rows of the constraint."""
    adapter: int = 0
    """Weights of the LoRA adapter; 0 without one."""

    @property
    def learning(self) -> int:
        """Number of trained weights."""
        return self.adapter or (self.shape.trunk if self.loss == "value" else self.shape.parameters)

    def backward(self) -> int:
        """Count the temporary bytes of forward and backward pass."""
        s, t = self.shape, self.training
        size = activations(s, self.tokens, t.width, recompute=t.recompute) + self.adapter * t.width
        if self.loss == "policy":
            if self.adapter:  # the head is frozen
                size += logits(s, self.tokens) * (3 if t.width == 2 else 2) // 2
            else:
                size += head(s, self.tokens, t.width, constraint=self.constraint)
        size += gathered(s.parameters, t)
        # Stage 3 reduces a copy of its bucket; the other stages allocate theirs in the backward pass.
        return size + buckets(self.learning, t)

    def step(self) -> int:
        """Count the temporary bytes of the optimizer step: a flat copy of the gradients."""
        t = self.training
        mine = -(-self.learning // t.ranks)
        if t.engine == "torch" or t.offload or t.stage in (0, 1):
            return 0
        if t.stage == 3:
            return 4 * min(mine, t.group)
        return 0 if (t.width, t.accumulate) == (2, 4) else (4 + (t.width if t.width == 2 else 0)) * mine

    def peak(self) -> int:
        """Return the larger of both."""
        return max(self.backward(), self.step())


def update_peak(
    shape: Shape,
    training: Training,
    tokens: int,
    *,
    loss: Literal["policy", "value"] = "policy",
    constraint: bool = True,
    adapter: int = 0,
) -> int:
    """Return the peak in bytes of training on one micro-batch, including all that the model itself holds.

    Args:
        shape: the shape of the model.
        training: its trainer.
        tokens: rows of the micro-batch times their padded length.
        loss: the loss of a policy, with logits, or of a critic.
        constraint: True if there are rows of the constraint (`constraint.apply=loss`).
        adapter: weights of the LoRA adapter; 0 without one.
    """
    one = Pass(shape, training, tokens, loss, constraint, adapter)
    always = staying(shape, training, one.learning)
    frozen = 0
    if adapter:
        base = training.width * shape.parameters
        frozen = -(-base // training.ranks) if training.stage == 3 else base
        training = replace(training, dtype="float32")  # the adapter
    full = held(one.learning, training, gradient=True)
    return frozen + always + full.total + one.peak()
