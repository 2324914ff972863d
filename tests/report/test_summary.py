"""The summary of a finished run, from files as a run writes them."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from refinerl.report import summary


def decode(ids):
    return "".join(chr(i) for i in ids)


def tokens(text: str) -> list[int]:
    return [ord(c) for c in text]


def row(y: str, reward: float, refined: str | None, gain: float = 0.0, *, accepted: bool = False) -> dict:
    def scored(value):
        return {"value": value, "outcome": "wrong_answer", "pass_rate": None}

    refinement = refined and {
        "completion": {"text": refined, "token_ids": tokens(refined), "finish_reason": "stop"},
        "reward": scored(reward + gain),
        "accepted": accepted,
        "prefix": 0,
        "distance": 1,
        "copy_ratio": 0.5,
    }
    return {
        "schema": 1,
        "step": 1,
        "sample": 0,
        "selected": True,
        "prompt": {"id": y, "text": "What is it?"},
        "completion": {"text": y, "token_ids": tokens(y), "finish_reason": "stop"},
        "reward": scored(reward),
        "refinement": refinement,
    }


def written(folder: Path, rows: list[dict], metrics: list[dict]) -> Path:
    (folder / "rollouts").mkdir(parents=True)
    (folder / "config.yaml").touch()
    (folder / "rollouts" / "step-1.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps({"schema": 1, "step": n, **m}) + "\n" for n, m in enumerate(metrics, 1))
    )
    return folder


def shown(folder: Path) -> str:
    out = io.StringIO()
    summary.show(folder, Console(file=out, width=160), decode)
    return out.getvalue()


def test_the_example_is_the_accepted_refinement_that_gained_most(tmp_path):
    folder = written(
        tmp_path,
        [row("a", 0, "A", 0.2, accepted=True), row("b", 0, "B", 0.6, accepted=True), row("c", 0, "C", 0.9)],
        [],
    )
    assert summary.best_example(folder).prompt.id == "b"


def test_a_diff_strikes_what_went_and_keeps_the_rest():
    text = summary.diff(tokens("print(x)"), tokens("print(xy)"), decode)
    assert text.plain == "print(xy)"
    assert [(text.plain[s.start : s.end], str(s.style)) for s in text.spans] == [("y", "green")]
    text = summary.diff(tokens("abc"), tokens("axc"), decode)
    assert [(text.plain[s.start : s.end], str(s.style)) for s in text.spans] == [("b", "red strike"), ("x", "green")]


def test_the_page_shows_first_and_last_values_and_every_place(tmp_path):
    metrics = [
        {"reward/mean": -0.25, "policy/entropy": None, "refiner/improved_ratio": 0.5},
        {"reward/mean": 0.75, "policy/entropy": 1.5, "refiner/improved_ratio": 0.25},
    ]
    page = shown(written(tmp_path, [row("ab", -0.3, "abc", 0.8, accepted=True)], metrics))
    reward = next(line for line in page.splitlines() if "mean reward" in line)
    assert reward.split()[2:4] == ["-0.25", "0.75"]
    entropy = next(line for line in page.splitlines() if line.startswith("entropy"))
    assert entropy.split()[1:3] == ["–", "1.5"]
    assert "y → ỹ  [-deleted-]  {+inserted+}" in page
    assert "reward -0.30 (wrong_answer) → +0.50 (wrong_answer), accepted" in page
    assert all(place in page for place in ("metrics.jsonl", "rollouts/", "config.yaml", "checkpoint-N/", "final/"))


@pytest.mark.parametrize(
    ("gain", "accepted", "said"),
    [
        (0.5, True, "accepted: it teaches the policy"),
        (0.5, False, "better, but not accepted, so it teaches nothing"),
        (0.0, False, "not better, so it teaches nothing"),
    ],
)
def test_what_became_of_a_refinement(tmp_path, gain, accepted, said):
    page = shown(written(tmp_path, [row("ab", -0.3, "abc", gain, accepted=accepted)], []))
    assert f"(wrong_answer), {said}" in page


def test_a_diff_without_colours_marks_what_went_and_came():
    assert summary.diff(tokens("abc"), tokens("axc"), decode, plain=True).plain == "a[-b-]{+x+}c"
    assert summary.diff(tokens("ab"), tokens("abc"), decode, plain=True).plain == "ab{+c+}"


def test_a_run_that_refined_nothing_says_why_there_is_no_example(tmp_path):
    page = shown(written(tmp_path, [row("a", 1, None)], [{"reward/mean": 1.0, "refiner/improved_ratio": None}]))
    assert "No refinement was made" in page


@pytest.mark.parametrize(
    ("gains", "sentence"),
    [
        ([0.5, 1.0, -0.5], "The refiner wrote 90 tokens and improved 2 responses: 45 tokens per improvement."),
        ([0.5], "The refiner wrote 90 tokens and improved 1 response: 90 tokens per improvement."),
        ([0.0], "The refiner wrote 90 tokens and improved no response."),
    ],
)
def test_the_price_of_an_improvement_is_told(tmp_path, gains, sentence):
    rows = [row(f"y{i}", 0.0, "z", gain) for i, gain in enumerate(gains)]
    metrics = [{"refiner/tokens": 60, "refiner/beyond_best_sibling": 0.25}, {"refiner/tokens": 30}, {}]
    text = shown(written(tmp_path, rows, metrics))
    assert sentence in text
    assert "refiner/beyond_best_sibling" in text


def test_a_run_without_a_refiner_has_no_price(tmp_path):
    assert "tokens per" not in shown(written(tmp_path, [row("y", 0.0, None)], [{"reward/mean": 0.5}]))
