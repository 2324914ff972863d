"""Attention over a tree by the core equals attention by its mask, at every level of SIMD, with gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from refinerl import _core
from refinerl.kernels.tree_attention import LEVELS, tree_attention


def parents(depths: list[int]) -> list[int]:
    """The token above each, −1 for none."""
    path: list[int] = []
    found = []
    for token, depth in enumerate(depths):
        del path[depth:]
        found.append(path[-1] if path else -1)
        path.append(token)
    return found


def mask_of(depths: list[int]) -> Tensor:
    """By definition: a token sees itself, and what the token above it sees."""
    mask = torch.zeros(len(depths), len(depths), dtype=torch.bool)
    for token, parent in enumerate(parents(depths)):
        if parent >= 0:
            mask[token] = mask[parent]
        mask[token, token] = True
    return mask


def results(attend, tokens, heads, keys, width, dtype, scale):
    """Attention of random tensors, and the gradients of a random function of it."""
    random = torch.Generator().manual_seed(0)
    drawn = [torch.randn((tokens, n, width), generator=random, dtype=torch.float64) for n in (heads, keys, keys, heads)]
    *leaves, slope = (t.to(dtype).requires_grad_() for t in drawn)
    out = attend(*(leaf.transpose(0, 1) for leaf in leaves), scale)
    out.backward(slope.detach())
    return [out.detach(), *(leaf.grad for leaf in leaves)]


def assert_same(depths, heads, keys, width, dtype, tolerance, *, scale=0.4, level=None):
    mask = mask_of(depths)

    def by_mask(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        k, v = (t.repeat_interleave(heads // keys, 0) for t in (k, v))
        return F.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=mask, scale=scale)[0].transpose(0, 1)

    def by_core(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        return tree_attention(q, k, v, torch.tensor(depths), scale, level=level)

    shape = (len(depths), heads, keys, width)
    found = results(by_core, *shape, dtype, scale)
    wanted = results(by_mask, *shape, torch.float64, scale)
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.dtype == dtype
        assert mine.shape == theirs.shape
        assert float((mine.double() - theirs).abs().max()) <= tolerance * max(1.0, float(theirs.abs().max()))


@st.composite
def trees(draw):
    """Depths of up to 40 tokens in depth-first order."""
    depths = [0]
    for _ in range(draw(st.integers(0, 39))):
        depths.append(draw(st.one_of(st.just(depths[-1] + 1), st.integers(0, depths[-1] + 1))))
    return depths


@settings(max_examples=40)
@given(trees(), st.sampled_from([(4, 4, 24), (6, 2, 8), (3, 1, 5), (2, 2, 16)]), st.sampled_from(LEVELS))
def test_every_tree_in_float32_at_every_level(depths, shape, level):
    assert_same(depths, *shape, torch.float32, 1e-5, level=level)


@settings(max_examples=20)
@given(trees(), st.sampled_from([(4, 4, 24), (6, 2, 8), (3, 1, 5)]))
def test_every_tree_in_float64(depths, shape):
    assert_same(depths, *shape, torch.float64, 1e-13)


LONG = [*range(60), *range(30, 160), *range(31, 120), *range(50), *range(10, 33)]
"""Longer than a tile, and than a vector, in every way."""


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("heads", "keys", "width"), [(9, 3, 64), (4, 4, 24), (2, 1, 80), (1, 1, 33)])
def test_long_rows(heads, keys, width, level):
    assert_same(LONG, heads, keys, width, torch.float32, 1e-5, scale=width**-0.5, level=level)


def test_rows_longer_than_a_tile_in_float64():
    assert_same(LONG, 4, 2, 12, torch.float64, 1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_are_computed_in_float32(dtype):
    assert_same(LONG, 4, 2, 16, dtype, 0.02, scale=0.25)


def test_scores_of_any_size():
    """The largest score of a token is subtracted from all: nothing overflows, and a token may see one alone."""
    assert_same([0, 1, 2, 2, 1], 2, 2, 8, torch.float32, 1e-4, scale=200.0)
    assert_same([0, 1, 2, 2, 1], 2, 2, 8, torch.float32, 1e-5, scale=1e-6)


def test_threads_share_the_heads(monkeypatch):
    depths = torch.tensor([*range(400), *range(200, 500)])
    q, k, v = (torch.randn(n, len(depths), 32, requires_grad=True) for n in (8, 4, 4))
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        out = tree_attention(q, k, v, depths, 0.2)
        found.append([out, *torch.autograd.grad(out.sin().sum(), (q, k, v))])
    for mine, theirs in zip(*found, strict=True):
        assert torch.equal(mine, theirs)


def test_no_token():
    q = torch.zeros(2, 0, 8, requires_grad=True)
    out = tree_attention(q, q, q, torch.zeros(0, dtype=torch.int64), 1.0)
    out.sum().backward()
    assert out.shape == (0, 2, 8)
    assert q.grad.shape == q.shape


def test_other_strides():
    q, k, v = (torch.randn(8, 2, 5).permute(1, 2, 0).double().requires_grad_() for _ in range(3))
    depths = torch.tensor([0, 1, 1, 2, 0])
    found = tree_attention(q, k, v, depths, 0.3)
    wanted = tree_attention(*(t.contiguous() for t in (q, k, v)), depths, 0.3)
    torch.testing.assert_close(found, wanted, atol=0, rtol=0)


@pytest.mark.parametrize("depths", [[1, 2], [0, 2], [0, 1, 3], [0, -1]])
def test_depths_of_no_tree(depths):
    q = torch.zeros(1, len(depths), 8)
    with pytest.raises(ValueError, match="depths must be those of tokens in depth-first order"):
        tree_attention(q, q, q, torch.tensor(depths), 1.0)


def test_arguments_that_do_not_agree():
    q, depths = torch.zeros(3, 2, 8), torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"queries, keys and values must be \(T, heads, width\) for 2 tokens"):
        tree_attention(q, q[:2], q[:2], depths, 1.0)
    with pytest.raises(ValueError, match="for 2 tokens"):
        tree_attention(q, q, q[..., :4], depths, 1.0)
    with pytest.raises(ValueError, match="for 1 tokens"):
        tree_attention(q, q, q, depths[:1], 1.0)
    with pytest.raises(ValueError, match="scale must be positive, got 0"):
        tree_attention(q, q, q, depths, 0.0)
    with pytest.raises(ValueError, match="level must be one of this processor, got sse9"):
        tree_attention(q, q, q, depths, 1.0, level="sse9")


def test_the_core_checks_what_autograd_kept():
    rows = torch.zeros(2, 1, 8).numpy()
    depths = torch.tensor([0, 1]).numpy()
    how = {"scale": 1.0, "threads": 1, "level": LEVELS[-1]}
    with pytest.raises(ValueError, match=r"slopes must be \[2, 1, 8\], as queries, got \[1, 1, 8\]"):
        _core.tree_attention_backward(rows, rows, rows, depths, rows[:1], **how)
