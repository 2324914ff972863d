"""What exactly ỹ is, which y are refined, and what the metrics say of the rest."""

from __future__ import annotations

import pytest

from building import prompt
from refinerl.loop.refiner import Refiner
from refinerl.records import Completion, Reward, Rollout, RolloutGroup, Sampling
from scripted import EOS, Points, Writer, clock, decode, encode

POINTS = Points(bad=-1.0, fair=0.0, good=1.0, badly=0.5)


def rollout(text, value, sample=0):
    reward = None if value is None else Reward(value, "scored")
    return Rollout(prompt("x"), Completion((*encode(text), EOS), (), text, "stop"), reward, sample)


def refine(replies, *rollouts, accept="better", context=1000, reads=1000, max_tokens=8):
    writer = Writer(lambda asked, _: replies[asked], context_length=reads)
    refiner = Refiner(
        generator=writer,
        task=POINTS,
        sampling=Sampling(max_tokens, temperature=0.0),
        encode_chat=lambda messages: encode(messages[0]["content"]),
        encode=encode,
        decode=decode,
        eos_token_id=EOS,
        context_length=context,
        accept=accept,
        seed=0,
        clock=clock,
    )
    return writer, refiner.refine([RolloutGroup(prompt("x"), rollouts)], step=1)


def test_a_better_refinement_is_accepted_and_ends_as_the_refiner_ended():
    for reply, ids in (("good", (*encode("good"), EOS)), ("good…", encode("good"))):
        _, anchors = refine({"bad": reply}, rollout("bad", -1.0))
        (refinement,) = anchors.refinements
        assert (refinement.accepted, refinement.completion.token_ids) == (True, ids)
        assert refinement.alignment.distance > 0
        assert anchors.metrics["refiner/improved_ratio"] == anchors.metrics["refiner/accepted_fraction"] == 1
        assert anchors.metrics["refiner/reward_gain"] == 2


def test_a_refinement_keeps_the_prefix_of_y():
    _, anchors = refine({"bad": "badly"}, rollout("bad", -1.0))
    assert anchors.refinements[0].alignment.prefix == 3
    assert anchors.metrics["refiner/copy_ratio"] == pytest.approx(4 / 6)  # b a d and the EOS, of badly and EOS


def test_the_best_and_the_unscored_are_not_refined():
    writer, anchors = refine({"bad": "good"}, rollout("good", 1.0), rollout("odd", None, 1), rollout("bad", -1.0, 2))
    assert writer.asked == ["bad"]
    assert anchors.metrics["refiner/skipped_perfect"] == 1
    assert anchors.metrics["refiner/improved_ratio"] == pytest.approx(1 / 3)
    writer, _ = refine({"bad": "good", "good": "good"}, rollout("good", 1.0), rollout("bad", -1.0, 1), accept="all")
    assert writer.asked == ["good", "bad"]


def test_a_copy_is_dropped_by_the_filter_and_costs_nothing_to_align():
    _, anchors = refine({"fair": "fair"}, rollout("fair", 0.0))
    assert (anchors.refinements[0].accepted, anchors.refinements[0].alignment.distance) == (False, 0)
    assert anchors.metrics["refiner/not_better"] == 1
    _, anchors = refine({"fair": "fair"}, rollout("fair", 0.0), accept="all")
    assert anchors.refinements[0].accepted


def test_an_empty_refinement_is_dropped_even_without_a_filter():
    _, anchors = refine({"fair": ""}, rollout("fair", 0.0), accept="all")
    assert not anchors.refinements[0].accepted
    assert anchors.metrics["refiner/empty"] == 1


def test_only_the_best_teach_where_asked():
    _, anchors = refine(
        {"bad": "fair", "fair": "good"}, rollout("bad", -1.0), rollout("fair", 0.0, 1), accept="perfect"
    )
    assert [r.accepted for r in anchors.refinements] == [False, True]
    assert anchors.metrics["refiner/not_perfect"] == 1


@pytest.mark.parametrize("limits", [{"reads": 10}, {"context": 6}])
def test_what_does_not_fit_is_not_made_and_is_counted(limits):
    """The refiner's own context, and the policy's for x and ỹ."""
    _, anchors = refine({"bad": "good"}, rollout("bad", -1.0), **limits)
    assert anchors.refinements == ()
    assert anchors.metrics["refiner/skipped_too_long"] == 1


def test_nothing_to_refine_is_no_trouble():
    _, anchors = refine({}, rollout("good", 1.0))
    assert anchors.refinements == ()
    assert anchors.metrics["refiner/improved_ratio"] == 0
