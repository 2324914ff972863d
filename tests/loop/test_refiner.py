"""What exactly ỹ is, which y are refined, and what the metrics say of the rest."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from building import prompt
from refinerl.loop.refiner import Refiner
from refinerl.records import Completion, Decoding, Reply, Reward, Rollout, RolloutGroup, Sampling
from refining import OTHER_EOS, POINTS, SPECIAL, refine, refiner, rollout
from scripted import EOS, Points, Writer, clock, decode, encode


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


def test_the_progress_is_that_of_the_requests_that_are_sent():
    """A greedy refiner gets equal requests once, so the bar of the phase ended below 100 %."""
    total: list[int] = []
    y = rollout("bad", -1.0), rollout("bad", -1.0, 1), rollout("fair", 0.0, 2)
    writer, anchors = refine({"bad": "good", "fair": "good"}, *y, expect=total.append)
    assert writer.asked == ["bad", "fair"]
    assert len(anchors.refinements) == 3
    assert total == [2 * 8]


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


class UpToAHalf(Points):
    """No response to the prompt has more than half a point, although the task's highest reward is one."""

    def score(self, prompts, completions):
        return [replace(r, most=0.5) for r in super().score(prompts, completions)]


def test_the_highest_reward_of_a_prompt_is_perfect_there():
    task = UpToAHalf(bad=-1.0, fair=0.0, badly=0.5)
    y = rollout("bad", -1.0), rollout("fair", 0.0, 1)
    _, anchors = refine({"bad": "badly", "fair": "bad"}, *y, task=task, accept="perfect")
    assert [r.accepted for r in anchors.refinements] == [True, False]


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


def test_what_the_engine_did_is_measured():
    """Two replies in one batch, of which the longer one has five tokens."""
    y = rollout("bad", -1.0), rollout("fair", 0.0, 1)
    writer, anchors = refine({"bad": "good", "fair": "ok"}, *y)
    assert writer.decoded == Decoding(tokens=8, passes=5)
    names = ("tokens", "tokens_decoded", "passes")
    assert [anchors.metrics[f"refiner/{name}"] for name in names] == [8, 8, 5]
    assert math.isnan(anchors.metrics["refiner/draft_accepted"])

    class Guesses(Writer):
        """Confirms six of eight guesses in two passes, after an earlier call that does not count."""

        decoded = Decoding(100, 100, 100, 100)

        def generate(self, prompts, sampling, **options):
            found = super().generate(prompts, sampling, **options)
            self.decoded = Decoding(108, 102, 108, 106)
            return found

    guessing = refiner(Guesses(lambda asked, _: {"bad": "good", "fair": "ok"}[asked]))
    guessing.author.generator.decoded = Guesses.decoded
    metrics = guessing.refine([RolloutGroup(prompt("x"), y)], step=1).metrics
    assert [metrics[f"refiner/{name}"] for name in names] == [8, 2, 2]
    assert metrics["refiner/draft_accepted"] == 0.75
    assert "refiner/passes" not in refine_by(Author({"bad": ["good"]}), y[0]).metrics  # a server does not tell


def test_a_greedy_refiner_is_asked_once_for_equal_responses():
    y = rollout("bad", -1.0), rollout("fair", 0.0, 1), rollout("bad", -1.0, 2)
    writer, anchors = refine({"bad": "good", "fair": "fairly"}, *y)
    assert writer.asked == ["bad", "fair"]
    assert [r.completion.text for r in anchors.refinements] == ["good", "fairly", "good"]
    assert [r.weight for r in anchors.refinements] == [2, 0, 0]
    counts = [anchors.metrics[f"refiner/{name}"] for name in ("refined", "tokens", "tokens_decoded", "merged")]
    assert counts == [3, 17, 12, 1]
    sampled = refiner(Writer(lambda asked, seed: "good"))
    sampled = replace(sampled, sampling=replace(sampled.sampling, temperature=0.7))
    sampled.refine([RolloutGroup(prompt("x"), y)], step=1)
    assert sampled.author.generator.asked == ["bad", "fair", "bad"]


def test_what_is_no_copy_is_scored_while_the_refiner_goes_on():
    task = Points(bad=-1.0, fair=0.0, good=1.0)
    writer = Writer(lambda asked, _: {"bad": "good", "fair": "fair"}[asked])
    refiner(writer, task=task).refine([RolloutGroup(prompt("x"), (rollout("bad", -1.0), rollout("fair", 0.0, 1)))], 1)
    assert task.expected == ["good"]


def test_nothing_to_refine_is_no_trouble():
    _, anchors = refine({}, rollout("good", 1.0))
    assert anchors.refinements == ()
    assert anchors.metrics["refiner/improved_ratio"] == 0


# --- several tries, replies that do not come, answers by heart --------------------------------------


class Author:
    """Replies as a test lists them, for each y one for each try."""

    decoded = None

    def __init__(self, replies):
        self.replies = replies

    def reply(self, conversations, sampling, drafts, arrived=None):
        self.seeds = sampling.seeds
        return [
            [
                None if text is None else Reply(text.rstrip("…"), "length" if text.endswith("…") else "stop", 10, 5)
                for text in self.replies[conversation[0]["content"]]
            ]
            for conversation in conversations
        ]


def refine_by(author, *rollouts, n=1, task=POINTS, **options):
    refiner = Refiner(
        author=author,
        task=task,
        sampling=Sampling(8, temperature=0.7, n=n),
        answering=Sampling(8),
        encode=encode,
        decode=lambda ids: decode([i for i in ids if i not in SPECIAL]),
        eos_token_id=EOS,
        special_token_ids=SPECIAL,
        context_length=1000,
        accept="better",
        seed=0,
        clock=clock,
        **options,
    )
    return refiner.refine([RolloutGroup(prompt("x"), rollouts)], step=1)


@pytest.mark.parametrize(
    ("tries", "best"),
    [
        (["fair", "good", "bad"], "good"),
        (["good…", "fair", "bad"], "fair"),  # the best one was cut off
        (["", "bad", "fair"], "fair"),
        (["odd", "fair", "odd"], "fair"),  # odd has no reward
        (["good", "good", "good"], "good"),
        (["fair", "half", "badly"], "badly"),  # of equal rewards the one that copies most
        ([None, "fair", None], "fair"),
    ],
)
def test_of_several_tries_the_best_that_may_teach_counts(tries, best):
    task = Points(bad=-1.0, fair=0.0, good=1.0, half=0.0, badly=0.0)
    anchors = refine_by(Author({"bad": tries}), rollout("bad", -1.0), n=3, task=task)
    (refinement,) = anchors.refinements
    assert (refinement.completion.text, refinement.accepted) == (best, True)
    assert anchors.metrics["refiner/tokens"] == 10 * sum(text is not None for text in tries)
    assert anchors.metrics["refiner/tokens_read"] == 5 * sum(text is not None for text in tries)
    assert anchors.metrics["refiner/failed"] == 0


def test_each_try_has_noise_of_its_own_and_the_first_that_of_a_single_one():
    many, one = Author({"bad": ["fair"] * 3}), Author({"bad": ["fair"]})
    refine_by(many, rollout("bad", -1.0), n=3)
    refine_by(one, rollout("bad", -1.0))
    assert len(set(many.seeds[0])) == 3
    assert many.seeds[0][:1] == one.seeds[0]


def test_a_reply_that_does_not_come_leaves_its_response_unrefined():
    author = Author({"bad": [None, None], "fair": ["good", None], "badly": []})
    rollouts = [rollout("bad", -1.0), rollout("fair", 0.0, 1), rollout("badly", 0.5, 2)]
    anchors = refine_by(author, *rollouts, n=2)
    assert [r.rollout.completion.text for r in anchors.refinements] == ["fair"]
    assert anchors.metrics["refiner/failed"] == 1
    assert anchors.metrics["refiner/skipped_too_long"] == 1  # badly, which left no room


def test_an_answer_by_heart_is_counted_and_not_accepted():
    task = Points(bad=-1.0, fair=0.0, good=1.0)
    task.by_heart = ("good",)
    anchors = refine_by(Author({"bad": ["good"], "fair": ["good"]}), rollout("bad", -1.0), task=task)
    (refinement,) = anchors.refinements
    assert (refinement.accepted, refinement.weight, refinement.reward) == (False, 0, Reward(1.0, "scored"))
    assert anchors.metrics["refiner/hard_coded"] == 1
    anchors = refine_by(Author({"bad": ["good", "fair"]}), rollout("bad", -1.0), task=task, n=2)
    assert anchors.refinements[0].completion.text == "fair"  # the honest one
    assert anchors.metrics["refiner/hard_coded"] == 1


def test_what_is_scored_is_what_the_tokens_say():
    """A tokenizer that normalises cannot say everything that a refiner with another one writes: here, capitals."""
    _, anchors = refine(
        {"bad": "Good"}, rollout("bad", -1.0), task=Points(bad=-1.0, good=0.5, Good=1.0), fold=str.lower
    )
    (refinement,) = anchors.refinements
    assert refinement.completion.token_ids == (*encode("good"), EOS)
    assert (refinement.completion.text, refinement.reward.value) == ("good", 0.5)
