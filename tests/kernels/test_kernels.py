"""What can run here, and what is said where it cannot."""

from __future__ import annotations

import sys
import warnings

import pytest
import torch

from refinerl.kernels import available, cross_entropy
from refinerl.kernels.cross_entropy import token_logprobs

ROWS = (torch.ones(2, 3), torch.ones(5, 3), torch.tensor([0, 4]))


def test_every_implementation_says_whether_it_runs() -> None:
    states = available()
    assert set(states) == {"torch", "cpu", "cuda"}
    assert states["torch"].usable
    assert states["cpu"].usable
    assert all(state.usable != bool(state.reason) for state in states.values())


def test_without_the_extension_auto_is_the_twin_after_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = token_logprobs(*ROWS, impl="torch")[0]
    monkeypatch.setitem(sys.modules, "refinerl.kernels.cpu", None)
    cross_entropy._warn.cache_clear()
    assert "refinerl._core is not built" in available()["cpu"].reason
    with pytest.raises(ValueError, match=r"impl must be one that can run here, got 'cpu': refinerl._core is not built"):
        token_logprobs(*ROWS, impl="cpu")
    with pytest.warns(RuntimeWarning, match="cross-entropy runs without its cpu kernels: refinerl._core is not built"):
        assert torch.equal(token_logprobs(*ROWS)[0], expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(token_logprobs(*ROWS)[0], expected)
