"""Hand-written types of the Rust extension; `make lint` holds them against the module (stubtest)."""

from collections.abc import Sequence
from os import PathLike
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Alignment",
    "SandboxError",
    "Zygotes",
    "__version__",
    "align",
    "charge",
    "cross_entropy_fused",
    "cross_entropy_levels",
    "cross_entropy_statistics",
    "cuda_architectures",
    "cuda_devices",
    "cuda_fused",
    "cuda_kept_rows",
    "cuda_load",
    "cuda_statistics",
    "filter_refinements",
    "read_ints_directly",
]

__version__: str

# --- alignment -------------------------------------------------------------------------------------------------------

_Tokens: TypeAlias = NDArray[np.int32] | NDArray[np.int64] | list[int] | tuple[int, ...]

@final
class Alignment:
    @staticmethod
    def from_runs(original_length: int, refined_length: int, runs: list[tuple[int, int, int]]) -> Alignment: ...
    @property
    def original_length(self) -> int: ...
    @property
    def refined_length(self) -> int: ...
    @property
    def prefix(self) -> int: ...
    @property
    def distance(self) -> int: ...
    @property
    def copy_ratio(self) -> float: ...
    @property
    def runs(self) -> list[tuple[int, int, int]]: ...
    @property
    def original_kept(self) -> NDArray[np.bool_]: ...
    @property
    def refined_kept(self) -> NDArray[np.bool_]: ...
    @property
    def refined_to_original(self) -> NDArray[np.int64]: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[object, tuple[int, int, list[tuple[int, int, int]]]]: ...

def align(
    originals: list[Any],
    refined: list[Any],
    threads: int | None = None,
) -> list[Alignment] | None: ...
def charge(costs: NDArray[np.float64], alignments: list[Alignment], lengths: list[int]) -> NDArray[np.float64]: ...
def filter_refinements(
    rewards: NDArray[np.float64],
    refined_rewards: NDArray[np.float64],
    prompts: NDArray[np.int64],
    refined: list[_Tokens],
    accept: str,
    max_reward: float | None,
) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]: ...
def read_ints_directly(allowed: bool) -> bool:
    """Allows, as from the start, or forbids to read the ints of lists where CPython keeps them instead of one by one
    through its stable interface; returns whether it is done from now on. For tests: the results are the same."""

# --- kernels, on the CPU ---------------------------------------------------------------------------------------------

_Floats: TypeAlias = NDArray[np.float32]

def cross_entropy_levels() -> list[str]: ...
def cross_entropy_statistics(
    logits: _Floats, targets: NDArray[np.int64], scale: float, threads: int, level: str
) -> tuple[_Floats, _Floats]: ...
def cross_entropy_fused(
    logits: _Floats,
    targets: NDArray[np.int64],
    grad_nll: _Floats,
    grad_entropy: _Floats | None,
    scale: float,
    threads: int,
    level: str,
) -> tuple[_Floats, _Floats]: ...

# --- kernels on CUDA devices: addresses and streams are plain integers, which only refinerl.kernels.cuda passes -------

_On: TypeAlias = tuple[int, int]
"""Device number, stream."""
_Rows: TypeAlias = tuple[str, int, int, int, int, int, float]
"""Type, address, rows, stride and length in items, address of the targets, scale."""

def cuda_architectures() -> list[str]: ...
def cuda_devices() -> list[tuple[int, int, str | None, str | None]]: ...
def cuda_load(device: int) -> None: ...
def cuda_statistics(on: _On, rows: _Rows, nll: int, entropy: int) -> None: ...
def cuda_fused(on: _On, rows: _Rows, grad_nll: int, grad_entropy: int, nll: int, entropy: int) -> None: ...
def cuda_kept_rows(on: _On, weights: int, rows: int, indices: int, count: int) -> None: ...

# --- sandbox ---------------------------------------------------------------------------------------------------------

class SandboxError(Exception):
    """The sandbox itself failed, or cannot work here. Never the fault of a judged program."""

_Test: TypeAlias = tuple[bytes, bytes | None]
_Limits: TypeAlias = tuple[float, float, int, int]
_Order: TypeAlias = tuple[bytes, str | None, bool, Sequence[_Test], float | None, _Limits, bool, bool]
_Row: TypeAlias = tuple[str, float, float, str, tuple[str, str] | None, bytes, bytes | None]

@final
class Zygotes:
    """The zygotes of one sandbox."""

    def __new__(
        cls, python: str | PathLike[str], workers: int, full: bool, packages: Sequence[tuple[str, str]]
    ) -> Zygotes: ...
    def run(self, orders: Sequence[_Order], keep: bool) -> list[list[_Row]]:
        """For each program and each of its tests: outcome, wall and processor seconds, stderr, (expected, got) where
        they differ, stdout and the encoded value where `keep` is set."""
    def isolation(self) -> list[tuple[str, bool, str, str]]:
        """Name, on, why not, what that exposes, of each protection."""
    def close(self) -> None: ...
