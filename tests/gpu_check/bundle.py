"""The packages that a machine without network may lack, as wheels in a folder: filled here, unpacked there.

`python tests/gpu_check/bundle.py FOLDER` fills it, with the Python of the build: for CPython 3.12 on Linux, x86-64. The
machine has PyTorch with CUDA, transformers, peft and pytest of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

BINARY = (
    "annotated-types",
    "hjson",
    "liger-kernel",
    "msgpack",
    "omegaconf",
    "py-cpuinfo",
    "pydantic",
    "pydantic_core",
    "pytest-timeout",
    "typing-inspection",
    "typing_extensions",
)
SOURCE = ("deepspeed",)
"""They have no wheels; ours are of Python alone."""
EXTRA = {"liger-kernel": "liger-kernel==0.8.5"}
"""Versions of what constraints.txt does not name."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
CORE = "_core.abi3.so"
LARGEST = 60 * 2**20
"""Bytes of the folder."""


def fill(folder: Path, root: Path) -> int:
    """Downloads or builds the wheels, and copies the extension module; returns the folder's bytes.

    Raises:
        RuntimeError: the extension is not built, a wheel is not of Python alone, or the folder is too large.
    """
    core = root / "python" / "refinerl" / CORE
    if not core.exists():
        raise RuntimeError(f"{core} is missing: `make setup` builds it")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pip = [sys.executable, "-m", "pip", "--quiet"]
    pins = ["--no-deps", "--constraint", str(root / "constraints.txt")]
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    target = ["--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp", *platforms]
    names = [EXTRA.get(name, name) for name in BINARY]
    subprocess.run([*pip, "download", *pins, *target, "--dest", str(folder), *names], check=True)
    build = [*pip, "wheel", *pins, "--no-build-isolation", "--wheel-dir", str(folder), *SOURCE]
    subprocess.run(build, check=True, env={**os.environ, "DS_BUILD_OPS": "0"})
    for name in SOURCE:
        if not any("none-any" in wheel.name for wheel in folder.glob(f"{name}-*.whl")):
            raise RuntimeError(f"the wheel of {name} is for this Python alone")
    shutil.copy2(core, folder / CORE)
    size = sum(file.stat().st_size for file in folder.iterdir())
    if size > LARGEST:
        raise RuntimeError(f"{folder} takes {size / 2**20:.1f} MiB, more than {LARGEST / 2**20:.0f}")
    return size


def unpack(folder: Path, target: Path, source: Path) -> Path:
    """Unpacks the wheels into `target`, and puts the extension into the package below `source`."""
    target.mkdir(parents=True)
    for wheel in sorted(folder.glob("*.whl")):
        with zipfile.ZipFile(wheel) as content:
            content.extractall(target)
    core = folder / CORE
    if core.exists():
        place = source / "refinerl" / CORE
        fresh = place.with_name(f"{CORE}.{os.getpid()}")
        shutil.copy2(core, fresh)
        fresh.replace(place)  # a process may have the old one open
    return target


if __name__ == "__main__":
    bytes_of_all = fill(Path(sys.argv[1]), Path(__file__).parents[2])
    print(f"{sys.argv[1]}: {bytes_of_all / 2**20:.1f} MiB")
