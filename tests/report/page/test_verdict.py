"""A run in words."""

from __future__ import annotations

import pytest

from refinerl.report.page.verdict import verdict


def rows(first: float, last: float, noise: float = 0.02) -> list[dict]:
    means = [first] * 10 + [last] * 10
    return [
        {
            "step": n,
            "reward/mean": mean + (noise if n % 2 else -noise),
            "policy/kl_to_reference": 0.01 * n,
            "refiner/tokens": 100.0,
            "time/step": 4.0,
            "time/update": 3.0,
            "time/generate": 0.5,
        }
        for n, mean in enumerate(means, start=1)
    ]


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [
        (-0.5, 0.25, "The mean reward rose from −0.500 ± 0.012 in steps 1–4 to 0.250 ± 0.012 in steps 17–20."),
        (0.25, -0.5, "The mean reward fell from "),
        (0.25, 0.26, "The mean reward shows no change that stands out from its noise: from "),
    ],
)
def test_the_headline(first: float, last: float, said: str) -> None:
    headline = verdict(rows(first, last)).headline
    assert headline.startswith(said)
    assert ("steps 1–4" in headline) == ("steps 17–20" in headline) is True


def test_the_sentences() -> None:
    told = verdict(rows(0, 1), improved=50).sentences
    assert "The refiner wrote 2,000 tokens and improved 50 responses, 40 tokens for each." in told
    assert "A step takes 4 s: 75% update, 12% generate." in told
    assert any(text.startswith("The KL to the reference went from 0.0250 ± 0.0065") for text in told)
    evaluated = rows(0, 1)
    evaluated[9]["time/evaluate"] = 20.0  # of one step of twenty
    assert "A step takes 4 s: 75% update, 25% evaluate, 12% generate." in verdict(evaluated).sentences
    assert "The refiner wrote 2,000 tokens and improved no response." in verdict(rows(0, 1)).sentences
    probe = verdict(rows(0, 1), improved=1, probed=True).sentences
    assert any("1 response, 2,000 tokens for each. It was a probe: none of this taught" in text for text in probe)


def test_a_run_with_little_to_tell() -> None:
    assert verdict([]).headline == "No step is finished yet."
    assert verdict([{"step": 0, "evaluate/reward": 1.0}]).headline == "No step is finished yet."
    few = verdict([{"step": 1, "reward/mean": 0.5}])
    assert few.headline == "Too few steps to tell a change: 1, and it takes two windows of 3. The mean reward is 0.5."
    assert few.sentences == ()
    blind = verdict([{"step": n, "reward/mean": None} for n in range(1, 9)])
    assert blind.headline == "The rewards of the first or of the last steps are missing."
