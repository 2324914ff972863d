"""Figure 6 of runs: which refinement it shows, with the numbers of the run's folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from made_runs import read, write_run
from refinerl.report import command
from refinerl.report.figures import example


def test_the_tokens_of_the_best_refinement(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=3, measured=2)
    rows = [row for step in (1, 2, 3) for row in read(run, step)]
    measured = [row for row in rows if "logprobs" in (row["refinement"] or {"completion": {}})["completion"]]
    assert len(measured) == 6
    gains = [row["refinement"]["reward"]["value"] - row["reward"]["value"] for row in measured]
    shown = example.best(run)
    assert shown is not None
    title = "run, step {step}, prompt {prompt[id]}, sample {sample}"
    (row,) = [row for row in measured if shown.title == title.format_map(row)]
    refined = row["refinement"]["completion"]
    assert [token.text for token in shown.refined] == refined["pieces"]
    assert [token.ce for token in shown.refined] == [-value for value in refined["logprobs"]]
    assert "".join(token.text for token in shown.response) == row["completion"]["text"]
    kept = [[token.text for token in side if token.kept] for side in (shown.response, shown.refined)]
    assert kept[0] == kept[1]
    assert not all(token.kept for token in shown.refined)
    assert shown.question == row["prompt"]["text"]
    value = max(gains) + row["reward"]["value"]
    assert shown.verdicts == (
        f"reward {row['reward']['value']:+.2f} ({row['reward']['outcome']})",
        f"reward {value:+.2f} (passed)",
    )


def test_figure_6_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", steps=2)
    assert command.main([str(run), "--figures", str(tmp_path / "figures")]) == 0
    assert (tmp_path / "figures" / "figure-6.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "<!-- run, step " in (tmp_path / "figures" / "figure-6.svg").read_text()
    assert "figure-6" not in "".join(line for line in capsys.readouterr().out.splitlines() if "left out" in line)


def test_a_run_without_logprobs(tmp_path: Path) -> None:
    assert example.best(write_run(tmp_path / "run", steps=1, measured=0)) is None
    (tmp_path / "empty").mkdir()
    assert example.best(tmp_path / "empty") is None


def test_a_logprob_that_is_not_known_is_no_cost(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=1, measured=1)
    lines = read(run, 1)
    for row in lines:
        completion = (row["refinement"] or {"completion": {}})["completion"]
        if "logprobs" in completion:
            completion["logprobs"][0] = None
    (run / "rollouts" / "step-1.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    shown = example.best(run)
    assert shown is not None
    assert shown.refined[0].ce == 0.0
