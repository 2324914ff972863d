"""Groups of scored samples, dynamic sampling with its limit, and what dropped groups still give."""

from __future__ import annotations

import pytest

from building import group, prompt
from refinerl.algorithms.dapo import DAPO
from refinerl.engines.world import WorldOfOne
from refinerl.loop.metrics import rollout_metrics
from refinerl.loop.rollout import Roller, collect, deal, revive
from refinerl.loop.stream import PromptStream
from refinerl.records import Anchors, Sampling, sample_seed
from scripted import Points, Writer, clock
from threads import on_ranks


def roller(script, n=2):
    return Roller(Writer(script), Points(bad=-1.0, good=1.0), Sampling(8, n=n), 7, clock)  # type: ignore[arg-type]


def collected(script, *, prompts=2, max_resamples=3, epochs=None):
    stream = PromptStream([prompt(str(i), (65 + i,)) for i in range(6)], seed=0, epochs=epochs)
    world = WorldOfOne()
    options = {"prompts": prompts, "max_resamples": max_resamples, "step": 1}
    return stream, collect(roller(script), DAPO(), world, stream.draw, **options)


def test_seeds_name_step_prompt_and_sample():
    seen = {}

    def script(asked, seed):
        seen[seed] = asked
        return "good"

    (found,) = roller(script).rollout([prompt("q", (65,))], step=3)
    assert list(seen) == [sample_seed(7, 3, "q", 0), sample_seed(7, 3, "q", 1)]
    assert [r.sample for r in found.rollouts] == [0, 1]
    assert found.rewards == (1.0, 1.0)


def test_each_response_is_handed_over_when_it_is_written_and_scored_in_order():
    made = roller(lambda asked, seed: f"good{seed % 97}" if asked == "A" else "bad")
    groups = made.rollout([prompt("p", (65,)), prompt("q", (66,))], step=1)
    written = [r.completion.text for g in groups for r in g.rollouts]
    assert written[2:] == ["bad", "bad"]
    assert sorted(made.task.expected) == sorted(written)  # type: ignore[attr-defined]


def test_a_prompt_drawn_again_in_a_step_uses_no_noise_twice():
    again = prompt("q", (65,))
    first, second = roller(lambda *_: "good").rollout([again, again], step=1)
    assert [r.sample for r in (*first.rollouts, *second.rollouts)] == [0, 1, 2, 3]
    (third,) = roller(lambda *_: "good").rollout([again], step=1, drawn_before=[again, again])
    assert [r.sample for r in third.rollouts] == [4, 5]


def test_groups_without_signal_are_replaced_up_to_the_limit():
    stream, found = collected(lambda *_: "good", max_resamples=2)
    assert (len(found.kept), len(found.dropped), found.resamples) == (0, 6, 2)
    assert stream.position == 6


def test_no_more_is_drawn_than_is_missing():
    """Groups of the first prompt drawn have no signal, all others do."""
    first = PromptStream([prompt(str(i), (65 + i,)) for i in range(6)], seed=0).draw(1)[0]
    dull = chr(first.token_ids[0])
    turns = iter(range(100))
    stream, found = collected(lambda asked, _: "good" if asked == dull or next(turns) % 2 else "bad")
    assert (len(found.kept), len(found.dropped), found.resamples) == (2, 1, 1)
    assert stream.position == 3


def test_the_end_of_the_data_ends_the_collection():
    _, found = collected(lambda *_: "good", prompts=4, max_resamples=9, epochs=1)
    assert (len(found.groups), len(found.kept)) == (6, 0)


def test_dropped_groups_give_what_can_be_improved():
    dropped = [group("a", ([1], -1.0), ([2], -1.0)), group("b", ([3], 1.0), ([4], None))]
    revived = revive(dropped, 8, 1.0, seed=0)
    assert [(g.prompt.id, len(g.rollouts), g.surrogate) for g in revived] == [("a", 2, False)]
    assert sum(len(g.rollouts) for g in revive(dropped, 1, 1.0, seed=0)) == 1
    assert sum(len(g.rollouts) for g in revive(dropped, 8, None, seed=0)) == 3


def test_prompts_are_dealt_in_turn_to_those_who_miss_some():
    assert deal(4, [2, 2]) == [0, 1, 0, 1]
    assert deal(3, [2, 2]) == [0, 1, 0]  # the data ends
    assert deal(4, [0, 1, 3]) == [1, 2, 2, 2]
    assert deal(0, [0, 0]) == []


@pytest.mark.parametrize("epochs", [None, 1])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_any_number_of_ranks_keeps_the_same_groups(size, epochs):
    """Groups of three of seven prompts have no signal; the ranks draw, drop and end together."""
    words = [prompt(f"{i}", (65 + i,)) for i in range(7)]

    def script(asked, seed):
        return "bad" if asked in "ABC" or seed % 2 else "good"

    def work(world):
        stream = PromptStream(words, seed=3, epochs=epochs)
        rules = {"prompts": 8, "max_resamples": 2, "step": 1}
        found = collect(roller(script, n=4), DAPO(), world, stream.draw, **rules)
        revived = revive(found.dropped, 5, 1.0, 7, world)
        return stream.position, found, revived, rollout_metrics(found, Anchors(), world)

    def told(groups):
        return sorted((g.position, g.prompt.id, *((r.sample, r.reward.value) for r in g.rollouts)) for g in groups)

    ((position, alone, revived, metrics),) = on_ranks(1, work)
    found = on_ranks(size, work)
    assert {part[0] for part in found} == {position}
    assert told(g for part in found for g in part[1].kept) == told(alone.kept)
    assert told(g for part in found for g in part[1].dropped) == told(alone.dropped)
    assert told(g for part in found for g in part[2]) == told(revived)
    assert sum(len(g.rollouts) for g in revived) == 5
    assert all(part[3] == pytest.approx(metrics, nan_ok=True) for part in found)
    if epochs is None:
        assert max(len(part[1].kept) for part in found) <= 8 // size
