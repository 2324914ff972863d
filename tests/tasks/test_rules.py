import re

import pytest

from refinerl.errors import UserError
from refinerl.tasks import rules


@pytest.mark.parametrize(
    ("text", "expected", "value"),
    [
        ("6 · 7 = 42", "42", 1),
        ("First 41. The answer is 42.", 42, 1),
        ("The answer is 42, not 41.", "40 + 2\n#### 42", 1),
        (r"so \boxed{\frac{1}{2}} of 9", r"\frac{1}{2}", 1),
        (r"\boxed{41} and \boxed{42}", "42", 1),
        ("#### 1,234.50", "1234.5", 1),
        ("Answer: Paris.", "paris", 1),
        ("Paris", "Lyon", 0),
        ("41", "42", 0),
        ("-3", "3", 0),
        ("", "42", 0),
        ("42", None, None),
        ("She makes 18 dollars.", "18 dollars", 1),
        ("The answer is 18 dollars.", "18 dollars", 1),
        ("The answer is 18 dollars.", "#### 18", 1),
        ("The answer is 18 cents.", "18 dollars", 0),
        ("So 1 dollar: #### 1 dollar", "1 dollars", 1),
        (r"\boxed{\$18\text{ dollars}}", "18", 1),
        (r"\boxed{50\%}", "50", 1),
        ("It is 5.", "5 million", 0),
        ("The answer is 5 million.", "5 million", 1),
        ("The answer is .5", "0.5", 1),
        ("The answer is Apollo 11.", "apollo 11", 1),
        ("**Answer:** **Paris**", "Paris", 1),
        ("The answer is 9007199254740993.", "9007199254740992", 0),
        (r"\boxed{1,2}", "12", 0),
        ("9" * 5000, "9" * 4999 + "8", 0),
        ("The answer is 1.", "half of it\n#### 1/2", 0),
        ("The answer is 1/2.", "#### 1/2", 1),
        (r"\boxed{1/2}", "#### 1/2", 1),
        ("The answer is 3.", "#### 3:30", 0),
        ("The answer is 3:30.", "#### 3:30", 1),
        ("The answer is 2.", "#### 2 1/2", 0),
        ("The answer is 10.", "#### 10^6", 0),
        ("The answer is 5.", "#### 5 million", 0),
        ("The answer is 5 million.", "#### 5 million", 1),
        ("The answer is 5 million.", "5", 0),
        ("The answer is 5/6.", "5", 0),
        ("So it is 5/6", "6", 0),
        (r"It is \frac{5}{6}", "6", 0),
        ("It is 3 + 4 = 7", "7", 1),
        ("The answer is **18**.", "18", 1),
        ("That makes **$18**.", "18", 1),
        ("The answer is 5 apples and 1/2 of a pear.", "5", 1),
        ("The answer is x = 5", "#### 5", 1),
        ("Total: 18", "18", 1),
        ("1/2", "1/2", 1),
    ],
)
def test_answer(text: str, expected: object, value: float | None) -> None:
    reward = rules.load_rule("answer")
    assert reward([], [[{"role": "assistant", "content": text}]], [[]], {"answer": [expected]}) == [value]


def test_matches() -> None:
    reward = rules.load_rule("matches")
    texts = ["<think>\na\n</think> b", "b", "b"]
    pattern = "<think>.*</think>.+"
    assert reward([], texts, [[]] * 3, {"pattern": [pattern, pattern, None]}) == [1, 0, None]
    with pytest.raises(UserError, match=r"the column pattern holds '\(', which is not a regular expression"):
        reward([], ["b"], [[]], {"pattern": ["("]})


def test_a_pattern_that_backtracks_for_ever_is_named() -> None:
    """The run hung without a word."""
    reward = rules.load_rule("matches", seconds=0.2)
    texts, patterns = ["b", "a" * 60, "b"], ["b", "(a+)+b", "b"]
    told = "rule:matches took longer than task.reward_seconds = 0.2 on 3 completions, at the pattern '(a+)+b'"
    with pytest.raises(UserError, match=re.escape(told)):
        reward([], texts, [[]] * 3, {"pattern": patterns})


def test_an_unknown_rule_and_a_missing_column() -> None:
    with pytest.raises(UserError, match=r"there is no rule 'length'; .*are answer, matches"):
        rules.load_rule("length")
    with pytest.raises(UserError, match="rule:answer needs 'answer', but there is only prompts"):
        rules.load_rule("answer").check(["question"])
