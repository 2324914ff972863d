"""Load the pretend device: a device of PyTorch's that is not the CPU, on a machine without a GPU.

It is compiled by the host's C++ compiler in about ten seconds and kept under `target/`. Loading it changes the whole
process, so tests use it in a process of its own (`worker.py`).
"""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
import types
from pathlib import Path

import torch
from filelock import FileLock

NAME = "pretend"
"""As in `device=pretend`."""

_SOURCE = Path(__file__).with_name("pretend_device.cpp")
_BUILT = Path(__file__).parents[2] / "target" / "pretend_device"


def compiler() -> str | None:
    """The host's C++ compiler; None where there is none."""
    return shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")


def build() -> Path:
    """Compile the device for this PyTorch, unless it is there.

    Raises:
        RuntimeError: the compiler's errors.
    """
    found = compiler()
    if found is None:
        raise RuntimeError("the pretend device needs a C++ compiler")
    torch_folder = Path(torch.__file__).parent
    digest = hashlib.sha256(_SOURCE.read_bytes() + f"{torch.__version__}{torch.version.git_version}".encode())
    library = _BUILT / f"{digest.hexdigest()[:16]}.so"
    _BUILT.mkdir(parents=True, exist_ok=True)
    with FileLock(_BUILT / "lock"):
        if not library.exists():
            part = library.with_suffix(".part")
            command = [found, "-O1", "-std=c++20", "-w", "-fPIC", "-shared", str(_SOURCE), "-o", str(part)]
            command += [f"-I{torch_folder / 'include'}", f"-I{torch_folder / 'include/torch/csrc/api/include'}"]
            command += [f"-L{torch_folder / 'lib'}", "-ltorch_cpu", "-lc10"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(done.stderr)
            part.rename(library)
    return library


def load() -> None:
    """Make `torch.device("pretend")` work in this process, for good."""
    library = ctypes.CDLL(str(build()))
    library.pretend_limit.argtypes = [ctypes.c_size_t]
    for name in ("pretend_held", "pretend_peak"):
        getattr(library, name).restype = ctypes.c_size_t
    torch.utils.rename_privateuse1_backend(NAME)
    library.pretend_init()
    torch._register_device_module(NAME, _module(library))
    torch.utils.generate_methods_for_privateuse1_backend(for_storage=True)
    # PyTorch lets `module.to` keep the identity of parameters only between devices that it knows itself: elsewhere it
    # would untie tied weights. Swapping tensors in place keeps it.
    torch.__future__.set_swap_module_params_on_conversion(True)
    torch.UntypedStorage.cpu = _storage_on_cpu  # type: ignore[method-assign]


def _storage_on_cpu(storage: torch.UntypedStorage) -> torch.UntypedStorage:
    """For `torch.save`: PyTorch copies storages between devices by a function that other backends bring along."""
    if storage.device.type == "cpu":
        return storage
    whole = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage, 0, (storage.nbytes(),), (1,))
    return whole.cpu().untyped_storage()


def _module(library: ctypes.CDLL) -> types.ModuleType:
    """What PyTorch and its users ask of `torch.pretend`."""
    module = types.ModuleType(f"torch.{NAME}")
    module.is_available = lambda: True
    module.is_initialized = lambda: True
    module._is_in_bad_fork = lambda: False
    module.device_count = lambda: 1
    module.current_device = lambda: 0
    module.set_device = lambda device: None
    module.synchronize = lambda device=None: None
    module.empty_cache = lambda: None
    module.manual_seed = module.manual_seed_all = lambda seed: None  # its generator is the CPU's
    module.get_rng_state = lambda device=None: torch.get_rng_state()
    module.set_rng_state = lambda state, device=None: torch.set_rng_state(state)
    module.get_amp_supported_dtype = lambda: [torch.bfloat16, torch.float16]
    module.memory_allocated = lambda device=None: library.pretend_held()
    module.max_memory_allocated = lambda device=None: library.pretend_peak()
    module.set_memory_limit = library.pretend_limit
    module.reset_peak_memory_stats = lambda device=None: library.pretend_reset_peak()
    return module
