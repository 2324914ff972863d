"""From a name to a class: built-in parts by their files, one's own by import path."""

from __future__ import annotations

from pathlib import Path

import pytest

import refinerl.constraints
from refinerl.algorithms import Algorithm
from refinerl.config import Config
from refinerl.constraints import Constraint
from refinerl.contracts import plugins
from refinerl.contracts.plugins import resolve
from refinerl.errors import UserError
from refinerl.run import recipe

GENTLE = '''
from refinerl.constraints.base import Constraint


class Gentle(Constraint):
    """C(θ) = 0."""

    class Options(Constraint.Options):
        softness: float = 2.0

    def cost(self, outputs, batch):
        return outputs.logprobs * 0
'''


class Compares(Algorithm):
    """Grouped, but not by the base class for it."""

    grouped = True

    def advantages(self, batch, penalty, world):
        return batch


def test_a_built_in_part_is_one_file_and_no_other_edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "gentle.py").write_text(GENTLE)
    monkeypatch.setattr(refinerl.constraints, "__path__", [*refinerl.constraints.__path__, str(tmp_path)])
    plugins.names.cache_clear()
    try:
        assert plugins.names("constraint") == ("dynamic", "fresh", "gentle", "none", "peer", "static")
        config = recipe.load("smollm", ["constraint.name=gentle", "constraint.softness=3"])
        assert (config.constraint.softness, config.refines) == (3, False)
        assert "softness: 3" in recipe.to_yaml(config)
        with pytest.raises(UserError, match=r"unknown key 'constraint.softnes'; closest: constraint.softness"):
            recipe.load("smollm", ["constraint.name=gentle", "constraint.softnes=3"])
    finally:
        plugins.names.cache_clear()


@pytest.mark.parametrize("kind", ["algorithm", "constraint", "task"])
def test_every_built_in_name_means_a_class(kind: plugins.Kind):
    for name in plugins.names(kind):
        assert resolve(kind, name).__doc__


def test_responses_to_a_prompt_follow_from_whether_they_are_compared():
    name = f"{__name__}:Compares"
    plugins_here = {"name": plugins.hand_over(Compares())}
    assert Config(algorithm=plugins_here).algorithm.samples_per_prompt == 8
    assert Config(algorithm={"name": "ppo"}).algorithm.samples_per_prompt == 1
    assert Config(algorithm={"name": "dapo"}).algorithm.samples_per_prompt == 8
    with pytest.raises(ValueError, match="at least 2 for object:"):
        Config(algorithm={**plugins_here, "samples_per_prompt": 1})
    assert name.endswith(":Compares")


def test_an_object_has_a_name_that_other_processes_can_read(monkeypatch: pytest.MonkeyPatch):
    class Own(Constraint):
        class Options(Constraint.Options):
            margin: float = 0.5

        def cost(self, outputs, batch):
            return outputs.logprobs * 0

    name = plugins.hand_over(Own())
    config = Config(constraint={"name": name, "options": {"margin": 2}})
    assert config.constraint.margin == 2
    written = recipe.to_yaml(config)
    monkeypatch.setattr(plugins, "_handed", {})  # as in another process
    elsewhere = recipe.validate(__import__("yaml").safe_load(written))
    assert elsewhere.constraint.margin == 2
    assert recipe.to_yaml(elsewhere) == written


def test_a_module_that_fails_shows_its_own_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "broken_plugin.py").write_text("import nothing_of_this_name\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="nothing_of_this_name"):
        resolve("constraint", "broken_plugin:Any")
