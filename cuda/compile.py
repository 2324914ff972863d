"""Compile the kernels for every architecture with NVRTC alone: `python cuda/compile.py FOLDER`.

NVRTC comes from PyPI (`nvidia-cuda-nvrtc-cu12`, release 12.9). No GPU, driver or other compiler is needed. The command
writes `sm_NN.cubin` for each architecture, `compute_NN.ptx` for the newest, and the assembler's report, `usage.txt`.
Exit status: 0 if done, 1 if the source does not compile, 3 if there is no suitable NVRTC (stderr says where it looked).
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
"""The tested release of NVRTC 12. Releases before 12.8 do not know the newest architectures."""


class CompileError(Exception):
    """The source does not compile; the message is the compiler's."""


def find_nvrtc() -> Path | None:
    """Find the library: REFINERL_NVRTC if that is set, else the one among the packages of this Python."""
    if named := os.environ.get("REFINERL_NVRTC"):
        return Path(named) if Path(named).is_file() else None
    spec = importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations or () if spec else ():
        for found in sorted(Path(folder).glob("cuda_nvrtc/lib/libnvrtc.so.12")):
            return found
    return None


class Nvrtc:
    """The calls of NVRTC that a compilation needs."""

    def __init__(self, library: Path) -> None:
        # NVRTC opens its builtins by name; loading them first makes them those of the same package.
        for builtins in sorted(library.parent.glob("libnvrtc-builtins.so*")):
            ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
        self._library = ctypes.CDLL(str(library))

    def version(self) -> tuple[int, int]:
        """Return the major and minor version."""
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        return major.value, minor.value

    def compile(self, source: Path, options: list[str], result: str) -> tuple[bytes, str]:
        """Compile a source. Returns the result ("CUBIN" or "PTX") and the compiler's log."""
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
    """Write the cubins and the PTX to `folder`. Returns the assembler's report for each architecture."""
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
    """Run the command."""
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
