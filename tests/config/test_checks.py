"""Every rule of the configuration: what is resolved, what is refused."""

import pytest

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


def test_the_controls_of_the_refiner_have_what_they_need(refused):
    assert "samples_per_prompt must be at least 2" in refused(constraint={"name": "peer"}, algorithm={"name": "ppo"})
    assert "constraint.accept" in refused(constraint={"name": "peer", "accept": "all"})
    both = [{"name": "dynamic"}, {"name": "peer"}]
    assert "at most one that refines, got dynamic and peer" in refused(constraints=both)
    fresh = {"name": "fresh"}
    said = "refiner.source must be reference for constraint.name=fresh, got policy"
    assert said in refused(constraint=fresh, refiner={"source": "policy"})
    assert "constraint.tries" in refused(constraint=fresh | {"tries": 0})


def test_a_constraint_that_asks_no_model_needs_no_engine_for_it():
    peer, fresh = (Config(constraint={"name": name}) for name in ("peer", "fresh"))
    assert (peer.refines, peer.refiner_apart, len(peer.refining)) == (False, False, 1)
    assert (fresh.refines, fresh.refiner_apart, len(fresh.refining)) == (True, True, 1)


@pytest.mark.parametrize(
    ("sections", "drafts", "reason"),
    [
        ({}, 32, None),
        ({"refiner": {"drafts": 8, "temperature": 1.0}}, 8, None),
        ({"lora": {"rank": 4}}, 32, None),
        ({"engines": {"generator": "vllm"}}, 32, None),
        ({"engines": {"generator": "vllm"}, "refiner": {"temperature": 1.0}}, 0, "refiner.temperature=0"),
        ({"engines": {"generator": "vllm"}, "lora": {"rank": 4}}, 0, "share a vLLM engine"),
        ({"engines": {"generator": "vllm"}, "refiner": {"source": "policy"}}, 0, "share a vLLM engine"),
        ({"refiner": {"url": "http://localhost:1/v1"}}, 0, None),
        ({"constraint": {"name": "fresh"}}, 0, None),
        ({"constraint": {"name": "none"}}, 0, None),
    ],
)
def test_drafts_are_used_where_the_engine_can_verify_them(sections, drafts, reason):
    config = Config(**sections)
    assert config.drafts == drafts
    assert (config.no_drafts is None) == (reason is None)
    assert reason is None or reason in config.no_drafts
