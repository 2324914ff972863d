"""Builds and calls the emulator of `cuda/emulator/`: the CUDA kernels' own source on the host."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor

CUDA = Path(__file__).parents[1] / "cuda"
NAMES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}

SANITIZERS = {
    "none": ([], []),
    "address": (["-DEMULATOR_ADDRESS"], ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]),
    "thread": (["-DEMULATOR_THREAD"], ["-fsanitize=thread"]),
}


class Builder:
    """Compiles units of the emulator, each once; kernels and their callers are instrumented, the emulator is not."""

    def __init__(self, folder: Path, sanitizer: str = "none") -> None:
        compiler = shutil.which("g++")
        if compiler is None:
            pytest.skip("no g++ to compile the emulator with")
        self.folder, self._compiler = folder, compiler
        self._switch, self._instrument = SANITIZERS[sanitizer]
        folder.mkdir(parents=True, exist_ok=True)

    def unit(self, name: str, source: Path = CUDA) -> Path:
        """The object file of a unit; of sources other than the project's own, it is compiled each time."""
        built = (self.folder if source == CUDA else source) / f"{name}.o"
        if not built.exists():
            folder = source / "emulator"
            flags = ["-std=c++20", "-O1", "-g", "-U_FORTIFY_SOURCE", "-fPIC", "-Wall", "-Wextra", "-Werror"]
            # Pragmas are for the device's compiler.
            flags += ["-Wno-unknown-pragmas", f"-I{folder}"]
            flags += self._switch if name == "emulator" else self._instrument
            self._run(*flags, "-c", folder / f"{name}.cc", "-o", built)
        return built

    def program(self, kernels: Path = CUDA) -> Path:
        """`check.cc` with the kernels of these sources."""
        target = (self.folder if kernels == CUDA else kernels) / "check"
        units = [self.unit("kernels", kernels), self.unit("check"), self.unit("emulator")]
        self._run(*self._instrument, *units, "-o", target)
        return target

    def emulator(self) -> Path:
        """The emulated kernels as a library."""
        target = self.folder / "libemulator.so"
        self._run("-shared", self.unit("kernels"), self.unit("emulator"), "-o", target)
        return target

    def driver(self) -> Path:
        """The folder of the stand-in libcuda.so.1, behind which the emulated kernels are."""
        self.emulator()
        target = self.folder / "driver" / "libcuda.so.1"
        target.parent.mkdir()
        links = [f"-L{self.folder}", "-lemulator", f"-Wl,-rpath,{self.folder}", "-Wl,-soname,libcuda.so.1"]
        self._run("-shared", self.unit("driver"), *links, "-o", target)
        return target.parent

    def _run(self, *arguments: str | Path) -> None:
        done = subprocess.run([self._compiler, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


class Emulator:
    """Calls kernels by name on CPU tensors."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        word, size = ctypes.c_uint, ctypes.c_size_t
        self._library.emulate.argtypes = [ctypes.c_char_p, word, word, size, ctypes.c_uint64, ctypes.c_void_p]

    def launch(self, name: str, blocks: int, threads: int, *arguments: object, shared: int = 0, seed: int = 0) -> None:
        """Arguments: tensors by address, None a null one, int 64-bit, float 32-bit, or of a ctypes type."""
        values = [self._value(argument) for argument in arguments]
        places = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        status = self._library.emulate(name.encode(), blocks, threads, shared, seed, ctypes.addressof(places))
        assert status == 0, f"no kernel {name}"

    @staticmethod
    def _value(argument: object) -> ctypes._SimpleCData:  # type: ignore[type-arg]
        match argument:
            case Tensor():
                return ctypes.c_void_p(argument.data_ptr())
            case None:
                return ctypes.c_void_p()
            case int():
                return ctypes.c_int64(argument)
            case float():
                return ctypes.c_float(argument)
            case _:
                return argument  # type: ignore[return-value]


class EmulatedEpilogue:
    """The epilogue's protocol on CPU tensors, each row one emulated block."""

    def __init__(self, emulator: Emulator, *, threads: int = 64, resident: bool = False, seed: int = 0) -> None:
        self.emulator, self.threads, self.resident, self.seed = emulator, threads, resident, seed

    def _launch(self, kernel: str, logits: Tensor, targets: Tensor, scale: float, *rest: Tensor | None) -> None:
        rows, length = logits.shape
        shared = length * logits.element_size() + 16 if "resident" in kernel else 0
        head = (logits, logits.stride(0), ctypes.c_int(length), targets, float(scale))
        name = f"{kernel}_{NAMES[logits.dtype]}"
        self.emulator.launch(name, rows, self.threads, *head, *rest, shared=shared, seed=self.seed)

    def statistics(self, logits: Tensor, targets: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        nll, entropy = torch.empty(len(logits)), torch.empty(len(logits))
        self._launch("statistics", logits, targets, scale, nll, entropy)
        return nll, entropy

    def fused(
        self, logits: Tensor, targets: Tensor, grad_nll: Tensor, grad_entropy: Tensor | None, scale: float
    ) -> tuple[Tensor, Tensor]:
        nll, entropy = torch.empty(len(logits)), torch.empty(len(logits))
        kernel = "fused_resident" if self.resident else "fused"
        self._launch(kernel, logits, targets, scale, grad_nll, grad_entropy, nll, entropy)
        return nll, entropy
