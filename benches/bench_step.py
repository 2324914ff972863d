"""Whole training steps, phase by phase: ours with each saving on and off, the paper's way, and TRL's GRPO, in one run.

    python benches/bench_step.py                       # SmolLM2-135M and the miniature, on two CPU cores
    python benches/bench_step.py --quick               # the miniature alone, a few responses: a minute or two
    python benches/bench_step.py --device cuda         # on one GPU

A contestant is a process that takes a few steps, the first of which warms up and is left out. Contestants take turns,
so that a machine that changes its speed favours none; a row is the mean over the measured steps of all turns. All have
the same model, prompts, group size, limits, threads and reward, in float32. They sample other responses, since their
random numbers differ and the lengths are the model's own, so seconds are also given per 100 tokens of y. TRL is left
out where it is not installed (`step_rival.py` says how it is set). `--against` measures another checkout too.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

Row = dict[str, float]

ROOT = Path(__file__).parents[1]
SECONDS = 3600
"""Of one process."""

SAVINGS = {
    "programs in one process": "sandbox.isolate=test",
    "no KL metric": "telemetry.kl_every=1",
    "y as draft": "refiner.drafts=0",
    "no logprobs for heat maps": "telemetry.token_costs=4",
    "shared prefixes": "trainer.share_prefixes=never",
}
"""Name -> the override that switches it off. They are on in every other contestant."""
ON = ("sandbox.isolate=program", "telemetry.kl_every=1000", "telemetry.token_costs=0")


@dataclass(frozen=True)
class Case:
    """A model and its work."""

    recipe: str
    overrides: tuple[str, ...]


CASES = {
    "smollm": Case("smollm", ("trainer.batch=8", "generation.max_tokens=96", "algorithm.max_resamples=0", *ON)),
    "miniature": Case("demo", ("evaluate.every=0", *ON)),
}
"""SmolLM2-135M with 2 × 4 responses of at most 96 tokens, and a small model that refines as a good refiner does."""
QUICK = ("trainer.batch=16", "trainer.minibatch=8", "generation.max_tokens=32", "trainer.warmup=0")


@dataclass(frozen=True)
class Contestant:
    """A way to take a step: ours with these overrides, or TRL's with this β."""

    name: str
    overrides: tuple[str, ...] = ()
    beta: float | None = None
    """TRL's; None: ours."""
    package: Path = ROOT / "python"
    """Folder that `refinerl` is imported from."""


DYNAMIC = ("constraint.name=dynamic",)
NONE = ("constraint.name=none",)


def contestants(against: Path | None, device: str = "cpu") -> Iterator[Contestant]:
    """All contestants, the rival last. On a GPU there are no shared prefixes in float32, whose attention is slow."""
    yield Contestant("DAPO", NONE)
    yield Contestant("DAPO + dynamic", DYNAMIC)
    for name, off in SAVINGS.items():
        if name == "shared prefixes" and device != "cpu":
            continue
        yield Contestant(f"DAPO + dynamic without: {name}", (*DYNAMIC, off))
    yield Contestant("DAPO, the paper's way", (*NONE, *SAVINGS.values()))
    yield Contestant("DAPO + dynamic, the paper's way", (*DYNAMIC, *SAVINGS.values()))
    yield Contestant("DAPO + static", ("constraint.name=static", "constraint.estimator=k3", "constraint.beta=0.01"))
    if against is not None:
        yield Contestant("DAPO, the other checkout", NONE, package=against / "python")
        yield Contestant("DAPO + dynamic, the other checkout", DYNAMIC, package=against / "python")
    if importlib.util.find_spec("trl") is not None:
        yield Contestant(RIVAL, beta=0.0)
        yield Contestant(f"{RIVAL}, beta", beta=0.01)


RIVAL = "TRL GRPO"


def known(package: Path, override: str) -> bool:
    """Return False for a knob that another checkout lacks."""
    section, _, knob = override.partition("=")[0].rpartition(".")
    file = package / "refinerl" / "config" / f"{section}.py"
    return not file.exists() or f"\n    {knob}:" in file.read_text()


@dataclass(frozen=True)
class Bench:
    """What all contestants have in common."""

    case: Case
    steps: int
    threads: int
    device: str
    overrides: tuple[str, ...] = ()

    def rows(self, contestant: Contestant) -> list[Row]:
        """Take the steps; return a row for each but the first."""
        ours = contestant.beta is None
        with tempfile.TemporaryDirectory(prefix="bench-step-") as folder:
            command, output = (self._ours if ours else self._rival)(contestant, Path(folder))
            paths = [str(contestant.package), *filter(None, [os.environ.get("PYTHONPATH")])]
            told = {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": str(self.threads), "HF_HUB_OFFLINE": "1"}
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=SECONDS, env={**os.environ, **told}, cwd=folder
            )
            if done.returncode:
                raise SystemExit(f"{contestant.name} ended with status {done.returncode}:\n{done.stderr[-2000:]}")
            if ours:
                return [_ours(json.loads(line)) for line in output.read_text().splitlines()][1:]
            return list(json.loads(output.read_text()))[1:]

    def _ours(self, contestant: Contestant, folder: Path) -> tuple[list[str], Path]:
        overrides = [word for word in self._overrides if known(contestant.package, word)]
        overrides += [*contestant.overrides, f"trainer.steps={self.steps}", f"device={self.device}"]
        command = [sys.executable, "-m", "refinerl.train", self.case.recipe, *overrides]
        return [*command, "--output-dir", str(folder / "run")], folder / "run" / "metrics.jsonl"

    def _rival(self, contestant: Contestant, folder: Path) -> tuple[list[str], Path]:
        asked = {
            "recipe": self.case.recipe,
            "overrides": [*self._overrides, *NONE],
            "steps": self.steps,
            "beta": contestant.beta,
            "device": self.device,
            "output": str(folder / "rows.json"),
        }
        return [sys.executable, str(ROOT / "benches" / "step_rival.py"), json.dumps(asked)], folder / "rows.json"

    @property
    def _overrides(self) -> tuple[str, ...]:
        return (*self.case.overrides, "trainer.schedule=constant", *self.overrides)


OURS = {
    "memory/host_peak": "host_gib",
    "memory/device_peak": "device_gib",
    "refiner/tokens": "refined_tokens",
    "refiner/tokens_decoded": "decoded",
    "refiner/passes": "passes",
    "refiner/copy_ratio": "copied",
    "time/constraint_share": "constraint",
    "update/tokens_shared": "shared",
}
"""Metric of ours -> column."""


def _ours(metrics: dict[str, float | None]) -> Row:
    row = {phase: metrics[f"time/{phase}"] or 0.0 for phase in ("step", *PHASES)}
    row |= {column: value for name, column in OURS.items() if (value := metrics.get(name)) is not None}
    return row | {"tokens": (metrics["tokens/step"] or 0.0) - (metrics.get("refiner/tokens") or 0.0)}


PHASES = ("generate", "score", "refine", "update", "sync")
COUNTS = ("tokens", "refined_tokens", "decoded", "passes")
HEAD = (
    "",
    "step",
    *PHASES,
    "tokens of y",
    "of ỹ",
    "decoded",
    "passes",
    "copied",
    "constraint",
    "shared",
    "GiB",
    "s / 100 tokens",
    "×",
)


def line(name: str, rows: Sequence[Row], rival: Sequence[Row]) -> list[str]:
    """A contestant's means as cells; the last is its step over the rival's, per token of y."""
    mean = {key: statistics.mean(row[key] for row in rows) for key in rows[0] if all(key in row for row in rows)}
    seconds = [f"{mean[phase]:.2f}" if phase in mean else "–" for phase in ("step", *PHASES)]
    counts = [f"{mean[count]:.0f}" if count in mean else "–" for count in COUNTS]
    shares = [f"{mean[share]:.0%}" if share in mean else "–" for share in ("copied", "constraint", "shared")]
    ratio = f"{price(rows) / price(rival):.2f}" if rival else "–"
    peak = f"{max(row.get('device_gib', row['host_gib']) for row in rows):.2f}"
    return [name, *seconds, *counts, *shares, peak, f"{100 * price(rows):.2f}", ratio]


def price(rows: Sequence[Row]) -> float:
    """Seconds per token of y."""
    return sum(row["step"] for row in rows) / sum(row["tokens"] for row in rows)


def table(found: dict[str, list[Row]]) -> str:
    """All contestants of a case, as Markdown."""
    rival = found.get(RIVAL, [])
    lines = [HEAD, ["---"] * len(HEAD), *(line(name, rows, rival) for name, rows in found.items() if rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", choices=CASES, help="the models (default: both)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="contestants by their exact names")
    parser.add_argument("--steps", type=int, default=3, help="of each process, at least 2; the first is left out")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each contestant")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="another checkout of this project, built")
    parser.add_argument("--set", nargs="+", default=[], metavar="KNOB=VALUE", help="overrides for all contestants")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows of all steps")
    parser.add_argument("--quick", action="store_true", help="a few responses of the miniature, one turn of two steps")
    options = parser.parse_args(arguments)
    if options.steps < 2:
        parser.error("--steps must be at least 2, since the first step is left out")
    entered = list(contestants(options.against, options.device))
    if options.only is not None:
        if unknown := set(options.only) - {contestant.name for contestant in entered}:
            known = ", ".join(repr(contestant.name) for contestant in entered)
            parser.error(f"--only must name some of {known}, got {sorted(unknown)}")
        entered = [contestant for contestant in entered if contestant.name in options.only]
    steps, rounds = (2, 1) if options.quick else (options.steps, options.rounds)
    found: dict[str, dict[str, list[Row]]] = {}
    for name in options.case or (["miniature"] if options.quick else CASES):
        case = CASES[name]
        if options.quick:
            case = Case(case.recipe, (*case.overrides, *QUICK))
        bench = Bench(case, steps, options.threads, options.device, tuple(options.set))
        rows: dict[str, list[Row]] = {contestant.name: [] for contestant in entered}
        for turn in range(rounds):
            for contestant in entered:
                print(f"{name}, turn {turn + 1} of {rounds}: {contestant.name}", file=sys.stderr, flush=True)
                rows[contestant.name] += bench.rows(contestant)
        found[name] = rows
        print(f"\n{name} on {options.device}, {options.threads} threads, {rounds} × {steps - 1} steps\n\n{table(rows)}")
    if options.json is not None:
        options.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
