"""The seconds of a step on 8, 64 and 512 GPUs, by arithmetic and a simulation, and which phase grows first.

python benches/scale.py       prints the tables of docs/scaling.md, always the same, within seconds

Every GPU has the same number of rows. Nothing here was measured on so many GPUs: lengths are drawn from a distribution
with a long tail, and work is the FLOP and bytes of docs/scaling.md at a share of the hardware's peak.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from refinerl.run.memory import find

COUNTS = (8, 64, 512)
ROWS, SAMPLES, PROMPT = 16, 8, 512
"""Rows of a GPU, in groups of so many samples; tokens of a prompt."""
STEPS = 50
BANDWIDTH, FLOPS = 0.6, 0.35
"""Shares of the peak that decoding and products reach."""
TOKENS = 16_384
"""Tokens of a micro-batch."""
TESTS, RATE, WALL = 10, 396, 4.0
"""Tests of a program; tests per second and core (docs/measurements.md: 792 on two cores); most seconds of a test."""


@dataclass(frozen=True)
class Machine:
    """A machine with eight GPUs: bytes and FLOP per second of a GPU, and of what connects it."""

    name: str
    memory: float
    peak: float
    network: float
    """Bytes per second into the machine, by all its cards together."""
    bus: float
    """Bytes per second from the host to a GPU."""


@dataclass(frozen=True)
class Lengths:
    """The distribution of response lengths: log-normal, half of the variance between prompts, cut at a limit."""

    name: str
    median: float
    spread: float
    """Standard deviation of the logarithm."""
    limit: int

    def draw(self, gpus: int, rows: int, rng: np.random.Generator) -> np.ndarray:
        """Draw the lengths of responses; (GPUs, rows) tokens."""
        prompts = rng.normal(size=(gpus, rows // SAMPLES, 1))
        samples = rng.normal(size=(gpus, rows // SAMPLES, SAMPLES))
        drawn = self.median * np.exp(self.spread * (prompts + samples) / np.sqrt(2))
        return np.minimum(np.ceil(drawn), self.limit).reshape(gpus, rows)


MACHINES = (
    Machine("A6000, 100 Gbit/s", 768e9, 155e12, 12.5e9, 25e9),
    Machine("H100, 100 Gbit/s", 3350e9, 989e12, 12.5e9, 50e9),
    Machine("H100, 3,200 Gbit/s", 3350e9, 989e12, 400e9, 50e9),
)
LENGTHS = (Lengths("answers", 300, 0.7, 1024), Lengths("reasoning", 3000, 1.0, 16_384))


def seconds(
    machine: Machine, lengths: Lengths, gpus: int, *, rows: int = ROWS, steps: int = STEPS, seed: int = 0
) -> dict[str, float]:
    """Simulate some steps; return the mean seconds of each phase, where `wait` is the wait for the slowest rank."""
    model = find("meta-llama/Llama-3.2-3B-Instruct")
    assert model is not None
    weights, token = 2 * model.parameters, 4 * model.layers * model.kv
    rng = np.random.default_rng(seed)
    machines = max(1, gpus // 8)
    across = (machines - 1) / machines / machine.network
    found: dict[str, list[float]] = {}
    for _ in range(steps):
        y = lengths.draw(gpus, rows, rng)

        def writes(prompt: np.ndarray | int, y: np.ndarray = y) -> np.ndarray:
            """Count each rank's seconds: the weights once per token of the longest row, and the caches of all rows."""
            caches = token * (y * prompt + y**2 / 2).sum(1)
            return np.asarray((y.max(1) * weights + caches) / (BANDWIDTH * machine.memory))

        read = 2 * model.parameters * (PROMPT + y).sum(1) / (FLOPS * machine.peak)
        phases = {"generate": writes(PROMPT), "refine": writes(PROMPT + y) + read, "measure": 2 * read}
        phases["update"] = 8 * read  # y and ỹ, 8·P FLOP a token with recomputation
        micro_batches = np.ceil(2 * (PROMPT + y).sum(1) / TOKENS).max()
        step = {name: float(rank.mean()) for name, rank in phases.items()}
        step["wait"] = sum(float(rank.max() - rank.mean()) for rank in phases.values())
        step["ZeRO-3"] = float((3 * micro_batches + 2 * np.ceil(micro_batches / 2)) * weights * across)
        step["ZeRO-2"] = float((2 * micro_batches + 1) * weights * across)
        step["hand-over"] = weights * across + weights / machine.bus
        for name, value in step.items():
            found.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in found.items()}


def cores(slow: float, share: float, spent: float) -> float:
    """Count the cores that one GPU's programs need if scoring may take a share of the rest of the step.

    `slow` is the share of programs that run into the limit of every test.
    """
    programs = 2 * ROWS
    work = programs * TESTS * ((1 - slow) / RATE + slow * WALL)
    return work / (share * spent)


def _spent(found: dict[str, float]) -> float:
    return sum(found[name] for name in ("generate", "refine", "measure", "update", "wait"))


def tables(counts: tuple[int, ...] = COUNTS, steps: int = STEPS) -> Iterator[str]:
    """Write the tables as lines of Markdown."""
    names = ("generate", "refine", "measure", "update", "wait", "hand-over", "ZeRO-2", "ZeRO-3")
    yield f"| machines | responses | GPUs | {' | '.join(names)} |"
    yield "|---" * (len(names) + 3) + "|"
    for machine in MACHINES:
        for lengths in LENGTHS:
            for gpus in counts:
                found = seconds(machine, lengths, gpus, steps=steps)
                cells = " | ".join(f"{found[name]:.1f}" for name in names)
                yield f"| {machine.name} | {lengths.name} | {gpus} | {cells} |"
    yield ""
    middle = counts[len(counts) // 2]
    yield f"| share of a step that the average rank waits, H100, {middle} GPUs | 16 rows per GPU | 64 | 256 |"
    yield "|---|---|---|---|"
    for lengths in LENGTHS:
        shares = []
        for rows in (16, 64, 256):
            found = seconds(MACHINES[1], lengths, middle, rows=rows, steps=steps)
            shares.append(f"{100 * found['wait'] / _spent(found):.0f} %")
        yield f"| {lengths.name} | {' | '.join(shares)} |"
    yield ""
    yield "| cores per GPU with which scoring takes a tenth of the rest | no program at the limit | 2 % | 10 % |"
    yield "|---|---|---|---|"
    for machine in MACHINES[:2]:
        for lengths in LENGTHS:
            found = seconds(machine, lengths, counts[0], steps=steps)
            cells = " | ".join(f"{cores(slow, 0.1, _spent(found)):.1f}" for slow in (0, 0.02, 0.1))
            yield f"| {machine.name.partition(',')[0]}, {lengths.name} | {cells} |"


if __name__ == "__main__":
    print("\n".join(tables()))
