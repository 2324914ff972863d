"""TRL's convention: the reward functions of its documentation give the same rewards here as in its own trainer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import trl_examples
from refinerl.errors import UserError
from refinerl.tasks.trl import Log
from trl_examples import EXAMPLES, Example, rewards, values

needs_trl = pytest.mark.skipif(
    find_spec("trl") is None or find_spec("math_verify") is None,
    reason="TRL and math-verify are not installed: make setup installs them",
)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_the_examples_of_the_documentation(example: Example) -> None:
    assert values(example) == example.expected


@needs_trl
@pytest.mark.slow
def test_the_rewards_are_those_of_trls_own_trainer() -> None:
    """TRL has a process of its own, since it changes what others import."""
    done = subprocess.run(
        [sys.executable, trl_examples.__file__],
        capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    assert found["ours"] == found["trl"] == found["expected"]
    assert len(found["trl"]) == len(EXAMPLES) + 4


def test_several_rewards_are_added_up_and_none_is_left_out() -> None:
    (together,) = [example for example in EXAMPLES if example.name == "4"]
    assert [reward and reward.value for reward in rewards(together)] == [1.0, 1.0, -1.0]


def test_what_a_reward_logs_is_kept() -> None:
    (example,) = [example for example in EXAMPLES if example.name == "log_extra"]
    first, second = rewards(example)
    assert first is not None
    assert second is not None
    assert (dict(first.extra), dict(second.extra)) == ({"wanted": "4"}, {"wanted": "6"})
    assert first.logged == second.logged == {"accuracy": 0.5}


def test_a_function_may_name_only_what_it_needs() -> None:
    rows = [{"prompt": "2 + 2 =", "answer": "four"}]
    assert values(Example("", rows, ["4"], [trl_examples.columns_alone], [])) == [[4.0]]


def test_the_spelling_of_an_older_page_works_too() -> None:
    def misspelt(completions_ids: Any, **_: Any) -> list[float]:
        return [float(len(tokens)) for tokens in completions_ids]

    assert values(Example("", [{"prompt": "a"}], ["abc"], [misspelt], [])) == [[3.0]]


def test_what_is_logged_must_fit() -> None:
    log = Log("mine", 2)
    with pytest.raises(UserError, match="the reward function mine logged 1 values of 'a', not 2"):
        log.log_extra("a", [1])
    with pytest.raises(UserError, match="logged 'x' as 'b': a metric must be a number"):
        log.log_metric("b", "x")  # type: ignore[arg-type]
    log.log_extra("c", [Path("/"), float("nan")])
    assert log.columns == [{"c": "/"}, {"c": "nan"}]
    log.log_metric("d", 1)
    log.log_metric("d", 2)
    assert log.metrics == {"d": 1.5}
