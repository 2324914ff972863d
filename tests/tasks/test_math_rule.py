"""rule:math against math-verify itself, called directly, and on what it cannot judge."""

from __future__ import annotations

import math_verify
import pytest

from refinerl.errors import UserError
from refinerl.tasks import rules
from refinerl.tasks.math_rule import MathReward, right_answer

HANGS = r"\boxed{\dfrac{5^{\left(5^{\left(5^{\left(5^5\right)}\right)} - 4\right)} - 5}{16}}"
"""From issue 65 of Math-Verify: it hangs in spite of the package's own time limit."""

CASES = [
    ("48/2 = <<48/2=24>>24\n48 + 24 = 72\n#### 72", r"She sold \boxed{72} clips.", 1),
    ("#### 72", "The answer is 72.", 1),
    ("#### 72", "72 of 73", 0),
    ("#### 1,224", r"\boxed{1224}", 1),
    ("#### 5", "$5.00", 1),
    (r"\frac{1}{2}", r"so \boxed{0.5}", 1),
    (r"\frac{1}{2}", "The answer is 1/2", 1),
    (r"\frac{1}{2}", r"\boxed{2}", 0),
    ("0.5", r"\boxed{\frac{2}{4}}", 1),
    ("x^2 + 2x + 1", r"\boxed{(x+1)^2}", 1),
    ("x^2 + 2x + 1", r"\boxed{(x-1)^2}", 0),
    (r"We find \boxed{\{1, 2\}}.", r"\boxed{\{2, 1\}}", 1),
    (r"$(1, 2)$", r"\boxed{(2, 1)}", 0),
    (r"\sqrt{8}", r"$2\sqrt{2}$", 1),
    ("[1, 3)", r"$1 \le x < 3$", None),
    ("12", "I do not know.", 0),
    ("12", "", 0),
    ("12", "\ud83d", 0),
    ("x = 3", r"\boxed{3}", 1),
    ("50\\%", r"\boxed{50\%}", 1),
    (str(0.00001), r"\boxed{0.00001}", 1),
    ("1.5e3", r"\boxed{1500}", 1),
    ("18 dollars", "She makes 18 dollars.", 1),
    ("#### 18 dollars per day", "The answer is 18.", 1),
    ("1,800 dollars", r"\boxed{1800 \text{ dollars}}", 1),
    ("18", r"\boxed{18\text{ dollars}}", 1),
    ("18", r"\boxed{18 dollars}", None),
    ("2 x", r"\boxed{2x}", 1),
]


@pytest.fixture(scope="module")
def rule():
    reward = rules.load_rule("math", math_seconds=1.0, workers=2)
    yield reward
    reward.close()


def scores(rule, answers, texts):
    return rule([], texts, [[]] * len(texts), {"answer": answers})


def test_values_are_those_of_math_verify(rule):
    answers, texts, expected = map(list, zip(*CASES, strict=True))
    directly = [
        float(math_verify.verify(math_verify.parse(right_answer(gold)), math_verify.parse(text)))
        for gold, text, _ in CASES
    ]
    found = scores(rule, answers, texts)
    assert found == directly
    named = zip(CASES, found, expected, strict=True)
    assert [(case, value) for case, value, want in named if want not in (None, value)] == []
    assert dict(rule.telemetry()) == {"math/timeouts": 0, "math/crashes": 0}


def test_completions_may_be_messages_and_numbers_are_answers(rule):
    messages = [[{"role": "assistant", "content": "It is 7."}]] * 3
    assert scores(rule, [7, 7.0, None], messages) == [1, 1, None]


def test_a_response_that_hangs_is_wrong_and_counted_and_the_others_are_judged(rule):
    texts = [HANGS, r"\boxed{1}", r"\boxed{1}", r"\boxed{2}"]
    assert scores(rule, ["1"] * 4, texts) == [0, 1, 1, 0]
    assert dict(rule.telemetry()) == {"math/timeouts": 1, "math/crashes": 0}
    assert dict(rule.telemetry()) == {"math/timeouts": 0, "math/crashes": 0}


def test_right_answers_are_read_before_the_run(rule):
    rule.check(["answer"], [("1", {"answer": "#### 3"}), ("2", {"answer": r"\frac{1}{2}"}), ("3", {"answer": None})])
    with pytest.raises(UserError, match=r"prompt 8: the column answer holds '\$\$', which math-verify cannot read"):
        rule.check(["answer"], [("7", {"answer": r"\pi"}), ("8", {"answer": ""}), ("9", {"answer": " "})])
    with pytest.raises(UserError, match="rule:math needs 'answer', but there is only"):
        rule.check(["solution"])
    assert scores(rule, ["1"], [r"\boxed{1}"]) == [1]  # it goes on after an error


@pytest.mark.parametrize("gold", ["%%", "---", "???", "...", "$()$", r"\boxed{%}", r"\%"])
def test_signs_alone_are_no_right_answer(rule, gold):
    with pytest.raises(UserError, match=r"prompt 8: the column answer holds .*, which math-verify cannot read"):
        rule.check(["answer"], [("7", {"answer": "4%"}), ("8", {"answer": gold})])
    with pytest.raises(UserError, match=r"the column answer holds .*, which math-verify cannot read"):
        scores(rule, [gold], [gold])


@pytest.mark.parametrize("gold", [r"AB \parallel CD", "√2", "½", r"\text{(A)}", r"\emptyset", "{}"])
def test_what_math_verify_compares_as_text_is_a_right_answer(rule, gold):
    rule.check(["answer"], [("8", {"answer": gold})])
    assert scores(rule, [gold, gold], [rf"\boxed{{{gold}}}", r"\boxed{7}"]) == [1, 0]


def test_without_math_verify(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="rule:math needs math-verify, which is not installed: pip install"):
        MathReward()
