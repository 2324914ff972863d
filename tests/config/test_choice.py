"""The options of the algorithm and the constraint, by the class that each names."""

import pytest

from refinerl.config import Config


def test_defaults_follow_the_algorithm():
    dapo, ppo = Config(algorithm={"name": "dapo"}), Config(algorithm={"name": "ppo"})
    assert (dapo.algorithm.samples_per_prompt, dapo.algorithm.clip_low, dapo.algorithm.clip_high) == (8, 0.2, 0.3)
    assert (ppo.algorithm.samples_per_prompt, ppo.algorithm.clip_low, ppo.algorithm.clip_high) == (1, 0.2, 0.2)


def test_defaults_follow_the_constraint():
    static = Config(constraint={"name": "static"}).constraint
    assert (static.apply, static.estimator, static.reduction) == ("reward", "k1", "token")
    dynamic = Config(constraint={"name": "dynamic"}).constraint
    assert (dynamic.apply, dynamic.reduction, dynamic.accept) == ("loss", "sequence", "better")
    assert Config(constraint={"name": "none", "beta": 3}).constraint.beta == 0
    assert Config(constraint={"name": "static", "apply": "loss"}).constraint.estimator == "k2"
    assert Config().constraint.penalty_in_group == "before"


@pytest.mark.parametrize("reduction", ["sequence", "token"])
@pytest.mark.parametrize("apply", ["loss", "reward"])
@pytest.mark.parametrize("name", ["none", "static", "dynamic"])
@pytest.mark.parametrize("algorithm", ["ppo", "dapo"])
def test_every_combination_of_the_comparison_is_valid(algorithm, name, apply, reduction):
    Config(algorithm={"name": algorithm}, constraint={"name": name, "apply": apply, "reduction": reduction})
