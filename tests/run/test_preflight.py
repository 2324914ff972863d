"""Checks before a model is loaded; `tests/test_bad_input.py` has the messages."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from refinerl.errors import UserError
from refinerl.run import preflight, recipe


def asking(path: Path, rewards: str) -> list[str]:
    """The words of a run on dialogues with these rewards."""
    return ["task.name=dialogue", f"task.path={path}", f"task.reward={rewards}"]


def test_a_column_need_not_be_in_the_first_row(tmp_path):
    """A row without a value has no reward of that rule."""
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": "cab", "pattern": "a.*"}, {"prompt": "2 + 2?", "answer": "4"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = recipe.load("smollm", asking(path, "[rule:matches,rule:answer]"))
    data = preflight.read_data(config)
    assert isinstance(data, list)
    assert [set(row.columns) for row in data] == [{"pattern"}, {"answer"}]


@pytest.mark.parametrize("path", ["rows.jsonl", "rows.csv"])
def test_rule_math_needs_its_column_and_its_package(tmp_path, monkeypatch, path):
    if path.endswith(".csv"):
        pytest.importorskip("datasets")
    text = {"rows.jsonl": '{"prompt": "2 + 2?", "result": "4"}\n', "rows.csv": "prompt,result\n2 + 2?,4\n"}[path]
    (tmp_path / path).write_text(text)
    config = recipe.load("smollm", asking(tmp_path / path, "rule:math"))
    with pytest.raises(UserError, match=r"rule:math needs 'answer', but there is only .*result"):
        preflight.read_data(config)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs math-verify, which is not installed"):
        preflight.check_rewards(config)


def test_a_run_of_few_steps_is_not_refused_for_checkpoints_that_it_never_writes():
    """The plan of one step counted three checkpoints."""
    one, two, many = (
        preflight.disk_need(recipe.load("smollm", [f"trainer.steps={steps}", "evaluate.every=0"]))
        for steps in (1, 2, 100)
    )
    assert one is not None
    assert two is not None
    assert many is not None
    assert one < two < many
    assert many - two == two - one  # keep = 2, and the one that is being written


def test_a_folder_with_the_name_of_a_bundled_model_is_not_the_model(tmp_path, monkeypatch):
    """Such as the one of `refinerl.study.miniature --make miniature`; the plan looked for a tokenizer in it."""
    (tmp_path / "miniature").mkdir()
    monkeypatch.chdir(tmp_path)
    config = recipe.load("demo")
    assert config.model == "miniature"
    preflight.check_tokenizer(config)
