"""What forward and backward passes take for a moment: activations, logits, the head's gradient, ZeRO's copies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from refinerl.run.memory.learning import Training, buckets, held
from refinerl.run.memory.shapes import Shape

CHUNK = 512 * 2**20
"""Bytes of float32 logits that exist at a time on a GPU (`kernels.chunked.WORKSPACE`)."""


def of_a_layer(shape: Shape, width: int) -> int:
    """Bytes that one layer keeps for its backward pass, for each token.

    The normalisations keep their input in float32 and two of its size; attention keeps queries, keys, values, its
    output and the softmax's sums; the MLP four of its width. Flash attention: no scores. A test counts them.
    """
    norms = 2 * (4 * shape.hidden + 4) + 4 * width * shape.hidden
    attention = width * (2 * shape.q + 2 * shape.kv) + 4 * shape.heads
    return norms + attention + 4 * width * shape.intermediate


def activations(shape: Shape, tokens: int, width: int, *, recompute: bool) -> int:
    """Bytes that a forward pass keeps for the backward pass, and the gradients of one layer on their way."""
    one = of_a_layer(shape, width)
    kept = shape.layers * width * shape.hidden + one if recompute else shape.layers * one
    on_the_way = width * (3 * shape.intermediate + 2 * shape.hidden)
    states = 3 * width * shape.hidden + 4 * shape.hidden  # last norm, the targets' states and their gradient
    return tokens * (kept + on_the_way + states)


def reading(shape: Shape, tokens: int, width: int) -> int:
    """Bytes of a forward pass without gradients: one layer's, and the states that go round it."""
    return tokens * (of_a_layer(shape, width) + 2 * width * shape.hidden)


def logits(shape: Shape, tokens: int) -> int:
    """Bytes of the chunk of logits."""
    return min(CHUNK, 4 * shape.vocabulary * tokens)


def head(shape: Shape, tokens: int, width: int, *, constraint: bool) -> int:
    """Bytes of the cross-entropy with its gradients: the chunk, its copy in the weights' type, the head's gradients.

    The head's gradient is summed in float32, then converted; in bfloat16 there are beside it the one of the
    constraint's rows, which its forward pass made, that of y's, and the sum of both.
    """
    chunk = logits(shape, tokens)
    if width == 2:
        return chunk + chunk // 2 + shape.embedding * (4 + 2 * (3 if constraint else 2))
    return chunk + shape.embedding * 4 * (3 if constraint else 2)


def gathered(parameters: int, training: Training) -> int:
    """Bytes of the weights that ZeRO-3 holds whole for a moment."""
    t = training
    if t.stage != 3:
        return 0
    return t.width * min(parameters, t.live + t.prefetch)


def staying(shape: Shape, training: Training, learning: int) -> int:
    """Bytes of DeepSpeed's own buffers that stay for the whole run, of a model of which so many weights learn.

    Stage 3 keeps its bucket, stages 1 and 2 a place for the largest gradient where the optimizer is on the host.
    """
    t = training
    if t.stage == 3:
        return buckets(learning, t)
    return t.width * min(learning, shape.embedding) if t.offload else 0


@dataclass(frozen=True)
class Pass:
    """A micro-batch of a model that learns."""

    shape: Shape
    training: Training
    tokens: int
    """Rows times the longest of them."""
    loss: Literal["policy", "value"] = "policy"
    constraint: bool = True
    """Rows of the constraint are among them."""
    adapter: int = 0
    """Weights of the LoRA adapter that learns in the place of the model; 0: the model learns."""

    @property
    def learning(self) -> int:
        """Weights that learn."""
        return self.adapter or (self.shape.trunk if self.loss == "value" else self.shape.parameters)

    def backward(self) -> int:
        """Bytes that exist for a moment, in forward and backward pass."""
        s, t = self.shape, self.training
        size = activations(s, self.tokens, t.width, recompute=t.recompute) + self.adapter * t.width
        if self.loss == "policy":
            if self.adapter:  # the head does not learn
                size += logits(s, self.tokens) * (3 if t.width == 2 else 2) // 2
            else:
                size += head(s, self.tokens, t.width, constraint=self.constraint)
        size += gathered(s.parameters, t)
        # Stage 3 scatters a copy of its bucket; the others make theirs in the backward pass.
        return size + buckets(self.learning, t)

    def step(self) -> int:
        """Bytes that exist for a moment while the optimizer steps: a flat copy of the gradients."""
        t = self.training
        mine = -(-self.learning // t.ranks)
        if t.engine == "torch" or t.offload or t.stage in (0, 1):
            return 0
        if t.stage == 3:
            return 4 * min(mine, t.group)
        return 0 if (t.width, t.accumulate) == (2, 4) else (4 + (t.width if t.width == 2 else 0)) * mine

    def peak(self) -> int:
        """The larger of both."""
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
    """The most bytes that are allocated in forward pass, backward pass and step of one micro-batch.

    With all that the model holds meanwhile, and without what other models hold.

    Args:
        shape: of the model.
        training: how it learns.
        tokens: rows of the micro-batch times their padded length.
        loss: that of a policy, with logits, or of a critic.
        constraint: the constraint's rows are among them (`constraint.apply=loss`).
        adapter: weights of the LoRA adapter that learns in the model's place.
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
