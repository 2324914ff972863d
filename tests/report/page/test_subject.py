"""The line that describes a run."""

from pathlib import Path

import pytest

from refinerl.errors import UserError
from refinerl.report.page import subject


def test_the_subject_names_what_held_the_run():
    both = "[{name: dynamic, apply: loss, beta: 0.01}, {name: 'my:Own', apply: reward, beta: 1}]"
    config = f"model: m\nalgorithm: {{name: 'my:GRPO'}}\nconstraint: {{name: none}}\nconstraints: {both}\n"
    expected = "GRPO on m, constraint dynamic in the loss, β = 0.01 and my:Own in the reward, β = 1"
    assert subject(Path("config.yaml"), config) == expected
    assert subject(Path("config.yaml"), "model: m\nalgorithm: {name: ppo}\nconstraint: {name: none}\n") == (
        "PPO on m, constraint none"
    )


def test_an_algorithm_whose_name_is_no_text():
    with pytest.raises(UserError, match=r"config.yaml is not the configuration of a run: 'list' object"):
        subject(Path("config.yaml"), "model: m\nalgorithm: {name: []}\nconstraint: {name: none}\n")
