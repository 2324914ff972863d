"""Every knob, from the definitions: a run reads it, refuses it, or says that it changes nothing."""

from __future__ import annotations

import copy
import datetime
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml
from pydantic.fields import FieldInfo
from rich.console import Console

from refinerl import train
from refinerl.config import Config, reading
from refinerl.contracts import plugins
from refinerl.contracts.options import COMMON, Section
from refinerl.errors import UserError
from refinerl.run import command, layers, recipe
from refinerl.run.launch import linked
from toy import Toy, timeless, write_problems

NATIVE = {"deepspeed": "deepspeed.zero_optimization.stage"}
"""A key of the section that has no definitions of ours."""


def fields() -> dict[str, FieldInfo]:
    """The definitions of all knobs by dotted name, those of every built-in part included."""
    found: dict[str, FieldInfo] = {}
    for name, field in Config.model_fields.items():
        models: list[type[Section]] = []
        if name in COMMON:
            models = [plugins.resolve(name, part).Options for part in plugins.names(name)]  # type: ignore[arg-type]
        elif isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            models = [field.annotation]
        for model in models:
            found |= {f"{name}.{key}": knob for key, knob in model.model_fields.items()}
        if not models:
            found[NATIVE.get(name, name)] = field
    return found


FIELDS = fields()


def another(key: str, value: Any) -> str:
    """A valid value of a knob, as a word, that is not `value`."""
    kinds = [kind for kind in get_args(FIELDS[key].annotation) or (FIELDS[key].annotation,) if kind is not type(None)]
    kind = kinds[0]
    while get_origin(kind) not in (None, Literal, tuple):  # of Annotated, the type
        kind = get_args(kind)[0]
    options = [each for each in get_args(FIELDS[key].annotation) if isinstance(each, str)]
    if key in SPECIAL:
        return SPECIAL[key]
    if options or get_origin(kind) is Literal:
        return next(each for each in options or get_args(kind) if each != value)
    if kind is datetime.date:
        return "2026-01-31"
    if kind is bool:
        return str(not value).lower()
    if kind is int or kind is float:
        return str((value or 0) + 1) if kind is int else str((value or 1.0) / 2)
    return "elsewhere"


SPECIAL = {
    "task.reward_weights": "[2]",
    "lora.targets": "[q_proj]",
    "sandbox.packages": "[numpy]",
    "deepspeed.zero_optimization.stage": "1",
    "vllm.memory_refiner": "0.2",
    "vllm.max_model_len": "99",
    "refiner.template": "refine_code",
    "task.template": "code_examples",
    "task.visible_tests": "0",
    "task.embedded": "easy",
}
"""Values that no rule gives."""


@contextmanager
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """The dotted names of the knobs that are read meanwhile."""
    sections = {
        field.annotation: f"{name}."
        for name, field in Config.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
    }
    read: set[str] = set()
    plain = Section.__getattribute__

    def note(self: Section, name: str) -> Any:
        if not name.startswith("_") and name in type(self).model_fields:
            kind = vars(COMMON[type(self).kind])["kind"] + "." if hasattr(type(self), "kind") else ""
            read.add(kind + name if kind or isinstance(self, Config) else sections[type(self)] + name)
        return plain(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(Section, "__getattribute__", note)
        yield read


RUNS = {
    "dialogue": [],
    "static": ["algorithm.name=ppo", "constraint.name=static", "trainer.schedule=constant", "evaluate.every=1",
               "evaluate.benchmark=task", "evaluate.path=HELD_OUT"],
    "none": ["constraint.name=none", "lora.rank=2", "mismatch.correction=token", "refiner.probe=true"],
    "reward": ["constraint.apply=reward", "constraint.accept=all", "algorithm.dynamic_sampling=false"],
    "fresh": ["constraint.name=fresh", "task.system=abc"],
    "code": ["task.name=code", "task.path=PROBLEMS", "task.reward=adaptive", "constraint.name=static",
             "constraint.apply=loss"],
    "embedded": ["task.name=code", "task.path=null", "task.embedded=trivial", "task.reward=toy_rewards:share_of_a",
                 "task.prompt_format=apps", "constraint.name=peer", "generation.max_tokens=3"],
}  # fmt: skip
"""Runs that differ in what they read."""


@pytest.fixture(scope="module")
def words(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The words of a run on one step of eight responses."""
    folder = tmp_path_factory.mktemp("rows")
    held_out = folder / "held_out.jsonl"
    held_out.write_text((toy.folder / "prompts.jsonl").read_text())
    places = {"HELD_OUT": str(held_out), "PROBLEMS": str(write_problems(folder))}

    def of(name: str, *more: str) -> list[str]:
        own = [word.replace(key, places[key]) if (key := word.partition("=")[2]) in places else word
               for word in RUNS[name]]  # fmt: skip
        _, *given = toy.arguments(Path(), "trainer.steps=1", "device=cpu", *own, *more)[:-2]
        return given

    return of


def run(config: Config, folder: Path) -> list[dict[str, Any]]:
    """Run a configuration as the command does; return its metrics."""
    with linked() as link, command.run(train.train, config, folder, Console(quiet=True), link):
        pass
    return timeless(folder)


def changed(values: Mapping[str, Any], words: Sequence[str]) -> Config | None:
    """The configuration with other values of knobs; None if that is refused, with a sentence."""
    nested = copy.deepcopy(dict(values))
    for key, _, word in (each.partition("=") for each in words):
        put(nested, key, word)
    try:
        return recipe.validate(nested)
    except UserError as error:
        return None if len(str(error).splitlines()) == 1 else pytest.fail(str(error))


def put(nested: dict[str, Any], key: str, word: str) -> None:
    """Set a knob in nested sections."""
    *sections, leaf = key.split(".")
    place = nested
    for name in sections:
        place = place.setdefault(name, {})
    place[leaf] = yaml.safe_load(word)


@pytest.mark.parametrize("name", RUNS)
def test_every_knob_is_read_or_refused_or_said_and_what_is_said_is_true(name, words, tmp_path, monkeypatch):
    loaded = recipe.resolve("smollm", words(name))
    config = loaded.config
    with recorded(monkeypatch) as read:
        before = run(config, tmp_path / "before")
    silent, inert = [], []
    for key in FIELDS:
        section, leaf = key.split(".")[0], key.partition(".")[2]
        now = getattr(getattr(config, section), leaf, FIELDS[key].default) if leaf else getattr(config, section)
        said = reading.missing_for(config, key) is not None
        if not said and key.removesuffix(".zero_optimization.stage") in read:
            continue
        word = f"{key}={another(key, now)}"
        other = changed(loaded.values, [word])
        if said and changed(loaded.values, [*inert, word]) is not None:
            inert.append(word)
        elif not said and other is not None:
            sets = {line.split(":")[0] for line in recipe.differences(config, other)}
            silent += [key] if sets <= {key} else []  # it sets no other knob either
    assert not silent, "neither read nor refused nor said"
    assert len(inert) > 20
    after = recipe.resolve("smollm", [*words(name), *inert])
    named = {key for sentence in after.notes() for key in re.findall(r"[\w.]+", sentence.partition(" change")[0])}
    assert {word.partition("=")[0] for word in inert} <= named
    assert run(after.config, tmp_path / "after") == before


WHOLE = {
    "vllm": ["engines.generator=vllm", "engines.trainer=deepspeed", "trainer.schedule=linear", "lora.rank=0"],
    "ppo": ["algorithm.name=ppo", "lora.rank=8", "mismatch.correction=token", "evaluate.every=1"],
    "server": ["refiner.url=http://localhost:8000/v1", "refiner.template=refine_code_feedback"],
    "model": ["task.name=dialogue", "task.path=rows.parquet", "task.reward=[model,rule:math,toy_rewards:share_of_a]",
              "reward_model.model=m", "constraint.name=static", "refiner.probe=true"],
    "reward": ["constraint.apply=reward", "telemetry.trackers=[wandb]"],
    "fresh": ["constraint.name=fresh"],
    "own": ["task.reward=toy_rewards:share_of_a"],
}  # fmt: skip
"""Configurations that, together with RUNS, have every knob in use."""


def test_every_condition_can_be_met(words):
    configs = [recipe.load("smollm", extra) for extra in WHOLE.values()]
    configs += [recipe.load("smollm", words(name)) for name in RUNS]
    planned = {"device_memory", *(key for key in FIELDS if key.startswith("plan."))}
    never = {key for key in FIELDS if all(reading.missing_for(config, key) for config in configs)}
    assert never == planned


def test_a_word_that_changes_nothing_is_said_once_by_the_plan_and_by_the_run(toy, tmp_path, capsys):
    inert = ["task.difficulty=easy", "algorithm.lam=0.5"]
    said = [
        "task.difficulty changes nothing in this run: it is read only with task.name=code",
        "algorithm.lam changes nothing in this run: it is read only with algorithm.name=ppo",
    ]
    for extra in (["--dry-run"], []):
        assert train.main([*toy.arguments(tmp_path / "run", "trainer.steps=1", *inert), *extra]) == 0
        out = capsys.readouterr().out.replace("\n", " ")
        for sentence in said:
            assert out.count(sentence) == 1
    assert train.main(["--output-dir", str(tmp_path / "run"), "--resume", "trainer.steps=2"]) == 0
    assert "changes nothing" not in capsys.readouterr().out  # the run's own file is not set by the user


def test_a_row_on_its_own_shares_nothing():
    words = ["trainer.share_prefixes=always", "trainer.micro_batch=1"]
    assert recipe.resolve("smollm", words).notes() == [
        "trainer.share_prefixes changes nothing in this run: it is read only with trainer.micro_batch above 1"
    ]
    assert recipe.resolve("smollm", words[:1]).notes() == []


def test_what_a_users_file_sets_is_said_and_defaults_are_not(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("base: smollm\nvllm: {max_num_seqs: 8, prefix_caching: true}\nlet: {a: 1}\n")
    assert recipe.resolve(str(path)).notes() == [
        "vllm.max_num_seqs changes nothing in this run: it is read only with engines.generator=vllm"
    ]
    assert recipe.resolve(str(path), ["engines.generator=vllm"]).notes() == []
    assert recipe.resolve("smollm", ["vllm.max_num_seqs=null"]).notes() == []
    assert recipe.resolve("smollm", ["plan.gpus=4"]).notes(planning=True) == []
    assert recipe.resolve("smollm", ["plan.gpus=4"]).notes()
    path.write_text(recipe.to_yaml(recipe.load("apps-ppo-static")))
    assert recipe.resolve(str(path)).notes(planning=True) == []  # a resolved configuration holds every knob


def test_a_constraint_in_a_list_is_named_by_its_place():
    constraints = "constraints=[{name: static, apply: loss, penalty_in_group: after}, {name: dynamic, estimator: k3}]"
    said = recipe.resolve("smollm", [constraints, "constraint.beta=1"]).notes()
    assert {sentence.split()[0] for sentence in said} == {
        "constraints.0.penalty_in_group", "constraints.1.estimator", "constraint.beta"
    }  # fmt: skip


@pytest.mark.parametrize("name", recipe.recipes())
def test_shipped_recipes_set_no_knob_that_their_run_does_not_read(name):
    config = recipe.load(name)
    place = Path(recipe.__file__).parents[1] / "recipes"
    own, todo = {}, [name]
    while todo:
        values = yaml.safe_load((place / f"{todo.pop()}.yaml").read_text(encoding="utf-8"))
        bases = values.pop("base", [])
        todo += [base for base in ([bases] if isinstance(bases, str) else bases) if base in recipe.recipes()]
        values.pop("let", None)
        own |= layers.flatten(values)
    assert reading.unread(config, own, planning=True) == {}


def test_what_a_part_sets_is_read_by_a_recipe():
    """Parts serve several recipes; of these it is enough that one reads the knob."""
    place = Path(recipe.__file__).parents[1] / "recipes"
    loaded = {name: recipe.load(name) for name in recipe.recipes()}

    def bases(path: Path) -> set[str]:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        named = values.get("base", [])
        named = [named] if isinstance(named, str) else named
        return {*named, *(up for name in named for up in bases(next(place.rglob(f"{name}.yaml"))))}

    made_of = {name: bases(place / f"{name}.yaml") for name in loaded}
    for part in recipe.parts():
        values = yaml.safe_load((place / "parts" / f"{part}.yaml").read_text(encoding="utf-8"))
        keys = [key for key in layers.flatten(values) if key.split(".")[0] not in ("base", "let")]
        users = [loaded[name] for name, parts in made_of.items() if part in parts]
        users += [recipe.load("dialogue-ppo-dynamic-loss", [part])] if part.startswith("gpus-") or not users else []
        unread = [set(reading.unread(config, keys, planning=True)) for config in users]
        assert not set.intersection(*unread), part
