"""The order of the prompts: every pass holds each once, and a position is all that a resume needs."""

import pytest

from refinerl.errors import UserError
from refinerl.loop.stream import PassStream, PromptStream
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


def passes(seed, number):
    """Read seven prompts, in an order of the pass's own."""
    return iter(PROMPTS[number % 7 :] + PROMPTS[: number % 7])


def test_passes_continue_from_a_position():
    whole = PassStream(passes, seed=1)
    expected = ids(whole.draw(20))
    assert sorted(expected[:7]) == sorted(expected[7:14]) == ids(PROMPTS)
    assert whole.position == 20
    resumed = PassStream(passes, seed=1)
    resumed.position = 5
    assert ids(resumed.draw(15)) == expected[5:]
    resumed.position = 2  # back
    assert ids(resumed.draw(3)) == expected[2:5]


def test_epochs_bound_the_passes():
    stream = PassStream(passes, seed=1, epochs=2)
    assert [len(stream.draw(10)), len(stream.draw(10)), len(stream.draw(10))] == [10, 4, 0]
    assert stream.position == 14


def test_passes_without_prompts_end():
    with pytest.raises(UserError, match="all rows of the stream are left out"):
        PassStream(lambda seed, number: iter([]), seed=1).draw(1)
