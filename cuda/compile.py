"""Compiles the kernels for every architecture, with NVRTC alone: `python cuda/compile.py FOLDER`.

NVRTC comes from PyPI (`nvidia-cuda-nvrtc-cu12`, release 12.9); no GPU, driver or other compiler is needed. Writes
`sm_NN.cubin` for each architecture, `compute_NN.ptx` of the newest, and `usage.txt`, what the assembler says of each.
Exit status: 0 done, 3 no fit NVRTC here (stderr says where it was looked for), 1 the source does not compile.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from pathlib import Path

ARCHITECTURES = (80, 86, 89, 90, 100, 120)
SOURCE = Path(__file__).with_name("sequence_cross_entropy.cu")
NO_COMPILER = 3
OLDEST = (12, 9)
"""Of the releases of NVRTC 12, the one that is tested; those before 12.8 do not know the newest architectures."""


class CompileError(Exception):
    """The source does not compile; the message is the compiler's."""


def find_nvrtc() -> Path | None:
    """The library: REFINERL_NVRTC where that is set, else the one of this Python's packages."""
    if named := os.environ.get("REFINERL_NVRTC"):
        return Path(named) if Path(named).is_file() else None
    spec = importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations or () if spec else ():
        for found in sorted(Path(folder).glob("cuda_nvrtc/lib/libnvrtc.so.12")):
            return found
    return None


class Nvrtc:
    """The few calls of NVRTC that a compilation takes."""

    def __init__(self, library: Path) -> None:
        # The builtins beside it are opened by name; this makes them the ones of the same package.
        for builtins in sorted(library.parent.glob("libnvrtc-builtins.so*")):
            ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
        self._library = ctypes.CDLL(str(library))

    def version(self) -> tuple[int, int]:
        """Major and minor."""
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        return major.value, minor.value

    def compile(self, source: Path, options: list[str], result: str) -> tuple[bytes, str]:
        """The result ("CUBIN" or "PTX") and what the compiler said."""
        program = ctypes.c_void_p()
        text, name = source.read_bytes(), source.name.encode()
        self._call("nvrtcCreateProgram", ctypes.byref(program), text, name, 0, None, None)
        try:
            given = [option.encode() for option in options]
            status = self._library.nvrtcCompileProgram(program, len(given), (ctypes.c_char_p * len(given))(*given))
            said = self._read(program, "ProgramLog").rstrip(b"\0").decode()
            if status:
                raise CompileError(said or f"NVRTC failed with status {status}")
            return self._read(program, result), said
        finally:
            self._call("nvrtcDestroyProgram", ctypes.byref(program))

    def _read(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        content = ctypes.create_string_buffer(max(1, size.value))
        self._call(f"nvrtcGet{what}", program, content)
        return content.raw[: size.value]

    def _call(self, name: str, *arguments: object) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            raise CompileError(f"{name} failed with status {status}")


def compile_all(nvrtc: Nvrtc, folder: Path, source: Path = SOURCE) -> dict[int, str]:
    """Writes the cubins and the PTX into `folder`; for each architecture, what the assembler says of its kernels."""
    common = ["--std=c++17", f"--include-path={source.parent}", "--ptxas-options=-v"]
    usage = {}
    for number in ARCHITECTURES:
        cubin, usage[number] = nvrtc.compile(source, [*common, f"--gpu-architecture=sm_{number}"], "CUBIN")
        (folder / f"sm_{number}.cubin").write_bytes(cubin)
    newest = ARCHITECTURES[-1]
    ptx, _ = nvrtc.compile(source, [*common, f"--gpu-architecture=compute_{newest}"], "PTX")
    (folder / f"compute_{newest}.ptx").write_bytes(ptx.rstrip(b"\0") + b"\0")  # the driver reads to the first zero
    return usage


def main() -> int:
    """The command."""
    folder = Path(sys.argv[1])
    library = find_nvrtc()
    if library is None:
        looked = os.environ.get("REFINERL_NVRTC") or f"nvidia/cuda_nvrtc/lib of the packages of {sys.executable}"
        print(f"no NVRTC 12: looked for {looked}", file=sys.stderr)
        return NO_COMPILER
    try:
        nvrtc = Nvrtc(library)
        if nvrtc.version() < OLDEST:
            print(f"NVRTC {nvrtc.version()} at {library} is older than {OLDEST}", file=sys.stderr)
            return NO_COMPILER
        usage = compile_all(nvrtc, folder)
    except (CompileError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    (folder / "usage.txt").write_text("".join(usage.values()), encoding="utf-8")
    print(library)
    return 0


if __name__ == "__main__":
    sys.exit(main())
