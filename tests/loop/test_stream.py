"""The order of the prompts: every pass holds each once, and a position is all that a resume needs."""

import pytest

from refinerl.errors import UserError
from refinerl.loop.stream import PromptStream
from refinerl.records import Prompt

PROMPTS = [Prompt(str(i), "", (), (1,), None) for i in range(7)]


def ids(prompts):
    return [p.id for p in prompts]


def test_each_pass_holds_every_prompt_once_in_an_order_of_its_own():
    stream = PromptStream(PROMPTS, seed=1)
    first, second = ids(stream.draw(7)), ids(stream.draw(7))
    assert sorted(first) == sorted(second) == [p.id for p in PROMPTS]
    assert first != second
    assert ids(PromptStream(PROMPTS, seed=2).draw(7)) != first


def test_a_stream_continues_from_its_position():
    whole = PromptStream(PROMPTS, seed=1)
    expected = ids(whole.draw(20))
    resumed = PromptStream(PROMPTS, seed=1)
    resumed.position = 5
    assert ids(resumed.draw(15)) == expected[5:]
    assert resumed.position == 20


def test_epochs_bound_the_data():
    stream = PromptStream(PROMPTS, seed=1, epochs=2)
    assert len(stream.draw(10)) == 10
    assert len(stream.draw(10)) == 4
    assert stream.draw(10) == []


def test_no_prompts_is_the_users_mistake():
    with pytest.raises(UserError, match="no prompts"):
        PromptStream([], seed=1)
