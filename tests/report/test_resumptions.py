"""resumed.json: the steps after which a run was resumed, without those that were repeated since."""

from __future__ import annotations

import json

import pytest

from refinerl.errors import UserError
from refinerl.report.resumptions import note, resumptions


def test_each_start_is_noted_once_and_what_was_repeated_is_forgotten(tmp_path):
    assert resumptions(tmp_path) == []
    for step, after in [(2, [2]), (5, [2, 5]), (5, [2, 5]), (9, [2, 5, 9]), (4, [2, 4])]:
        note(tmp_path, step)
        assert resumptions(tmp_path) == after
    assert json.loads((tmp_path / "resumed.json").read_text()) == {"schema": 1, "after": [2, 4]}


def test_a_run_that_begins_anew_was_not_resumed(tmp_path):
    note(tmp_path, 0)
    assert not list(tmp_path.iterdir())
    note(tmp_path, 3)
    note(tmp_path, 0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["{", "[]", "3", '{"schema": 2, "after": []}', '{"schema": 1, "after": ["2"]}'])
def test_another_file_is_named(tmp_path, text):
    (tmp_path / "resumed.json").write_text(text)
    with pytest.raises(UserError, match=r"resumed\.json"):
        resumptions(tmp_path)
