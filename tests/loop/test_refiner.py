"""What exactly ỹ is, which y are refined, and what the metrics say of the rest."""

from __future__ import annotations

from dataclasses import replace

import pytest

from building import prompt
from refinerl.records import Completion, Reward, Rollout
from refining import OTHER_EOS, refine, rollout
from scripted import EOS, Points, encode


def test_a_better_refinement_is_accepted_and_ends_as_the_refiner_ended():
    for reply, ids in (("good", (*encode("good"), EOS)), ("good…", encode("good"))):
        _, anchors = refine({"bad": reply}, rollout("bad", -1.0), accept_truncated=True)
        (refinement,) = anchors.refinements
        assert (refinement.accepted, refinement.completion.token_ids) == (True, ids)
        assert refinement.alignment.distance > 0
        assert anchors.metrics["refiner/improved_ratio"] == anchors.metrics["refiner/accepted_fraction"] == 1
        assert anchors.metrics["refiner/reward_gain"] == 2


@pytest.mark.parametrize("accept", ["better", "all", "perfect"])
def test_a_refinement_that_was_cut_off_does_not_teach_and_is_counted(accept):
    y = rollout("bad", -1.0), rollout("fair", 0.0, 1)
    _, anchors = refine({"bad": "good…", "fair": "good"}, *y, accept=accept)
    assert [(r.reward.value, r.accepted, r.weight) for r in anchors.refinements] == [(1, False, 0), (1, True, 1)]
    assert anchors.metrics["refiner/truncated"] == 1
    _, anchors = refine({"bad": "good…", "fair": "good"}, *y, accept=accept, accept_truncated=True)
    assert [r.accepted for r in anchors.refinements] == [True, True]
    assert anchors.metrics["refiner/truncated"] == 1


class Moody(Points):
    """As a reward model in low precision: a text's reward depends on what else is in the batch."""

    def score(self, prompts, completions):
        self.texts = [c.text for c in completions]
        return [replace(r, value=r.value + 0.01) for r in super().score(prompts, completions)]


def test_a_copy_has_the_reward_of_its_y_and_is_not_scored_again():
    task = Moody(fair=0.0, bad=-1.0, badly=-0.5)
    _, anchors = refine({"fair": "fair", "bad": "badly"}, rollout("fair", 0.0), rollout("bad", -1.0, 1), task=task)
    assert [r.reward.value for r in anchors.refinements] == [0.0, -0.49]
    assert [r.accepted for r in anchors.refinements] == [False, True]
    assert task.texts == ["badly"]


def test_no_special_token_stands_inside_a_refinement():
    """The shared prefix ends at y's first one, whatever it is; one that the refiner spells out is left out."""
    y = Rollout(
        prompt("x"),
        Completion((*encode("ba"), OTHER_EOS, *encode("d"), EOS), (), "bad", "stop"),
        Reward(-1.0, "scored"),
        0,
    )
    for reply in ("badly", f"bad{chr(OTHER_EOS)}ly"):
        _, anchors = refine({"bad": reply}, y)
        (refinement,) = anchors.refinements
        assert refinement.completion.token_ids == (*encode("badly"), EOS)
        assert (refinement.completion.text, refinement.reward.value) == ("badly", 0.5)
        assert refinement.alignment.prefix == 2


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


def test_the_metrics_tell_what_the_groups_advantage_already_teaches():
    y = rollout("bad", -1.0), rollout("fair", 0.0, 1)
    _, anchors = refine({"bad": "badly", "fair": "bad"}, *y)
    assert anchors.metrics["refiner/beyond_best_sibling"] == 1
    _, anchors = refine({"bad": "fair", "fair": "good"}, *y)
    assert anchors.metrics["refiner/beyond_best_sibling"] == 0.5
    assert anchors.metrics["refiner/in_dead_groups"] == 0
    _, anchors = refine({"bad": "fair", "fair": "bad"}, *y, budget=0.5)
    assert (len(anchors.refinements), anchors.metrics["refiner/skipped_by_choice"]) == (1, 1)


def test_nothing_to_refine_is_no_trouble():
    _, anchors = refine({}, rollout("good", 1.0))
    assert anchors.refinements == ()
    assert anchors.metrics["refiner/improved_ratio"] == 0
