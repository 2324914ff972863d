"""What a library changes in the process is put back."""

from __future__ import annotations

import pytest
import torch

from refinerl.engines.guest import threads, untouched


def test_threads_and_the_precision_of_products_are_as_before(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "set_num_threads", torch.set_num_threads)
    count, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(3)
    torch.set_float32_matmul_precision("high")
    try:
        with untouched():
            torch.set_num_threads(1)
            torch.set_num_threads = lambda _: None
            torch.set_float32_matmul_precision("highest")
        assert torch.get_num_threads() == 3
        assert torch.get_float32_matmul_precision() == "high"
        with threads(2):
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(count)
        torch.set_float32_matmul_precision(precision)


@pytest.mark.parametrize(("in_use", "asked"), [(True, [3]), (False, [])])
def test_of_eight_gpus_only_the_current_one_is_looked_at(monkeypatch: pytest.MonkeyPatch, in_use, asked):
    """To ask a GPU for the state of its generator opens a context on it; one that nobody uses has no state to keep."""
    seen: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: in_use)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: seen.append(int(str(device).split(":")[-1])))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda *_: None)
    with untouched():
        pass
    assert seen == asked
