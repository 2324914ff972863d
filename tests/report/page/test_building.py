"""The page's one file: what is in it, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from made_runs import read, write_run
from refinerl.report import command as report
from refinerl.report.page import render, write_page
from refinerl.report.page.building import SCRIPTS, STYLES

pytest.importorskip("jinja2")


class Reader(HTMLParser):
    """A parser that collects the texts of elements by their id or tag, and the addresses in the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: dict[str, list[str]] = {}
        self.links: list[str] = []
        self.policy = ""
        self._name = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.links += [values[name] or "" for name in ("src", "href", "srcset", "action") if name in values]
        self._name = values.get("id") or values.get("class") or tag
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policy = values["content"] or ""

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self._name, []).append(data)

    def json(self, name: str) -> Any:
        return json.loads("".join(self.texts[name]))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("building") / "run", steps=4)


def test_the_command_writes_the_page_of_a_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([str(run)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    found = Reader((run / "report.html").read_text(encoding="utf-8"))
    assert found.links == []  # nothing from elsewhere
    assert re.fullmatch(
        "default-src 'none'; script-src( 'sha256-[^']+'){7}; style-src 'unsafe-inline'; img-src data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'",
        found.policy,
    )
    (shown,) = found.json("data")["runs"]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert shown["steps"] == [1, 2, 3, 4]
    for name, values in shown["metrics"].items():
        assert values == [row.get(name) for row in rows], name
    assert shown["tokens"] == pytest.approx([2010, 4030, 6060, 8100])
    rollouts = found.json("rollouts-0")
    assert len(rollouts["rows"]) == shown["rollouts"] == 32
    assert {rollouts["prompts"][row["prompt"]] for row in rollouts["rows"]} == {
        row["prompt"]["text"] for step in (1, 2, 3, 4) for row in read(run, step)
    }


def test_several_runs_are_one_page(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    other = write_run(tmp_path / "elsewhere" / "run", steps=2, seed=1)
    again = write_run(tmp_path / "again" / "run", steps=2, seed=1)
    third = write_run(tmp_path / "third", steps=2, seed=1)
    assert report.main([str(folder) for folder in (run, other, again, third)]) == 0
    assert capsys.readouterr().out.strip() == "report.html"
    runs = Reader((tmp_path / "report.html").read_text(encoding="utf-8")).json("data")["runs"]
    assert [one["name"] for one in runs] == ["run", "run", "run", "third"]
    assert [one["label"] for one in runs] == ["run · seed 0", f"run · {other}", f"run · {again}", "third"]


def test_step_0_is_in_the_curves_of_evaluations_only(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    rows = [{"schema": 1, "step": 0, "evaluate/pass@1": 0.2}]
    rows += [{"schema": 1, "step": step, "reward/mean": 1.0, "time/step": 2.0} for step in (1, 2)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (shown,) = Reader(render([folder])).json("data")["runs"]
    assert shown["metrics"]["evaluate/pass@1"] == [0.2, None, None]
    assert shown["seconds"] == [0.0, 2.0, 4.0]


def test_each_reward_of_a_sum_has_a_curve(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    rows = [{"schema": 1, "step": 1, "reward/mean": 1.0, "reward/unscored": 0.0, "reward/brevity": 0.5}]
    rows += [{"schema": 1, "step": 2, "reward/mean": 1.0, "reward/brevity": 0.7, "evaluate/reward/brevity": 0.6}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sections = {part["title"]: part["curves"] for part in Reader(render([folder])).json("data")["sections"]}
    titles = [curve["title"] for curve in sections["Reward"]]
    assert titles == ["Mean reward", "Held-out mean of the reward brevity", "Mean of the reward brevity"]
    assert [curve["name"] for curve in sections["Other metrics"]] == ["reward/unscored"]


def test_more_scripts_may_run(run: Path) -> None:
    plain, more = Reader(render([run])), Reader(render([run], ["poll()"]))
    assert more.policy.count("sha256-") == plain.policy.count("sha256-") + 1
    assert more.texts["script"][-2].strip() == "poll()"


def test_many_steps_are_thinned_out(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    lines = [{"schema": 1, "step": n, "reward/mean": n / 7, "tokens/step": 1.0} for n in range(1, 9001)]
    lines[4999]["evaluate/reward"] = 0.5
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = Reader(render([folder]))
    (shown,) = found.json("data")["runs"]
    assert 4000 <= len(shown["steps"]) <= 4001
    assert {1, 5000, 9000} <= set(shown["steps"])
    assert shown["tokens"] == [float(step) for step in shown["steps"]]
    assert shown["metrics"]["reward/mean"] == [step / 7 for step in shown["steps"]]
    assert "The curves show about 4,000 of 9,000 steps. metrics.jsonl has them all." in "".join(found.texts["bdi"])


def test_all_files_of_the_page_are_in_it() -> None:
    folder = resources.files("refinerl.report.page")
    names = [f.name for f in folder.iterdir() if f.name.endswith((".js", ".css"))]
    names += [f"uplot/{f.name}" for f in folder.joinpath("uplot").iterdir() if f.name.endswith((".js", ".css"))]
    assert sorted(names) == sorted([*STYLES, *SCRIPTS])
    assert all("</script" not in folder.joinpath(name).read_text() for name in SCRIPTS)
    assert "Copyright (c) 2022 Leon Sorokin" in folder.joinpath("uplot/LICENSE").read_text()
    for name in SCRIPTS[1:]:
        assert folder.joinpath(name).read_text().startswith('"use strict";\n')


def test_what_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    newer, broken, latin = (tmp_path / name for name in ("newer", "broken", "latin"))
    for folder in (newer, broken, latin):
        shutil.copytree(run, folder)
    lines = read(run, 2)
    (newer / "rollouts" / "step-2.jsonl").write_text(json.dumps({**lines[0], "schema": 99}) + "\n")
    (broken / "metrics.jsonl").write_text('{"schema": 1\n{"schema": 1, "step": 1}\n')
    (latin / "config.yaml").write_bytes(b"model: \xe9\n")
    folder = tmp_path / "unreadable"
    shutil.copytree(run, folder)
    (folder / "metrics.jsonl").unlink()
    (folder / "metrics.jsonl").mkdir()
    odd = tmp_path / "odd"
    shutil.copytree(run, odd)
    (odd / "metrics.jsonl").write_text('{"schema": 1, "step": "one"}\n')
    texts = tmp_path / "texts"
    shutil.copytree(run, texts)
    (texts / "rollouts" / "step-1.jsonl").write_text(
        json.dumps(lines[0] | {"reward": {**lines[0]["reward"], "value": "1"}})
    )
    worded = tmp_path / "worded"
    shutil.copytree(run, worded)
    (worded / "metrics.jsonl").write_text('{"schema": 1, "step": 1, "reward/mean": "high"}\n')
    nothing = tmp_path / "nothing"
    for options, message in (
        ([str(tmp_path)], f"{tmp_path} is not the folder of a run: it lacks config.yaml"),
        ([str(run), str(nothing)], f"{nothing} is not the folder of a run"),
        ([str(run), "--output", str(tmp_path / "no" / "page.html")], "cannot write"),
        ([str(newer)], "step-2.jsonl:1 has schema 99, this version of refinerl reads 1 and 2: another one wrote it"),
        ([str(broken)], "metrics.jsonl:1: not JSON"),
        ([str(latin)], f"cannot read {latin / 'config.yaml'}: it is not UTF-8 text"),
        ([str(folder)], f"cannot read {folder / 'metrics.jsonl'}: Is a directory"),
        ([str(texts)], "step-1.jsonl:1 is not a rollout: a field has the wrong type"),
        ([str(worded)], "metrics.jsonl:1 is not a step of a run: its field 'reward/mean' must be a number or null"),
        ([str(odd)], "metrics.jsonl:1 is not a step of a run: its field 'step' must be a whole number"),
    ):
        assert report.main(options) == 2, options
        assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("page.html"))


@pytest.mark.parametrize("text", ["", "model: {", "model: a\n", "model: a\nconstraint: b\n"])
def test_a_damaged_configuration(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    for name in ("rollouts", "metrics.jsonl"):
        (tmp_path / name).symlink_to(run / name)
    (tmp_path / "config.yaml").write_text(text)
    assert report.main([str(tmp_path)]) == 2
    assert "config.yaml is not the configuration of a run" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_knobs_of_other_types_are_not_read(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    shutil.copytree(run, folder)
    config = (folder / "config.yaml").read_text().replace("{steps: 4}", "[4]").replace("{run_name: null}", "7")
    (folder / "config.yaml").write_text(config.replace("seed: 0", "seed: zero"))
    (shown,) = Reader(render([folder])).json("data")["runs"]
    assert shown["label"] == "odd"


def test_without_jinja(run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    assert report.main([str(run), "--output", str(tmp_path / "page.html")]) == 2
    assert "pip install 'jinja2>=3' 'matplotlib>=3.8'" in capsys.readouterr().err


def test_a_text_with_a_lone_surrogate_can_be_sent_and_written(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=1)
    lines = read(run, 1)
    lines[0]["completion"]["text"] = "\udc80"
    lines[0]["prompt"]["id"] = "\ud800"
    (run / "rollouts" / "step-1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = render([run])
    text.encode()
    rows = Reader(write_page(run).read_text(encoding="utf-8")).json("rollouts-0")["rows"]
    assert any(row["id"] == "\ud800" and row["text"] == "\udc80" for row in rows)
