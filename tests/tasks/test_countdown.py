import pytest

from refinerl.data import countdown as data
from refinerl.errors import UserError
from refinerl.tasks import rules


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r"\boxed{(19 - 13) * 5 + 2}", 1),
        (r"First \boxed{1}, then \boxed{2 + 5 * (19 - 13)}", 1),
        ("<answer> (19 - 13) * 5 + 2 </answer>", 1),
        (r"\boxed{(19 - 13) \times 5 + 2 = 32}", 1),
        (r"\boxed{\left(19 − 13\right) · 5 + 2}", 1),
        (r"\boxed{19 + 13 + 5 + 2}", 0.1),
        (r"\boxed{32}", 0),
        (r"\boxed{19 + 13}", 0),
        (r"\boxed{19 + 13 + 5 + 2 - 2}", 0),
        (r"\boxed{19 - 13 - 5 / (2 - 2)}", 0),
        (r"\boxed{19 ** 13 ** 5 ** 2}", 0),
        (r"\boxed{__import__('os').system('true')}", 0),
        (r"\boxed{((((}", 0),
        (r"\boxed{" + "(" * 100_000 + "}", 0),
        (r"\boxed{}", 0),
        ("<answer></answer>", 0),
        ("(19 - 13) * 5 + 2", 0),
        ("", 0),
    ],
)
def test_expressions(text: str, value: float) -> None:
    reward = rules.load_rule("countdown")
    columns = {"numbers": [[2, 5, 13, 19]], "target": [32]}
    assert reward([], [[{"role": "assistant", "content": text}]], [[]], columns) == [value]


def test_a_row_without_numbers_has_no_reward() -> None:
    assert rules.load_rule("countdown")([], ["1"], [[]], {"numbers": [None], "target": [1]}) == [None]


def test_a_row_without_a_target_has_no_reward() -> None:
    reward = rules.load_rule("countdown")
    assert reward([], [r"\boxed{1 + 2}"], [[]], {"numbers": [[1, 2]], "target": [None]}) == [None]


@pytest.mark.parametrize("target", ["3", 3.0, "3.0"])
def test_a_target_may_be_a_text_as_in_a_table(target: object) -> None:
    assert rules.load_rule("countdown")([], [r"\boxed{1 + 2}"], [[]], {"numbers": [["1", 2]], "target": [target]}) == [
        1
    ]


@pytest.mark.parametrize(("numbers", "target"), [("[1, 2]", 3), ([1, 2], "three"), ([1, "x"], 3), (7, 3)])
def test_columns_that_cannot_be_read(numbers: object, target: object) -> None:
    with pytest.raises(UserError, match="rule:countdown needs a list of whole numbers in the column numbers"):
        rules.load_rule("countdown")([], [r"\boxed{1 + 2}"], [[]], {"numbers": [numbers], "target": [target]})


def test_parentheses_decide_and_division_is_exact() -> None:
    reward = rules.load_rule("countdown")
    columns = {"numbers": [[3, 3, 8, 8], [1, 3, 49]], "target": [24, 49]}
    assert reward([], [r"\boxed{8 / (3 - 8 / 3)}", r"\boxed{1 / 3 * 49 * 3}"], [[]] * 2, columns) == [1, 0]
    assert {len(row["numbers"]) for row in data.rows("shipped:countdown")} == {3, 4}
