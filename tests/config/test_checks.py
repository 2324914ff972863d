"""Every rule of the configuration: what is resolved, what is refused."""

from refinerl.config import Config


def test_resolving_one_configuration_leaves_the_defaults_alone():
    Config(generation={"max_tokens": 7})
    assert Config().refiner.max_tokens == 512
    assert Config(generation={"max_tokens": 7}).refiner.max_tokens == 7


def test_invalid_combinations_are_refused(refused):
    assert "k2 or k3" in refused(constraint={"name": "static", "apply": "loss", "estimator": "k1"})
    assert "at least 2" in refused(algorithm={"name": "dapo", "samples_per_prompt": 1})
    assert "on_dropped" in refused(constraint={"name": "dynamic", "apply": "reward", "on_dropped": True})
    assert "on_dropped" in refused(constraint={"on_dropped": True}, algorithm={"name": "ppo"})
    assert "on_dropped" in refused(constraint={"on_dropped": True}, algorithm={"dynamic_sampling": False})
    assert "multiple" in refused(trainer={"batch": 12})
    assert "divide" in refused(trainer={"batch": 64, "minibatch": 24})
    assert "overlong_cache" in refused(algorithm={"overlong_cache": 512})
    assert "task.path" in refused(task={"name": "dialogue"})
    assert "module:function" in refused(task={"name": "dialogue", "path": "x"})
    assert "reward_model.model" in refused(task={"name": "dialogue", "path": "x", "reward": "model"})
    assert "highest value" in refused(task={"reward": "m:f"}, constraint={"accept": "perfect"})
    assert "adaptive, coarse" in refused(task={"reward": "fine"})


def test_values_out_of_range_are_refused(refused):
    for sections in (
        {"trainer": {"steps": 0}},
        {"trainer": {"learning_rate": 0}},
        {"trainer": {"learning_rate": float("nan")}},
        {"generation": {"temperature": 0}},
        {"algorithm": {"lam": 1.5}},
        {"sandbox": {"memory_mb": -1}},
        {"seed": -1},
        {"surprise": 1},
    ):
        refused(**sections)
