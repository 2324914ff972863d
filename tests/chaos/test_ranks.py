"""Two ranks with vLLM and DeepSpeed, each of which is killed, or stopped for good, in each phase of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.cases import CHAINS, SHORT
from chaos.conftest import WHOLE
from chaos.runs import Case, Server, check
from launching import needs_deepspeed, needs_vllm
from toy import Toy, metrics, timeless, write_problems

pytestmark = [needs_deepspeed, needs_vllm, pytest.mark.slow]
FLAGS = ("--engines",)
RUN = (
    "device=cpu",
    "engines.generator=vllm",
    "engines.trainer=deepspeed",
    "engines.timeout=60",
    "deepspeed.zero_optimization.stage=2",
    "constraint.accept=all",
    "algorithm.dynamic_sampling=false",
    "generation.max_tokens=4",
    "trainer.minibatch=4",
    "trainer.steps=3",
    "checkpoint.every=1",
    "evaluate.every=2",
    "evaluate.benchmark=apps",
    "evaluate.prompting=completion",
    "evaluate.max_tokens=1",
    "evaluate.limit=2",
)


@pytest.fixture(scope="module")
def run(wide_toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Return the options of all runs."""
    return (*RUN, f"evaluate.data={write_problems(tmp_path_factory.mktemp('problems'))}")


@pytest.fixture(scope="module")
def whole(server: Server, wide_toy: Toy, run: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run without a failure, for comparison."""
    output = tmp_path_factory.mktemp("whole") / "run"
    end, err, _ = server.run(wide_toy.arguments(output, *run), ranks=2)
    assert end["codes"] == [0, 0], err
    return output


def chains() -> list[object]:
    skip = pytest.mark.skipif(not WHOLE, reason="a part of the whole matrix: make chaos")
    return [pytest.param(SHORT, id="short"), *(pytest.param(c, id=name, marks=skip) for name, c in CHAINS.items())]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("chain", chains())
def test_ranks_that_die_and_ranks_that_stop(
    server: Server, wide_toy: Toy, run: tuple[str, ...], whole: Path, tmp_path: Path, chain: list[Case]
):
    """Resume each case's run from what the previous one left; the last run must give the metrics of `whole`."""
    output = tmp_path / "run"
    for case in chain:
        end, err, out = server.run([*wide_toy.arguments(output, *run, *case.overrides), "--resume"], ranks=2, case=case)
        check(case, end, err)
        goes_on(case.name, out, output)
    end, err, out = server.run([*wide_toy.arguments(output, *run), "--resume"], ranks=2)
    assert end["codes"] == [0, 0], err
    assert [row["step"] for row in metrics(output)] == [0, 1, 2, 3]
    for mine, theirs in zip(timeless(output), timeless(whole), strict=True):
        assert mine.keys() == theirs.keys()
        for name, value in theirs.items():
            assert mine[name] == (value if value is None else pytest.approx(value, abs=1e-4, rel=1e-4)), name
    assert not [path for path in output.rglob("*") if "partial" in path.name]


def goes_on(name: str, out: str, output: Path) -> None:
    """Print a line about a case, which pytest shows with -s."""
    last = "; ".join(line for line in out.splitlines() if line.startswith(("resuming", "step"))) or "no step"
    print(f"{name}: ended as it must; {last}; {sorted(path.name for path in output.glob('checkpoint-*'))}")
