"""Hand-written types of the Rust extension; `make lint` holds them against the module (stubtest)."""

from collections.abc import Sequence
from os import PathLike
from typing import Any, Protocol, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Alignment",
    "CudaDevice",
    "CudaLogits",
    "CudaPlace",
    "Protection",
    "SandboxError",
    "TestReport",
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
    "prefix_order",
    "prefix_tree",
    "read_ints_directly",
    "tree_attention",
    "tree_attention_backward",
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
    *,
    threads: int | None = None,
) -> list[Alignment] | None: ...
def charge(costs: NDArray[np.float64], alignments: list[Alignment], lengths: list[int]) -> NDArray[np.float64]: ...
def filter_refinements(
    *,
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
    logits: _Floats, targets: NDArray[np.int64], *, scale: float, threads: int, level: str
) -> tuple[_Floats, _Floats]: ...
def cross_entropy_fused(
    logits: _Floats,
    targets: NDArray[np.int64],
    *,
    grad_nll: _Floats,
    grad_entropy: _Floats | None,
    scale: float,
    threads: int,
    level: str,
) -> tuple[_Floats, _Floats]: ...

_Reals: TypeAlias = NDArray[np.float32] | NDArray[np.float64]

def tree_attention(
    queries: _Reals,
    keys: _Reals,
    values: _Reals,
    depths: NDArray[np.int64],
    *,
    scale: float,
    threads: int,
    level: str,
) -> _Reals: ...
def tree_attention_backward(
    queries: _Reals,
    keys: _Reals,
    values: _Reals,
    depths: NDArray[np.int64],
    slopes: _Reals,
    *,
    scale: float,
    threads: int,
    level: str,
) -> list[_Reals]: ...

# --- kernels on CUDA devices -----------------------------------------------------------------------------------------
# Addresses and streams are plain integers. refinerl.kernels.cuda is the only caller, and has checked the tensors.

@final
class CudaPlace:
    """The device and the stream that a kernel runs on."""

    def __new__(cls, *, device: int, stream: int) -> CudaPlace: ...

@final
class CudaLogits:
    """Rows of logits and their targets. Addresses are in bytes, `stride` and `length` in items."""

    def __new__(
        cls, *, item: str, address: int, rows: int, stride: int, length: int, targets: int, scale: float
    ) -> CudaLogits: ...

@final
class CudaDevice:
    """A CUDA device of this process: its compute capability, and the image that runs on it or why none does."""

    @property
    def capability(self) -> tuple[int, int]: ...
    @property
    def image(self) -> str | None: ...
    @property
    def reason(self) -> str | None: ...

def cuda_architectures() -> list[str]: ...
def cuda_devices() -> list[CudaDevice]: ...
def cuda_load(device: int) -> None: ...
def cuda_statistics(place: CudaPlace, logits: CudaLogits, *, nll: int, entropy: int) -> None: ...
def cuda_fused(
    place: CudaPlace, logits: CudaLogits, *, grad_nll: int, grad_entropy: int, nll: int, entropy: int
) -> None: ...
def cuda_kept_rows(place: CudaPlace, *, weights: int, rows: int, indices: int, count: int) -> None: ...

# --- packing ---------------------------------------------------------------------------------------------------------

_Integers: TypeAlias = NDArray[np.int64]

def prefix_order(ids: _Integers, lengths: _Integers) -> tuple[_Integers, _Integers]:
    """Sort rows of ids. Returns their indices, and the tokens that each shares with the one before it."""

def prefix_tree(
    ids: _Integers, lengths: _Integers
) -> tuple[_Integers, _Integers, _Integers, _Integers, _Integers, _Integers, _Integers, _Integers]:
    """Make the tree of rows. Returns the fields of `refinerl.kernels.prefixes.PrefixTree`, in their order."""

# --- sandbox ---------------------------------------------------------------------------------------------------------

class SandboxError(Exception):
    """The sandbox itself failed, or cannot work here. Never the fault of a judged program."""

class _OrderLimits(Protocol):
    @property
    def wall_seconds(self) -> float: ...
    @property
    def cpu_seconds(self) -> float: ...
    @property
    def memory_bytes(self) -> int: ...
    @property
    def output_bytes(self) -> int: ...

class _Order(Protocol):
    """A program; the core reads these attributes."""

    @property
    def source(self) -> bytes: ...
    @property
    def fn_name(self) -> str | None: ...
    @property
    def preamble(self) -> bool: ...
    @property
    def tests(self) -> Sequence[tuple[bytes, bytes | None]]: ...
    @property
    def atol(self) -> float | None: ...
    @property
    def limits(self) -> _OrderLimits: ...
    @property
    def stop_early(self) -> bool: ...
    @property
    def together(self) -> bool: ...

@final
class TestReport:
    """The result of one test. `stdout` and `value`, a returned value in marshal's format 2, are there with `keep`."""

    @property
    def outcome(self) -> str: ...
    @property
    def wall_seconds(self) -> float: ...
    @property
    def cpu_seconds(self) -> float: ...
    @property
    def stderr(self) -> str: ...
    @property
    def expected(self) -> str | None: ...
    @property
    def got(self) -> str | None: ...
    @property
    def stdout(self) -> bytes: ...
    @property
    def value(self) -> bytes | None: ...

@final
class Protection:
    """A mechanism that isolates programs."""

    @property
    def name(self) -> str: ...
    @property
    def on(self) -> bool: ...
    @property
    def reason(self) -> str: ...
    @property
    def exposed(self) -> str: ...

@final
class Zygotes:
    """The zygotes of one sandbox."""

    def __new__(
        cls, *, python: str | PathLike[str], workers: int, full: bool, packages: Sequence[tuple[str, str]]
    ) -> Zygotes: ...
    def run(self, orders: Sequence[_Order], *, keep: bool) -> list[list[TestReport]]:
        """Run all tests and return a report on each. With `keep`, reports hold standard output and returned values."""
    def isolation(self) -> list[Protection]:
        """The isolation report."""
    def close(self) -> None: ...
