"""Attention over a tree equals attention of each token over its prefix, by the mask, with gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from refinerl.engines import products
from refinerl.engines.segments import Segments, has_flash
from refinerl.kernels.prefixes import PrefixTree, prefix_tree

FORESTS = {
    "prompt": [[1, 2, 3, 4, 5], [1, 2, 3, 6], [1, 2, 3, 4, 7, 8], [1, 2, 3, 4, 7, 9]],
    "alone": [[1, 2, 3, 4]],
    "one token": [[1], [2], [2, 3]],
    "identical": [[1, 2, 3], [1, 2, 3], [1, 2]],
    "nothing shared": [[1, 2, 3, 4, 5, 6], [2, 2], [3]],
    "long": [[*range(40), *range(100, 160)], [*range(40), *range(200, 230)], [*range(40), *range(100, 150), 7, 8, 9]],
}


def tree_of(rows: list[list[int]]) -> PrefixTree:
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    return prefix_tree(ids, torch.tensor([len(row) for row in rows]))


def masked(q: Tensor, k: Tensor, v: Tensor, tree: PrefixTree, scale: float) -> Tensor:
    """By definition: token q sees token k iff k ≤ q < sub_end[k]."""
    tokens = torch.arange(len(tree))
    mask = (tokens <= tokens[:, None]) & (tokens[:, None] < tree.sub_end)
    k, v = (t.repeat_interleave(len(q) // len(t), 0) for t in (k, v))
    return F.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=mask, scale=scale)[0].transpose(0, 1)


def results(attend, tree, heads, keys, dtype=torch.float64, scale=None, device="cpu", widths=(8, 8)):
    """The attention of random tensors, and the gradients of a random function of it."""
    random = torch.Generator().manual_seed(0)
    shapes = [(len(tree), n, width) for n, width in ((heads, widths[0]), (keys, widths[0]), (keys, widths[1]))]
    drawn = [torch.randn(s, generator=random, dtype=torch.float64) for s in shapes]
    leaves = [t.to(device, dtype).requires_grad_() for t in drawn]
    out = attend(*(leaf.transpose(0, 1) for leaf in leaves), scale)
    out.backward(torch.randn(out.shape, generator=random, dtype=torch.float64).to(device, dtype))
    return [out.detach(), *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize(
    ("way", "call"),
    [("attend", 0), ("attend", 3e3), ("attend", 1e9), ("plain", None)],
    ids=["a product for each node", "some together", "all together", "plain"],
)
@pytest.mark.parametrize(("heads", "keys"), [(4, 4), (6, 2), (3, 1)])
@pytest.mark.parametrize("forest", FORESTS)
def test_every_token_attends_to_its_prefix(monkeypatch, forest, heads, keys, way, call):
    monkeypatch.setattr(products, "CALL", call)
    tree = tree_of(FORESTS[forest])
    segments = Segments(tree, torch.device("cpu"))
    found = results(getattr(segments, way), tree, heads, keys, scale=0.5)
    wanted = results(lambda q, k, v, scale: masked(q, k, v, tree, scale), tree, heads, keys, scale=0.5)
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-13, rtol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_other_types_are_as_near_as_one_product(dtype, tolerance):
    tree = tree_of(FORESTS["long"])
    found = results(Segments(tree, torch.device("cpu")).attend, tree, 6, 2, dtype)
    wanted = results(lambda q, k, v, _: masked(q, k, v, tree, 8**-0.5), tree, 6, 2)
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.dtype == dtype
        assert float((mine.double() - theirs).norm() / theirs.norm()) < tolerance


@pytest.mark.parametrize("widths", [(8, 6), (6, 8)])
def test_keys_of_another_width_than_values(monkeypatch, widths):
    """As models with latent attention have them; node by node they would be slow."""
    monkeypatch.setattr(Segments, "plain", None)
    tree = tree_of(FORESTS["prompt"])
    segments = Segments(tree, torch.device("cpu"))
    found = results(segments.attend, tree, 4, 2, widths=widths)
    wanted = results(lambda q, k, v, _: masked(q, k, v, tree, widths[0] ** -0.5), tree, 4, 2, widths=widths)
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-13, rtol=0)


@pytest.mark.gpu
@pytest.mark.parametrize("forest", FORESTS)
def test_flash_attention_on_a_gpu(forest):
    tree = tree_of(FORESTS[forest])
    device = torch.device("cuda")
    if not has_flash(device, torch.bfloat16):
        pytest.skip("PyTorch has no FlashAttention for this GPU")
    segments = Segments(tree, device)
    found = results(segments.attend, tree, 6, 2, torch.bfloat16, device=device)
    wanted = results(lambda q, k, v, _: masked(q, k, v, tree, 8**-0.5), tree, 6, 2)
    for mine, theirs in zip(found, wanted, strict=True):
        assert float((mine.cpu().double() - theirs).norm() / theirs.norm()) < 0.03
