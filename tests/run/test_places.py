"""Paths in recipes are relative to the recipe, those of the command line to the working directory."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from refinerl import train
from refinerl.config import Config
from refinerl.contracts.options import COMMON
from refinerl.contracts.plugins import names, resolve
from refinerl.errors import UserError
from refinerl.run import layers, recipe
from refinerl.run.places import place_of
from toy import Toy, metrics

DIALOGUE = {"task.name": "dialogue", "task.path": "/x.jsonl", "task.reward": "rule:answer"}
BESIDE: dict[str, dict[str, Any]] = {
    "evaluate.path": {"evaluate.benchmark": "task"},
    "refiner.model": {"refiner.source": "model"},
    "refiner.chat_template": {"refiner.source": "model", "refiner.model": "a/b"},
    "task.column": DIALOGUE,
}
"""Knobs that others need beside them."""


def knobs(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All knobs of the configuration and of the built-in classes, with their fields."""
    for name, field in model.model_fields.items():
        kind: Any = field.annotation
        if name in COMMON and not prefix:
            for part in names(name):
                yield from knobs(resolve(name, part).Options, f"{name}.")
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from knobs(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, field


MARKED = {key: place for key, field in knobs(Config) if (place := place_of(field))}


def test_every_knob_that_names_a_file_is_marked():
    says = re.compile(r"\b(file|folder|hub id|JSON lines)\b", re.IGNORECASE)
    named = {key for key, field in knobs(Config) if "str" in str(field.annotation) and says.search(field.description)}
    assert named == set(MARKED)
    assert {"model", "task.path", "task.template", "refiner.template", "evaluate.path", "evaluate.data"} <= set(MARKED)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory beside the folder of recipes."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def written(path: Path, values: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump(layers.nested(values)))
    return str(path)


def value(config: Config, key: str) -> Any:
    found: Any = config
    for name in key.split("."):
        found = getattr(found, name)
    return found


@pytest.mark.parametrize("key", MARKED)
def test_a_path_beside_the_recipe(here: Path, key: str):
    recipes = here.parent / "recipes"
    place = recipes / "sub.d" / "thing.txt"
    place.mkdir(parents=True) if MARKED[key].kind == "model" else place.parent.mkdir()
    if MARKED[key].kind != "model":
        place.touch()
    values = {**BESIDE.get(key, {}), key: "sub.d/thing.txt"}
    assert value(recipe.load(written(recipes / "mine.yaml", values)), key) == str(place)
    # As a base, and from the command line, where it is relative to the working directory.
    base = written(here / "other.yaml", {"base": "../recipes/mine.yaml"})
    assert value(recipe.load(base), key) == str(place)
    others = [f"{name}={given}" for name, given in BESIDE.get(key, {}).items()]
    assert value(recipe.load(None, [*others, f"{key}=../recipes/sub.d/thing.txt"]), key) == str(place)
    # The same by its whole path.
    assert value(recipe.load(None, [*others, f"{key}={place}"]), key) == str(place)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("model", "Qwen/Qwen2.5-0.5B"),
        ("model", "smollm2-135m-instruct"),
        ("task.path", "hub:codeparrot/apps"),
        ("evaluate.path", "shipped:miniature"),
        ("task.template", "code"),
        ("chat_template", "{{ messages[0].content }}/x.y"),
        ("refiner.template", "refine_code"),
    ],
)
def test_names_stay_names(here: Path, key: str, name: str):
    (here.parent / "recipes" / "code").mkdir()  # as a folder may be called
    values = {**BESIDE.get(key, {}), key: name}
    assert value(recipe.load(written(here.parent / "recipes" / "mine.yaml", values)), key) == name


@pytest.mark.parametrize(
    ("key", "name"),
    [("task.path", "rows.jsonl"), ("refiner.template", "mine.txt"), ("model", "./base"), ("evaluate.path", "a/b")],
)
def test_what_is_not_there_is_named_in_both_places(here: Path, key: str, name: str):
    path = written(here.parent / "recipes" / "mine.yaml", {**BESIDE.get(key, {}), key: name})
    with pytest.raises(UserError) as caught:
        recipe.load(path)
    mine, theirs = here.parent / "recipes" / name, here / name
    assert str(caught.value) == (
        f"{key} = {name} is relative to {path}, which sets it, and there is no {mine}; there is no {theirs} either"
    )
    if key == "model":
        theirs.mkdir()
    else:
        theirs.parent.mkdir(exist_ok=True)
        theirs.touch()
    with pytest.raises(UserError, match=f"{re.escape(str(theirs))} exists, so write its whole path"):
        recipe.load(path)
    if key == "task.path":  # of no interest where another value wins
        assert recipe.load(path, ["task.path=rows.jsonl"]).task.path == str(theirs)


def test_a_model_folder_of_the_working_directory_is_not_taken(here: Path):
    """The model of a recipe would depend on where the command is called."""
    path = written(here.parent / "recipes" / "mine.yaml", {"model": "base"})
    assert recipe.load(path).model == "base"
    (here / "base").mkdir()
    with pytest.raises(UserError, match="model = base is relative to"):
        recipe.load(path)
    (here.parent / "recipes" / "base").mkdir()
    assert recipe.load(path).model == str(here.parent / "recipes" / "base")
    assert recipe.load("apps-dapo", ["model=base"]).model == str(here / "base")


@pytest.mark.parametrize("name", ["miniature", "miniature-far", "smollm2-135m-instruct"])
def test_bundled_models_are_not_folders(here: Path, name: str):
    """Such as the folder of a study of that name."""
    (here / name).mkdir()
    path = written(here.parent / "recipes" / "mine.yaml", {"model": name})
    assert recipe.load(path).model == name
    assert recipe.load("smollm", [f"model={name}"]).model == name
    assert recipe.load("smollm", [f"model=./{name}"]).model == str(here / name)


OWN = """
from refinerl.contracts.options import DataPath
from refinerl.tasks.base import Task
from refinerl.constraints import Constraint

class Letters(Task):
    class Options(Task.Options):
        letters: DataPath

    def examples(self):
        return []

    def reward(self, known, answer):
        return None

class Mine(Constraint):
    class Options(Constraint.Options):
        table: DataPath | None = None

    def cost(self, outputs, batch):
        return outputs.logprobs
"""


def test_classes_of_ones_own_mark_their_paths(here: Path, monkeypatch: pytest.MonkeyPatch):
    (here.parent / "own_paths.py").write_text(OWN)
    monkeypatch.syspath_prepend(here.parent)
    recipes = here.parent / "recipes"
    (recipes / "a.txt").touch()
    task = {"name": "own_paths:Letters", "options": {"letters": "a.txt"}}
    constraints = [{"name": "own_paths:Mine", "options": {"table": "a.txt"}}, {"name": "none"}]
    config = recipe.load(written(recipes / "mine.yaml", {"task": task, "constraints": constraints}))
    assert config.task.letters == config.constraints[0].table == str(recipes / "a.txt")


def test_a_run_is_resumed_from_anywhere(here: Path, toy: Toy, monkeypatch: pytest.MonkeyPatch):
    recipes = here.parent / "recipes"
    shutil.copytree(toy.folder / "model", recipes / "base")
    for name in ("rows.jsonl", "held_out.jsonl"):
        shutil.copy(toy.folder / "prompts.jsonl", recipes / name)
    (here / "ask.txt").write_text("$question $response")
    values = {"model": "base", "task.name": "dialogue", "task.path": "rows.jsonl", "trainer.steps": 1}
    values |= {"task.reward": "toy_rewards:share_of_a", "evaluate.path": "held_out.jsonl"}
    values |= {"generation.max_tokens": 6, "trainer.batch": 8, "refiner.temperature": 1.0, "evaluate.every": 1}
    path = written(recipes / "mine.yaml", values)
    assert train.main([path, "refiner.template=ask.txt", "--output-dir", "run"]) == 0
    monkeypatch.chdir(recipes)
    assert train.main(["--output-dir", "../here/run", "--resume"]) == 0
    words = ["mine.yaml", "refiner.template=../here/ask.txt", "trainer.steps=2"]
    assert train.main([*words, "--output-dir", "../here/run", "--resume"]) == 0
    assert [row["step"] for row in metrics(here / "run")] == [0, 1, 2]
