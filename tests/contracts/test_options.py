"""A section's keys: flat or under `options`, foreign ones of a recipe below, and an earlier version's."""

from __future__ import annotations

import re

import pytest
import yaml

from refinerl import train
from refinerl.config import Config
from refinerl.errors import UserError
from refinerl.run import recipe
from toy import Toy, timeless

OLD = {
    "algorithm": (
        "{name: dapo, samples_per_prompt: 4, epochs: 1, clip_low: 0.2, clip_high: 0.3, loss_reduction: token, "
        "entropy_bonus: 0.0, dynamic_sampling: true, max_resamples: 1, overlong_cache: 0, gamma: 1.0, lam: 0.95, "
        "value_clip: 0.2}"
    ),
    "constraint": (
        "{name: dynamic, beta: 0.01, apply: loss, reduction: sequence, estimator: k2, accept: better, "
        "penalty_in_group: before, on_dropped: false}"
    ),
}
"""The two sections as runs wrote them before options were their classes' own: the knobs of all parts."""


@pytest.mark.slow
def test_an_old_runs_configuration_resumes(toy: Toy, tmp_path):
    # A configuration that lacks the knob accept_truncated means its default, false; the toy's recipe sets it to true.
    options = ("trainer.schedule=constant", "checkpoint.every=1", "constraint.accept_truncated=false")
    assert toy.run(tmp_path / "run", *options, "trainer.steps=1") == 0
    assert toy.run(tmp_path / "whole", *options, "trainer.steps=2") == 0
    path = tmp_path / "run" / "config.yaml"
    values = yaml.safe_load(path.read_text())
    old = {key: value for key, value in values.items() if key != "constraints"}
    old |= {key: yaml.safe_load(text) for key, text in OLD.items()}
    old["task"] = {key: value for key, value in values["task"].items() if key != "options"}
    path.write_text(yaml.safe_dump(old))
    assert recipe.differences(recipe.validate(values), recipe.load(str(path))) == []
    assert toy.run(tmp_path / "run", *options, "trainer.steps=2", resume=True) == 0
    assert timeless(tmp_path / "run") == timeless(tmp_path / "whole")
    assert "gamma" not in path.read_text()
    assert train.main(["--output-dir", str(tmp_path / "run"), "--resume"]) == 0


def test_flat_keys_and_options_are_the_same():
    flat = recipe.load("smollm", ["constraint.accept=all"])
    assert recipe.load("smollm", ["constraint.options.accept=all"]) == flat
    assert Config(constraint={"accept": "all", "options": {"accept": "all"}}).constraint.accept == "all"


def test_a_key_of_another_part_is_checked_and_left_out():
    config = recipe.load("smollm", ["algorithm.name=ppo", "constraint.name=static", "constraint.accept=all"])
    assert not hasattr(config.constraint, "accept")
    for wrong in ("constraint.accept=most", "algorithm.lam=2"):
        with pytest.raises(Exception, match=wrong.partition("=")[0]):
            recipe.load("smollm", ["constraint.name=static", wrong])


def test_none_is_the_default():
    assert Config(constraint={"beta": None, "apply": None}).constraint == Config().constraint
    assert Config(algorithm={"name": "ppo", "clip_low": 0.1}).algorithm.clip_high == 0.1


def test_several_constraints_take_the_place_of_one():
    words = "constraints=[{name: dynamic, beta: 0.1}, {name: static, apply: loss}]"
    config = recipe.load("smollm", [words])
    assert [constraint.name for constraint in config.held] == ["dynamic", "static"]
    assert config.refines
    assert config.held[1].estimator == "k2"
    assert not recipe.load("smollm", ["constraints=[{name: static}]"]).refines
    assert recipe.validate(yaml.safe_load(recipe.to_yaml(config))) == config
    with pytest.raises(Exception, match=r"unknown key 'constraints.0.betta'; closest: constraints.0.beta"):
        recipe.load("smollm", ["constraints=[{name: static, betta: 1}]"])
    charged = "constraints=[{name: static}, {name: static, penalty_in_group: after}]"
    with pytest.raises(Exception, match="must have the same penalty_in_group"):
        recipe.load("smollm", [charged])


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        ("{name: stattic}", "name must be dynamic"),
        ("{name: [static]}", "name must be a name"),
        ("{name: static, options: 3}", "options must be a mapping"),
        ("{name: static, beta: 1, options: {beta: 2}}", "beta is given twice, as 1 and in PLACE.options as 2"),
        ("{name: static, apply: loss, estimator: k1}", "estimator must be k2 or k3"),
        ("{name: static, beta: -1}", "beta: input should be"),
        ("{name: static, accept: best}", "accept: input should be"),
        ("{name: dynamic, on_dropped: true, apply: reward}", "on_dropped must be false unless"),
    ],
)
def test_a_mistake_in_a_constraint_names_its_place(mistake, said):
    """`constraint.options` does not exist in a recipe that has a list of constraints."""
    for place, given in (
        ("constraints.1", f"constraints=[{{name: none}}, {mistake}]"),
        ("constraint", f"constraint={mistake}"),
    ):
        with pytest.raises(UserError, match=rf"^{re.escape(place)}\.{re.escape(said.replace('PLACE', place))}"):
            recipe.load("smollm", [given])


def test_a_contradiction_with_another_section_names_the_place_in_the_list():
    several = "constraints=[{name: static}, {name: dynamic, on_dropped: true}]"
    with pytest.raises(UserError, match=r"^constraints\.1\.on_dropped must be false unless dapo"):
        recipe.load("smollm", [several, "algorithm.dynamic_sampling=false"])


def test_a_run_with_several(toy: Toy, tmp_path):
    words = "constraints=[{name: dynamic, accept: all}, {name: static, apply: loss}, {name: static, beta: 0.1}]"
    assert toy.run(tmp_path / "run", words) == 0
    last = timeless(tmp_path / "run")[-1]
    assert last["constraint/dynamic/ce"] > 0
    assert last["constraint/static/cost"] > 0
    assert last["constraint/static-2/cost"] != 0
    betas = [last[f"constraint/{name}/beta"] for name in ("dynamic", "static", "static-2")]
    assert betas == [0.01, 0.01, 0.1]
    assert last["refiner/refined"] > 0
