"""Attention over a tree equals attention of each token over its prefix, by the mask, with gradients."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import flash
from refinerl.engines import segments
from refinerl.engines.segments import Segments, has_flash
from refinerl.kernels import tree_attention
from refinerl.kernels.prefixes import PrefixTree, prefix_tree

FORESTS = {
    "prompt": [[1, 2, 3, 4, 5], [1, 2, 3, 6], [1, 2, 3, 4, 7, 8], [1, 2, 3, 4, 7, 9]],
    "alone": [[1, 2, 3, 4]],
    "one token": [[1], [2], [2, 3]],
    "identical": [[1, 2, 3], [1, 2, 3], [1, 2]],
    "nothing shared": [[1, 2, 3, 4, 5, 6], [2, 2], [3]],
    "one prompt": [[*range(40), 50 + i] for i in range(12)],
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


@pytest.mark.parametrize("way", ["attend", "plain"])
@pytest.mark.parametrize(("heads", "keys"), [(4, 4), (6, 2), (3, 1)])
@pytest.mark.parametrize("forest", FORESTS)
def test_every_token_attends_to_its_prefix(forest, heads, keys, way):
    tree = tree_of(FORESTS[forest])
    nodes = Segments(tree, torch.device("cpu"))
    found = results(getattr(nodes, way), tree, heads, keys, scale=0.5)
    wanted = results(lambda q, k, v, scale: masked(q, k, v, tree, scale), tree, heads, keys, scale=0.5)
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-13, rtol=0)


def test_without_the_core_attention_is_computed_node_by_node(monkeypatch):
    monkeypatch.setattr(tree_attention, "_native", None)
    tree = tree_of(FORESTS["long"])
    found = results(Segments(tree, torch.device("cpu")).attend, tree, 6, 2)
    wanted = results(lambda q, k, v, _: masked(q, k, v, tree, 8**-0.5), tree, 6, 2)
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
    nodes = Segments(tree, torch.device("cpu"))
    found = results(nodes.attend, tree, 4, 2, widths=widths)
    wanted = results(lambda q, k, v, _: masked(q, k, v, tree, widths[0] ** -0.5), tree, 4, 2, widths=widths)
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-13, rtol=0)


@pytest.mark.parametrize("most", [1, 2, 1000])
@pytest.mark.parametrize(("heads", "keys"), [(4, 4), (6, 2)])
@pytest.mark.parametrize("forest", FORESTS)
def test_calls_of_flash_attention_gather_few_keys(monkeypatch, forest, heads, keys, most):
    """A prompt with many short responses is gathered once for each, so that a call has not all of them."""
    kernels = {"_flash_attention_forward": flash.forward, "_flash_attention_backward": flash.backward}
    monkeypatch.setattr(segments, "aten", SimpleNamespace(**kernels))
    monkeypatch.setattr(segments, "KEYS", most)
    monkeypatch.setattr(flash, "calls", [])
    tree = tree_of(FORESTS[forest])
    nodes = Segments(tree, torch.device("cpu"))
    found = results(lambda q, k, v, s: segments._Flash.apply(q, k, v, nodes.flash, s), tree, heads, keys, scale=0.5)
    wanted = results(lambda q, k, v, s: masked(q, k, v, tree, s), tree, heads, keys, scale=0.5)
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)  # keys' gradients are sums in float32
    for name in ("forward", "backward"):
        sizes = [size for kind, size in flash.calls if kind == name]
        assert sum(sizes) == len(tree.keys)
        assert max(sizes) <= most * len(tree)
    if forest == "one prompt":
        assert (len(nodes.flash) > 1) == (most < 1000)


def test_attention_node_by_node_keeps_no_gathered_keys():
    tree = tree_of([[*range(400), 500 + i] for i in range(20)])
    kept: dict[int, int] = {}
    q, k, v = (torch.randn(n, len(tree), 8, requires_grad=True) for n in (4, 2, 2))
    nodes = Segments(tree, torch.device("cpu"))

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = nodes.plain(q, k, v, 0.5)
    assert out.requires_grad
    assert sum(kept.values()) <= sum(t.nbytes for t in (q, k, v, nodes.keys))


@pytest.mark.gpu
@pytest.mark.parametrize("forest", FORESTS)
def test_flash_attention_on_a_gpu(forest):
    tree = tree_of(FORESTS[forest])
    device = torch.device("cuda")
    if not has_flash(device, torch.bfloat16):
        pytest.skip("PyTorch has no FlashAttention for this GPU")
    nodes = Segments(tree, device)
    found = results(nodes.attend, tree, 6, 2, torch.bfloat16, device=device)
    wanted = results(lambda q, k, v, _: masked(q, k, v, tree, 8**-0.5), tree, 6, 2)
    for mine, theirs in zip(found, wanted, strict=True):
        assert float((mine.cpu().double() - theirs).norm() / theirs.norm()) < 0.03
