"""New answers of the reference as ỹ."""

from __future__ import annotations

import pytest
from transformers import AutoModelForCausalLM

from building import prompt
from refinerl.constraints.fresh import Fresh
from refinerl.contracts import WorldOfOne
from refinerl.engines.tokenization import ChatTokenizer
from refinerl.engines.transformers import TransformersGenerator
from refinerl.records import RolloutGroup, Sampling, sample_seed
from refining import refiner, rollout
from scripted import Writer
from toy import Toy, metrics, rollouts

Y = (rollout("bad", -1.0), rollout("badly", 0.5, 1), rollout("good", 1.0, 2))
KEYS = {sample_seed(0, 1, f"fresh/{number}/x", sample): (number, sample) for number in range(9) for sample in range(3)}


def anchored(answers, *y, context=1000, **options):
    """The anchors where the reference's answer with the seed of (number, sample) is `answers[number, sample]`."""
    asked = []

    def script(text, seed):
        assert text == "\x05\x06\x07"  # x as the policy reads it, without an instruction
        asked.append(KEYS[seed])
        return answers.get(KEYS[seed], "odd")

    constraint = Fresh(**options)
    constraint.connect(refiner(Writer(script), context=context))
    return constraint.anchor([RolloutGroup(prompt("x"), y or Y)], step=1), asked


def test_the_best_of_the_answers_that_the_budget_allows_counts():
    """y of 4 and 6 tokens with their EOS; the third one is perfect."""
    anchors, asked = anchored({(0, 0): "fair", (0, 1): "b", (1, 1): "good"})
    assert asked == [(0, 0), (0, 1), (1, 1)]  # after 5 of 4 tokens none; after 2 of 6 one more
    assert [(r.rollout.sample, r.completion.text, r.accepted) for r in anchors.refinements] == [
        (0, "fair", True),
        (1, "good", True),
    ]
    assert (anchors.metrics["refiner/tokens"], anchors.metrics["refiner/tokens_read"]) == (5 + 2 + 5, 3 * 3)
    assert anchors.metrics["refiner/improved_ratio"] == pytest.approx(2 / 3)
    assert anchors.metrics["refiner/skipped_perfect"] == 1


@pytest.mark.parametrize(("budget", "tries", "count"), [(0.1, 8, 1), (1, 8, 1), (1.5, 8, 2), (4, 8, 4), (4, 3, 3)])
def test_budget_and_tries(budget, tries, count):
    """Every answer is as long as y."""
    answers = {(number, 0): "fai" for number in range(9)}
    _, asked = anchored(answers, Y[0], budget=budget, tries=tries)
    assert asked == [(number, 0) for number in range(count)]


def test_what_was_cut_off_or_is_not_better_does_not_teach():
    anchors, _ = anchored({(0, 0): "good…", (0, 1): "fair"}, *Y[:2])
    assert [r.accepted for r in anchors.refinements] == [False, False]
    assert anchors.metrics["refiner/truncated"] == 1
    assert [r.accepted for r in anchored({(0, 0): "good…"}, Y[0], accept_truncated=True)[0].refinements] == [True]
    assert anchored({(0, 0): "good"}, Y[0], context=5)[0].metrics["refiner/skipped_too_long"] == 1


@pytest.mark.parametrize(
    "options",
    [
        ["algorithm.name=dapo", "constraint.on_dropped=true", "algorithm.max_resamples=0"],
        ["algorithm.name=ppo", "refiner.where=all"],
        ["constraint.apply=reward", "refiner.where=unsolved"],
        ["lora.rank=2", "constraint.tries=1"],
    ],
    ids=["dapo", "ppo", "reward", "lora"],
)
def test_a_run_samples_what_the_reference_writes_with_these_seeds(toy: Toy, tmp_path, options):
    folder = toy.folder / "model"
    assert toy.run(tmp_path / "run", "constraint.name=fresh", "generation.temperature=1", "seed=3", *options) == 0
    tokenizer = ChatTokenizer.load(folder)
    reference = TransformersGenerator(AutoModelForCausalLM.from_pretrained(folder), tokenizer)
    for step, row in enumerate(metrics(tmp_path / "run"), 1):
        rows = [r for r in rollouts(tmp_path / "run", step) if r["refinement"]]
        assert rows
        spent = 0
        for y in rows:
            answers, mine, length = [], 0, len(y["completion"]["token_ids"])
            while not answers or ("constraint.tries=1" not in options and mine + length / 2 <= length):
                seed = sample_seed(3, step, f"fresh/{len(answers)}/{y['prompt']['id']}", y["sample"])
                x = tokenizer.encode_chat([{"role": "user", "content": y["prompt"]["text"]}])
                ((answer,),) = reference.generate([x], Sampling(6, 1.0, seeds=[[seed]]))
                answers.append(answer)
                mine += len(answer.token_ids)
            spent += mine
            values = [answer.text.count("a") / 6 for answer in answers]
            refined = y["refinement"]
            assert refined["reward"]["value"] == max(values)
            assert refined["completion"]["token_ids"] in [
                list(a.token_ids) for a, value in zip(answers, values, strict=True) if value == max(values)
            ]
            assert refined["accepted"] == (max(values) > y["reward"]["value"])
        assert row["refiner/tokens"] == spent
    assert any(row["constraint/ce"] for row in metrics(tmp_path / "run"))


class OfTwo(WorldOfOne):
    """The first of two ranks; the second one has three rounds to write."""

    size = 2

    def __init__(self):
        self.rounds = 0

    def all_gather_object(self, value):
        if not isinstance(value, bool):
            return [value]
        self.rounds += 1
        return [value, self.rounds <= 3]


def test_a_rank_that_has_written_enough_asks_the_engine_as_often_as_the_others():
    writer, calls = Writer(lambda *_: "odd"), []
    write = writer.generate
    writer.generate = lambda prompts, sampling, **_: calls.append(len(prompts)) or write(prompts, sampling)
    constraint = Fresh()
    constraint.connect(refiner(writer, world=OfTwo()))
    constraint.anchor([RolloutGroup(prompt("x"), Y[:1])], step=1)
    assert calls == [1, 0, 0]
