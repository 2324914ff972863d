"""Each process gets its device, or one sentence that says why not and what would work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from machines import H100, NO_DRIVER, OLD_DRIVER, OLD_FOR_KERNELS, T4, stand_in
from refinerl.engines import devices
from refinerl.engines.hardware import Hardware
from refinerl.engines.launched import Launched
from refinerl.errors import UserError

CUDA_1 = torch.device("cuda", 1)


def rank(local: int, of: int = 8) -> Launched:
    return Launched(local, of, local, of, "node-0")


def test_auto_is_the_gpu_where_there_is_one(monkeypatch):
    stand_in(monkeypatch)
    assert devices.claim("auto") == torch.device("cpu")
    machine = stand_in(monkeypatch, H100, H100)
    assert str(devices.claim("auto")) == "cuda:0"
    assert devices.accelerator() == "cuda"
    assert machine.used == ["cuda:0"]


def test_one_process_has_the_device_that_it_names_and_what_follows_goes_there_too(monkeypatch):
    machine = stand_in(monkeypatch, H100, H100)
    assert devices.claim("cuda:1") == CUDA_1
    assert machine.used == ["cuda:1"]
    assert devices.resolve("cuda") == devices.resolve("auto") == CUDA_1
    assert os.environ["LOCAL_RANK"] == "1"  # DeepSpeed and vLLM take the device of this number
    assert devices.accelerator() == "cuda"


def test_a_cpu_is_claimed_without_a_look_at_the_gpus(monkeypatch):
    class Untouched(Hardware):
        def fault(self, kind: str) -> str | None:
            raise AssertionError(kind)

    stand_in(monkeypatch)
    monkeypatch.setattr(devices, "hardware", Untouched())
    assert devices.claim("cpu") == devices.claim("cpu:0") == torch.device("cpu")
    assert devices.accelerator() == "cpu"


@pytest.mark.parametrize("name", ["gpu", "cuda:-1", "cuda:x", "CUDA", "", "meta", "1"])
def test_what_is_no_device(monkeypatch, name):
    stand_in(monkeypatch, H100)
    with pytest.raises(UserError, match=r"device must be auto, cpu, cuda or cuda:N with N from 0, got "):
        devices.claim(name)


@pytest.mark.parametrize(
    ("name", "facts", "message"),
    [
        (
            "cuda",
            {},
            r"^device=cuda needs a GPU, and PyTorch finds none here \(Found no NVIDIA [^.]*\): set device=cpu$",
        ),
        ("cuda:3", {"cards": 2}, r"^device=cuda:3 is not there, .* cuda:0 to cuda:1: choose device=cuda:1, or"),
        ("cuda:1", {"cards": 1}, r"this process sees cuda:0: choose device=cuda:0"),
        ("cuda", {"says": OLD_DRIVER}, r"newer NVIDIA driver .* too old \(found version 11040\).*set device=cpu$"),
        ("auto", {"says": OLD_DRIVER}, r"^device=auto needs a newer NVIDIA driver .* or set device=cpu$"),
        (
            "auto",
            {"says": "CUDA unknown error - this may be due to an incorrectly set up environment"},
            "unknown error",
        ),
        ("auto", {"says": "system not yet initialized"}, r"cannot be used \(system not yet initialized\): set device"),
        ("hpu", {}, r"^device=hpu cannot be used \(this PyTorch has none of that type\): set device=cpu$"),
        ("mps", {}, r"^device=mps cannot be used \(there is none here\): set device=cpu$"),
    ],
)
def test_a_device_that_cannot_be_used_is_refused_with_what_works(monkeypatch, name, facts, message):
    cards = [H100] * facts.pop("cards", 0)
    stand_in(monkeypatch, *cards, **facts)
    with pytest.raises(UserError, match=message):
        devices.claim(name)


def test_the_knob_is_the_one_that_was_set(monkeypatch):
    stand_in(monkeypatch)
    with pytest.raises(UserError, match=r"^--device=cuda needs a GPU.*set --device=cpu"):
        devices.claim("cuda", knob="--device")


@pytest.mark.skipif(torch.version.cuda is None or Path("/dev/nvidiactl").exists(), reason="needs no NVIDIA driver")
def test_this_machine_says_what_the_stand_in_says():
    """PyTorch's own words, by which a GPU that is not there is told from one that does not work."""
    assert Hardware().fault("cuda") == NO_DRIVER
    assert devices.resolve("auto") == torch.device("cpu")


def test_each_rank_of_a_machine_has_its_own(monkeypatch):
    stand_in(monkeypatch, *[H100] * 8)
    assert [str(devices.claim("auto", rank(i))) for i in range(8)] == [f"cuda:{i}" for i in range(8)]
    assert str(devices.claim("cuda", rank(3))) == "cuda:3"


def test_slurm_may_show_each_task_one_gpu_only(monkeypatch):
    machine = stand_in(monkeypatch, H100)
    assert str(devices.claim("auto", rank(7))) == "cuda:0"
    assert machine.used == ["cuda:0"]
    assert os.environ["LOCAL_RANK"] == "0"


def test_more_ranks_than_devices(monkeypatch):
    stand_in(monkeypatch, H100, H100)
    assert str(devices.claim("auto", rank(1, of=3))) == "cuda:1"
    with pytest.raises(UserError, match=r"^this machine has 3 ranks and 2 devices of type cuda: start 2 ranks on it"):
        devices.claim("auto", rank(2, of=3))


def test_one_device_for_many_ranks(monkeypatch):
    stand_in(monkeypatch, H100, H100)
    with pytest.raises(UserError, match=r"^device=cuda:1 puts all 2 ranks on one device: set device=cuda, which"):
        devices.claim("cuda:1", rank(0, of=2))


def test_a_gpu_that_another_process_has_for_itself(monkeypatch):
    stand_in(
        monkeypatch, H100, refuses="CUDA error: all CUDA-capable devices are busy or unavailable\nCUDA kernel errors …"
    )
    with pytest.raises(
        UserError, match=r"^cuda:0 cannot be used \(CUDA error: all .* or unavailable\): end the process"
    ):
        devices.claim("auto")
    assert devices._claimed is None


def test_bfloat16_where_the_card_has_none(monkeypatch):
    stand_in(monkeypatch, H100, T4)
    devices.require_bfloat16(torch.device("cuda", 0), "dtype=bfloat16", "dtype=float32")
    with pytest.raises(UserError, match=r"8\.0 or newer, and cuda:1 \(Tesla T4\) has 7\.5: set dtype=float32$"):
        devices.require_bfloat16(CUDA_1, "dtype=bfloat16", "dtype=float32")


def test_kernels_that_the_driver_is_too_old_for(monkeypatch):
    machine = stand_in(monkeypatch, H100)
    devices.require_kernels(torch.device("cuda", 0))
    machine.without_kernels = OLD_FOR_KERNELS
    with pytest.raises(
        UserError, match=r"kernels.impl=cuda cannot run on cuda:0 \(.*525 or newer\): set kernels.impl="
    ):
        devices.require_kernels(torch.device("cuda", 0))
    with pytest.raises(
        UserError, match=r"^kernels.impl=cuda runs on CUDA devices, and device=cpu: set kernels.impl=auto"
    ):
        devices.require_kernels(torch.device("cpu"))


@pytest.mark.parametrize(
    ("needed", "message"),
    [
        (
            12,
            r"^cuda:0 \(NVIDIA H100 80GB HBM3\) has 3\.1 of 79\.1 GiB free, and the weights need 12\.0 GiB: end the o",
        ),
        (90, r"^cuda:0 \(NVIDIA H100 80GB HBM3\) has 79\.1 GiB, and the weights need 90\.0 GiB: choose less$"),
    ],
)
def test_too_little_free_memory(monkeypatch, needed, message):
    stand_in(monkeypatch, H100, free=3.1)
    device = torch.device("cuda", 0)
    devices.require_memory(device, 3 * devices.GIB, "the weights", "choose less")
    with pytest.raises(UserError, match=message):
        devices.require_memory(device, needed * devices.GIB, "the weights", "choose less")


def test_the_peak_of_memory_is_that_of_the_host_and_of_the_device(monkeypatch):
    class Counting(Hardware):
        def peak(self, device):
            return 3 * 2**30 if device.index == 0 else None

    monkeypatch.setattr(devices, "hardware", Counting())
    assert 0.01 < devices.peak_memory(torch.device("cpu"))["memory/host_peak"] < 1000
    assert devices.peak_memory(torch.device("cpu")).keys() == {"memory/host_peak"}
    assert devices.peak_memory(torch.device("cuda", 0))["memory/device_peak"] == 3
    assert "memory/device_peak" not in devices.peak_memory(torch.device("cuda", 1))  # a type that does not count
