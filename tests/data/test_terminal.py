"""What a terminal gets to see of a text."""

import pytest

from refinerl.data.terminal import safe


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain: Ä ỹ 漢", "plain: Ä ỹ 漢"),
        ("two\nlines", "two\nlines"),
        ("\x1b[2J", r"\x1b[2J"),
        ("a\rb\x07", r"a\rb\x07"),
        ("right\u202eleft", r"right\u202eleft"),
        ("half \udc80", r"half \udc80"),
    ],
)
def test_only_line_breaks_and_what_can_be_printed_are_left(text, shown):
    assert safe(text) == shown
