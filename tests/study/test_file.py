"""Files of studies: what they mean, and a sentence for each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from refinerl.errors import UserError
from refinerl.study import file, plan
from studying import GOOD


def test_a_file_and_its_grid() -> None:
    study = file.parse("good", GOOD)
    assert study.arms["none"].points == []
    assert study.arms["dynamic"].knobs == {"constraint.beta": 0.001}
    points = study.arms["dynamic"].points
    assert points[1] == {"constraint.beta": 0.01, "trainer.epochs": 2}
    assert len(points) == 4
    assert (plan.label(points[1]), plan.folder(points[1])) == ("constraint.beta=0.01 trainer.epochs=2", "0.01_2")
    assert study.tuning is not None
    assert (study.tuning.measure, study.tuning.knobs) == ("held_out_end", {"trainer.steps": 3})


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  dynamic:", "  none:", "line 7: none is there twice: give each arm and each knob a name of its own"),
        ("constraint.beta: 1e-3,", "a: 1, a: 2,", "line 7: a is there twice"),
        ("title: Two arms", "title: [", "line 3: did not find expected"),
        ("[[dynamic, none]]", "[[dynamic, nine]]", "compare names the unknown arm 'nine'; closest: none"),
        ("[[dynamic, none]]", "[[none, none]]", "compare has the arm 'none' with itself"),
        ("[[dynamic, none]]", "[[none]]", "compare.0.1 is missing"),
        ("tuning:", "# tuning:", "arm 'dynamic' has a grid, but the study has no tuning: add tuning: {seeds: [100]}"),
        ("tuning:", "tunning:", "unknown key 'tunning'; closest: tuning"),
        (
            "tuning:",
            "tunning: {}\nstray:",
            "2 mistakes:\n  unknown key 'tunning'; closest: tuning\n  unknown key 'stray'",
        ),
        ("[100, 101]", "[100, 1]", "seed 1 is in seeds and in tuning.seeds: choose others for the tuning"),
        ("seeds: [0, 1]", "seeds: [0, 0]", "seeds must be different numbers from 0 on, got [0, 0]"),
        ("seeds: [0, 1]", "seeds: [0, -1]", "seeds must be different numbers from 0 on"),
        ("seeds: [0, 1]", "seeds: [a]", "seeds.0: input should be a valid integer"),
        ("seeds: [0, 1]\n", "", "seeds is missing"),
        ("  none:", "  no:", "arms.0: the name False is not a text: put it in quotes"),
        ("  none:", "  ../none:", "arm '../none': a name has letters, digits, spaces and ._+=-"),
        ("  none:", "  tuning:", "is none of tuning, figures"),
        (
            "  none:",
            "  table.md:",
            "is none of tuning, figures, study.yaml, table.md, table.json, skill.json, index.html",
        ),
        ("[1e-2, 0.3]", "[0.3, 0.3]", "grid.constraint.beta must be a list of different values, got [0.3, 0.3]"),
        ("[1e-2, 0.3]", "[]", "grid.constraint.beta must be a list of different values"),
        ("{trainer.steps: 4}", "{seed: 4}", "the knob seed is set by the study: write its values in seeds"),
        ("{constraint.name: none}", "3", "an arm is a mapping of knobs to values, got 3"),
        ("trainer.steps: 3}", "trainer.steps: 3, measure: loss}", "tuning.measure: input should be"),
    ],
)
def test_a_mistake_is_named(old: str, new: str, said: str) -> None:
    assert GOOD.count(old) == 1
    with pytest.raises(UserError) as refused:
        file.parse("bad", GOOD.replace(old, new))
    assert str(refused.value).startswith("the study 'bad': ")
    assert said in str(refused.value)


@pytest.mark.parametrize("text", ["[1, 2]", "7", "2.5", "null", ""])
def test_a_text_that_is_no_mapping(text: str) -> None:
    with pytest.raises(UserError, match="must be a mapping with title, recipe, seeds and arms"):
        file.parse("text", text)


def test_a_file_that_is_not_utf_8(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"title: \xff")
    with pytest.raises(UserError, match="cannot be read: not UTF-8"):
        file.load(str(tmp_path / "latin.yaml"))


def test_the_comment_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("# Two arms.\n#\n#   12 minutes\n" + GOOD + "# the end\n")
    assert file.comment(str(tmp_path / "good.yaml")) == ["Two arms.", "", "  12 minutes"]


def test_shipped_studies_load_and_their_arms_are_valid() -> None:
    for name, about in file.shipped().items():
        assert about
        assert plan.Plan.make(name).arms == tuple(file.load(name).arms)
