from pathlib import Path

import pytest

from refinerl.data.apps import Problem, chat_question
from refinerl.errors import UserError
from refinerl.tasks.fences import extract, is_python
from refinerl.tasks.templates import (
    FEEDBACK,
    REFINE_VARIABLES,
    TASK_VARIABLES,
    load_refine_template,
    load_template,
    names,
)


def write(folder: Path, text: str) -> str:
    path = folder / "mine.txt"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", names())
def test_the_packages_templates_are_valid(name: str) -> None:
    refines = name.startswith("refine")
    template = load_refine_template(name) if refines else load_template(name, TASK_VARIABLES)
    values = dict.fromkeys((*REFINE_VARIABLES, FEEDBACK) if refines else TASK_VARIABLES, "SOMETHING")
    assert template.messages(**values)[-1]["content"].count("SOMETHING") == len(template.variables)
    assert (FEEDBACK in template.variables) == name.endswith("_feedback")


def test_worked_examples_look_like_the_questions_that_follow() -> None:
    call, call_answer, read, read_answer, _ = load_template("code_examples", TASK_VARIABLES).messages(question="?")
    statement, _, _ = call["content"].partition("\n\n")
    assert call["content"] == chat_question(Problem("", statement, "def lower(text):\n", "lower", (), "", ()))
    statement, _, _ = read["content"].partition("\n\n")
    assert read["content"] == chat_question(Problem("", statement, "n = int(input())\n", None, (), "", ()))
    for answer in (call_answer, read_answer):
        assert answer["role"] == "assistant"
        assert is_python(extract(answer["content"]))
        assert extract(answer["content"]) != answer["content"]


def test_a_plain_file_is_one_message(tmp_path: Path) -> None:
    template = load_template(write(tmp_path, "Q: $question\nfor $$5\n"), TASK_VARIABLES)
    assert template.messages(question="why $response?") == ({"role": "user", "content": "Q: why $response?\nfor $5"},)


def test_turns(tmp_path: Path) -> None:
    text = "--- user\nOne?\n\nReally?\n--- assistant\nTwo.\n--- user\n$question\n"
    assert load_template(write(tmp_path, text), TASK_VARIABLES).messages(question="Three?") == (
        {"role": "user", "content": "One?\n\nReally?"},
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": "Three?"},
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("$question $answer $response", r"unknown variable \$answer; it may use \$question, \$response"),
        ("$question", r"the variable \$response is missing"),
        ("$response ${questions}", r"unknown variable \$questions"),
        ("$question\n$response\ncosts $5", r"line 3: a lone dollar sign"),
        ("--- user\n$question\n--- assistant\n$response\n", r"the last turn must be the user's, got assistant"),
        ("Hello.\n--- user\n$question $response\n", r"text before its first turn"),
    ],
)
def test_invalid_templates(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_template(write(tmp_path, text), REFINE_VARIABLES)


def test_feedback_is_refused_where_the_task_has_none(tmp_path: Path) -> None:
    name = write(tmp_path, "$question $response $feedback")
    assert load_refine_template(name).variables == {"question", "response", "feedback"}
    with pytest.raises(UserError, match=r"mine.txt uses \$feedback, which this task does not have: nobody knows it$"):
        load_refine_template(name, "nobody knows it")
    assert load_refine_template(write(tmp_path, "$question $response"), "nobody knows it").variables == {
        "question",
        "response",
    }


def test_an_unknown_name_gets_close_ones() -> None:
    with pytest.raises(UserError, match=r"no template 'refine_cod'; did you mean refine_code"):
        load_template("refine_cod", REFINE_VARIABLES)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read the template .*nowhere.txt"):
        load_template(str(tmp_path / "nowhere.txt"), TASK_VARIABLES)


@pytest.mark.parametrize(
    ("reply", "response"),
    [
        ("Sure!\n<fixed>\nx = 1\n</fixed>\nI changed x.", "x = 1"),
        ("<fixed>x = 1</fixed>", "x = 1"),
        ("<fixed>\nx = ", "x = "),
        ("x = 1\n</fixed>", "x = 1"),
        ("Sure: x = 1", "Sure: x = 1"),
        ("<fixed>\n  indented\n\n</fixed>", "  indented\n"),
        ("<fixed>\na </fixed> b\n</fixed>", "a </fixed> b"),
    ],
)
def test_markers_are_stripped_only_where_they_stand(tmp_path: Path, reply: str, response: str) -> None:
    template = load_template(write(tmp_path, "$question\n<fixed>\n$response\n</fixed>\nFix it."), REFINE_VARIABLES)
    assert template.markers == ("<fixed>", "</fixed>")
    assert template.strip_markers(reply) == response


@pytest.mark.parametrize(
    "text", ["$question $response", "$question\n<a>\n$response\n</b>", "$question <a>$response</a>"]
)
def test_templates_without_markers_strip_nothing(tmp_path: Path, text: str) -> None:
    template = load_template(write(tmp_path, text), REFINE_VARIABLES)
    assert template.strip_markers("<a>\nx\n</a>") == "<a>\nx\n</a>"
