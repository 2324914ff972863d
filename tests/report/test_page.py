"""The report of a real run, read back as HTML."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from refinerl.report import command as report
from refinerl.report import page
from toy import Toy, metrics, rollouts


class Reader(HTMLParser):
    """A parser that counts tags, collects the text of each class, and checks that every tag is closed."""

    VOID = frozenset({"meta", "polyline", "circle"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.texts: dict[str, list[str]] = {}
        self.links: list[str] = []
        self._open: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        values = dict(attrs)
        self.links += [values[name] or "" for name in ("src", "href") if name in values]
        if tag not in self.VOID or tag == "circle":
            self._open.append((tag, values.get("class") or ""))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts.setdefault(self._open[-1][1] or self._open[-1][0], []).append(data)


def read(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    assert reader._open == []
    return reader


@pytest.fixture(scope="module")
def run(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "run"
    assert toy.run(folder, "trainer.steps=3", "algorithm.dynamic_sampling=false") == 0
    return folder


@pytest.mark.slow
def test_the_page_of_a_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("jinja2")
    assert report.main([str(run)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    reader = read(run / "report.html")
    shown = [name for name in page.CURVES if any(row.get(name) is not None for row in metrics(run))]
    assert reader.tags["figure"] == reader.tags["svg"] == len(shown)
    assert reader.tags["circle"] == sum(row.get(name) is not None for name in shown for row in metrics(run))
    assert reader.links == []  # nothing from elsewhere
    assert reader.tags["details"] == 3 + 3 * page.SAMPLES + 1
    texts = "".join(reader.texts["prompt"])
    assert any(row["prompt"]["text"] in texts for row in rollouts(run, 1))
    assert "seed: 0" in "".join(reader.texts["pre"])
    assert any(
        text.startswith("DAPO on ") and "dynamic in the loss, β = 0.01. 3 steps." in text for text in reader.texts["p"]
    )


def test_what_models_write_is_text_and_not_html(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    folder = tmp_path / "run"
    (folder / "rollouts").mkdir(parents=True)
    for name in ("config.yaml", "metrics.jsonl"):
        (folder / name).write_text((run / name).read_text())
    row = rollouts(run, 1)[0]
    row["prompt"]["text"] = "<script>alert(1)</script>"
    row["completion"]["text"], row["refinement"] = "</pre><b>", None
    (folder / "rollouts" / "step-1.jsonl").write_text(json.dumps(row) + "\n")
    reader = read(page.write_page(folder, tmp_path / "page.html"))
    assert "script" not in reader.tags
    assert reader.texts["kept"] == ["</pre><b>"]


def test_curves_break_where_there_is_no_value() -> None:
    rows = [{"step": step, "a": value} for step, value in enumerate([1.0, 2.0, None, 3.0, None, 2.0, 1.0], start=1)]
    drawn = page.curve("a", "A", rows)
    assert (drawn.low, drawn.high, drawn.last) == ("1", "3", "1")
    assert drawn.lines == ("6.0,144.0 64.0,75.0", "296.0,75.0 354.0,144.0")
    assert [says for _, _, says in drawn.dots] == ["step 1: 1", "step 2: 2", "step 4: 3", "step 6: 2", "step 7: 1"]
    assert page.curve("a", "A", rows[:1]).dots == ((180.0, 75.0, "step 1: 1"),)


def test_intervals_are_bars_of_the_curve() -> None:
    rows = [{"step": 0, "a": 0.5}, {"step": 2, "a": 0.5, "a_low": 0.25, "a_high": 0.75}]
    drawn = page.curve("a", "A", rows)
    assert (drawn.low, drawn.high) == ("0.25", "0.75")
    assert drawn.bars == ((354.0, 144.0, 6.0),)
    assert [says for _, _, says in drawn.dots] == ["step 0: 0.5", "step 2: 0.5 (95 % interval 0.25 to 0.75)"]


def test_each_reward_of_a_sum_has_a_curve(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    folder = tmp_path / "run"
    shutil.copytree(run / "rollouts", folder / "rollouts")
    shutil.copy(run / "config.yaml", folder)
    rows = [{"schema": 1, "step": 1, "reward/mean": 1.0, "reward/unscored": 0.0, "reward/brevity": 0.5}]
    rows += [{"schema": 1, "step": 2, "reward/mean": 1.0, "reward/brevity": 0.7, "evaluate/reward/brevity": 0.6}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = " ".join(read(page.write_page(folder, tmp_path / "page.html")).texts["span"])
    assert "mean of the reward brevity" in texts
    assert "held-out mean of the reward brevity" in texts
    assert "unscored" not in texts


def test_step_0_is_in_the_curves_of_evaluations_only(run: Path, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("jinja2")
    folder = tmp_path / "run"
    (folder / "rollouts").mkdir(parents=True)
    (folder / "config.yaml").write_text((run / "config.yaml").read_text())
    (folder / "rollouts" / "step-1.jsonl").write_text((run / "rollouts" / "step-1.jsonl").read_text())
    rows = [{"schema": 1, "step": 0, "evaluate/pass@1": 0.2}]
    rows += [{"schema": 1, "step": step, "reward/mean": 1.0} for step in range(1, 5)]
    rows[2]["evaluate/pass@1"], rows[4]["evaluate/pass@1"] = 0.7, 0.6
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    drawn = {}
    monkeypatch.setattr(page, "curve", lambda name, *rest: drawn.setdefault(name, CURVE(name, *rest)))
    reader = read(page.write_page(folder, tmp_path / "page.html"))
    assert "4 steps." in "".join(reader.texts["p"])
    evaluation = drawn["evaluate/pass@1"]
    assert [says for _, _, says in evaluation.dots] == ["step 0: 0.2", "step 2: 0.7", "step 4: 0.6"]
    assert len(evaluation.lines) == 1  # not broken where no evaluation was due
    assert drawn["reward/mean"].dots[0] == (6.0, 75.0, "step 1: 1")


CURVE = page.curve


def test_diff() -> None:
    pieces = page.diff("The cat sat.", "The dog sat!")
    assert [(p.kind, p.text) for p in pieces] == [
        ("kept", "The "),
        ("deleted", "cat"),
        ("inserted", "dog"),
        ("kept", " sat"),
        ("deleted", "."),
        ("inserted", "!"),
    ]


def test_what_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, message in (
        ([str(tmp_path)], "is not the folder of a run"),
        ([str(run), "--output", str(tmp_path / "no" / "page.html")], "cannot write"),
    ):
        assert report.main(options) == 2
        assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "model: {", "model: a\n", "model: a\nconstraint: b\n"])
def test_a_damaged_configuration(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    pytest.importorskip("jinja2")
    for name in ("rollouts", "metrics.jsonl"):
        (tmp_path / name).symlink_to(run / name)
    (tmp_path / "config.yaml").write_text(text)
    assert report.main([str(tmp_path)]) == 2
    assert "config.yaml is not the configuration of a run" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_without_jinja(run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    assert report.main([str(run), "--output", str(tmp_path / "page.html")]) == 2
    assert "pip install 'jinja2>=3'" in capsys.readouterr().err


def test_the_subject_names_what_held_the_run():
    both = "[{name: dynamic, apply: loss, beta: 0.01}, {name: 'my:Own', apply: reward, beta: 1}]"
    config = f"model: m\nalgorithm: {{name: 'my:GRPO'}}\nconstraint: {{name: none}}\nconstraints: {both}\n"
    expected = "GRPO on m, constraint dynamic in the loss, β = 0.01 and my:Own in the reward, β = 1"
    assert page.subject(Path("config.yaml"), config) == expected
    assert page.subject(Path("config.yaml"), "model: m\nalgorithm: {name: ppo}\nconstraint: {name: none}\n") == (
        "PPO on m, constraint none"
    )
