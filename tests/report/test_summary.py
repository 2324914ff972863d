"""The summary of a finished run, from files as a run writes them."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from refinerl.report import summary
from refinerl.report.windows import Mean


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


def line(page: str, start: str) -> str:
    return next(line for line in page.splitlines() if line.startswith(start))


def test_the_table_compares_windows_and_not_single_steps(tmp_path):
    """Of 20 steps the first and the last four; single steps would say that the reward fell."""
    rewards = [0.9, 0.1, 0.1, 0.1, *[0.0] * 12, 0.6, 0.8, 0.8, 0.2]
    metrics = [{"reward/mean": value, "policy/entropy": None, "time/step": 2.0} for value in rewards]
    metrics[-1]["policy/entropy"] = 1.5
    page = shown(written(tmp_path, [row("ab", -0.3, "abc", 0.8, accepted=True)], metrics))
    assert line(page, "metric").split()[1:] == ["steps", "1–4", "steps", "17–20", "name"]
    assert line(page, "mean reward").split()[2:] == ["0.30", "±", "0.20", "0.60", "±", "0.14", "reward/mean"]
    assert line(page, "entropy").split()[1:] == ["–", "1.5", "policy/entropy"]
    assert line(page, "seconds per step").split()[3:] == ["2", "±", "0", "2", "±", "0", "time/step"]
    assert "Too few steps" not in page
    assert "y → ỹ  [-deleted-]  {+inserted+}" in page
    assert "reward -0.30 (wrong_answer) → +0.50 (wrong_answer), accepted" in page
    assert all(place in page for place in ("metrics.jsonl", "rollouts/", "config.yaml", "checkpoint-N/", "final/"))


@pytest.mark.parametrize(("steps", "labels"), [(5, ["steps 1–5"]), (6, ["steps 1–3", "steps 4–6"]), (1, ["step 1"])])
def test_too_few_steps_are_not_compared(tmp_path, steps, labels):
    metrics = [{"reward/mean": float(step)} for step in range(steps)]
    page = shown(written(tmp_path, [row("a", 0, None)], metrics))
    assert [label for label in labels if label in line(page, "metric")] == labels
    assert line(page, "metric").count("step") == len(labels)
    assert (f"Too few steps to tell a change: {steps}, and it takes two windows of 3." in page) == (len(labels) == 1)


def test_step_0_is_no_step_of_the_table(tmp_path):
    metrics = [{"step": 0, "evaluate/pass@1": 0.25, "time/evaluate": 9.0}, {"reward/mean": 1.0, "time/step": 1.0}]
    page = shown(written(tmp_path, [row("a", 0, None)], [{"step": n, **m} for n, m in enumerate(metrics)]))
    assert line(page, "metric").split()[1:] == ["step", "1", "name"]
    assert line(page, "seconds per step").split()[3:] == ["1", "time/step"]


@pytest.mark.parametrize(
    ("scores", "sentence"),
    [
        ({0: 0.28, 2: 0.86, 4: 0.93, 6: 0.93, 8: 0.9},
         "28.0% before training → 93.0% at best, after step 4 → 90.0% after step 8"),
        ({0: 0.28, 2: 0.5, 4: 0.75}, "28.0% before training → 75.0% after step 4"),
        ({0: 0.9, 2: 0.5, 4: 0.4}, "90.0% before training → 50.0% at best, after step 2 → 40.0% after step 4"),
        ({2: 0.5, 4: 0.75}, "50.0% after step 2 → 75.0% after step 4"),  # a run of an earlier version
        ({0: 0.5}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_the_held_out_curve_is_told(tmp_path, scores, sentence):
    metrics = [{"step": step, "reward/mean": 0.5} for step in range(9)]
    for step, score in scores.items():
        metrics[step] |= {"evaluate/pass@1": score, "evaluate/reward": None}
    page = shown(written(tmp_path, [row("a", 0, None)], metrics))
    if sentence is None:
        assert "Held-out" not in page
    else:
        assert f"Held-out success (evaluate/pass@1): {sentence}\n" in page
    assert "Held-out mean reward" not in page


def test_held_out_results_have_their_intervals(tmp_path):
    metrics = [
        {"step": 0, "evaluate/reward": 0.5, "evaluate/reward_low": None, "evaluate/reward_high": None},
        {"step": 1, "reward/mean": 0.5, "evaluate/reward": 1.5, "evaluate/reward_low": 1, "evaluate/reward_high": 2},
    ]
    page = shown(written(tmp_path, [row("a", 1, None)], metrics))
    assert "(evaluate/reward): 0.5 before training → 1.5 (1 to 2) after step 1\n" in page


def test_the_next_commands_are_named(tmp_path):
    folder = written(tmp_path / "a run", [row("a", 0, None)], [{"reward/mean": 1.0}])
    (folder / "config.yaml").write_text("task: {name: code}\ntrainer: {steps: 6}\n")
    page = shown(folder)
    assert f"  python -m refinerl.report '{folder}'   #" in page
    assert f"  python -m refinerl.evaluate '{folder}'/final --benchmark humaneval+   #" in page
    assert f"  python -m refinerl.train --output-dir '{folder}' --resume trainer.steps=12   #" in page
    (folder / "config.yaml").write_text("task: {name: dialogue}\n")
    assert "refinerl.evaluate" not in shown(folder)


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x1c"])
def test_a_text_with_other_line_separators(tmp_path, mark):
    """Python's splitlines splits at them, and JSON may hold them."""
    made = row(f"a{mark}b", -0.3, f"a{mark}c", 0.8, accepted=True)
    folder = written(tmp_path, [made], [{"reward/mean": 1.0}])
    (folder / "rollouts" / "step-1.jsonl").write_text(json.dumps(made, ensure_ascii=False) + "\n")
    assert "accepted: it teaches the policy" in shown(folder)


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


DROPPED = {"selected": False}


@pytest.mark.parametrize(
    ("rows", "metrics", "said"),
    [
        ([row("a", 1, None), row("b", 1, None)], {}, "every response that was kept had the same reward, 1."),
        ([row("a", -1, None) | DROPPED], {}, "in every group all responses had the same reward, so no group was kept."),
        ([row("a", 0, None) | {"reward": None}], {}, "no response had a reward."),
        ([row("a", 0, None)], {"refiner/skipped_by_choice": 8}, "8 responses were left out by refiner.where or"),
        ([row("a", 0, None)], {"refiner/failed": 2}, "2 responses got no reply from the refiner's server."),
        (
            [row("a", 0, None), row("b", 1, None)],
            {},
            "responses with the highest reward, without a reward, or too long",
        ),
    ],
)
def test_a_run_that_refined_nothing_says_why_there_is_no_example(tmp_path, rows, metrics, said):
    """It said that every response had the highest reward, whatever the rewards were."""
    page = shown(written(tmp_path, rows, [{"refiner/improved_ratio": None, **metrics}]))
    assert f"No refinement was made: {said}" in page


def test_refinements_without_a_reward_are_counted(tmp_path):
    made = row("a", 0, "b")
    made["refinement"]["reward"] = None
    page = shown(written(tmp_path, [made], [{"refiner/improved_ratio": None}]))
    assert "1 refinements were made, and none of them has a reward." in page


def test_the_name_of_a_folder_is_no_markup(tmp_path):
    folder = written(tmp_path / "run [bold]", [row("a", 0, None)], [{}])
    assert f"The run's files are in {folder}:" in shown(folder)


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


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (0.50712, 0.0971, "0.507 ± 0.097"),
        (-0.0336, 0.085, "-0.034 ± 0.085"),
        (1234.5, 61.2, "1234 ± 61"),
        (0.0, 0.0, "0 ± 0"),
        (2.0, 1.2e-9, "2 ± 1e-09"),
        (0.25, None, "0.25"),
    ],
)
def test_a_mean_has_the_digits_that_its_error_allows(value, error, shown):
    assert summary.form(Mean(value, error)) == shown


def test_text_of_a_model_cannot_command_the_terminal(tmp_path):
    folder = written(tmp_path / "run", [row("\x1b[31mred\n", -1.0, "\x1b]0;title\x07\n", 2.0, accepted=True)], [{}])
    text = shown(folder)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert r"\x1b" in text
    assert r"\x07" in text
