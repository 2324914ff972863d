"""What a terminal gets to see of a text."""

import pytest

from refinerl.data.terminal import answered, safe
from refinerl.errors import TrainingStoppedError, UserError


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        (UserError("no \x1b[2J"), 2, "error: no \\x1b[2J\n"),
        (TrainingStoppedError("no step"), 1, "stopped: no step\n"),
        (KeyboardInterrupt(), 130, "interrupted; nothing is lost\n"),
    ],
)
def test_a_command_ends_with_a_sentence(end, code, said, capsys):
    def command():
        raise end

    assert answered(command, "interrupted; nothing is lost") == code
    assert capsys.readouterr().err == said
    assert answered(lambda: 3) == 3


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
