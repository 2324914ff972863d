"""The paper's figures from folders of runs and studies: files, curves, bands, and what is left out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from refinerl.report import command
from refinerl.report.figures import drawing, plots
from refinerl.report.figures.folders import Found
from refinerl.report.figures.series import Drawn, Series
from written import everything, write_run, write_study

CURVES = ("held-out", "figure-4", "figure-5", "figure-7")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study of two arms on two seeds, one of which is tuned."""
    output = tmp_path / "study"
    for seed in (0, 1):
        rows = everything(height=1 + seed)
        write_run(output / "none" / f"seed-{seed}", "constraint.name=none", f"seed={seed}", rows=rows)
        write_run(output / "dynamic" / f"seed-{seed}", f"seed={seed}", rows=rows)
    for beta in ("0.03", "1.0"):
        place = output / "tuning" / "dynamic" / beta / "seed-100"
        write_run(place, f"constraint.beta={beta}", rows=everything(4))
        place.with_name("seed-100.log").touch()
    write_study(output, ("none", "dynamic"), grids={"dynamic": {"constraint.beta": [0.03, 1.0]}})
    return output


def report(*words: object) -> int:
    return command.main([str(word) for word in words])


def names(svg: Path) -> str:
    """The text of a drawing: matplotlib notes it in comments, because it draws text as shapes."""
    text = svg.read_text(encoding="utf-8")
    ElementTree.fromstring(text)
    return text


def test_the_figures_of_a_study(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "new" / "figures"
    assert report(study, "--figures", folder) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[:-1] == [str(folder / f"{name}.{suffix}") for name in CURVES for suffix in ("svg", "png")]
    assert out[-1] == (
        "figure-6 is left out: no accepted refinement has the logprobs of its tokens (telemetry.token_costs)"
    )
    assert {path.name for path in folder.iterdir()} == {
        f"{name}.{suffix}" for name in CURVES for suffix in ("svg", "png")
    }
    assert all(path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" for path in folder.glob("*.png"))
    for name in ("held-out", "figure-4", "figure-5"):
        drawn = names(folder / f"{name}.svg")
        assert "<!-- none (2 seeds) -->" in drawn
        assert "<!-- dynamic (2 seeds) -->" in drawn
    betas = names(folder / "figure-7.svg")
    assert "<!-- dynamic: β = 0.03 -->" in betas
    assert "<!-- dynamic: β = 1 -->" in betas
    assert "<!-- none" not in betas


@pytest.mark.parametrize(("arms", "legends"), [(drawing.NAMES, 2), (drawing.NAMES + 1, 1)])
def test_many_curves_are_named_once_beside_the_panels(
    arms: int, legends: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five names in each of two panels would hide the curves; four do not."""
    rows = everything(4)
    found = Found(tuple(Series(f"arm {i}", (Drawn(Path(str(i)), rows),)) for i in range(arms)))
    drawn: list[int] = []

    def save(figure: Any, place: Path) -> str:
        inside = [axis.get_legend() for axis in figure.axes]
        beside = figure.legends
        shown = [legend for legend in (*inside, *beside) if legend is not None]
        drawn.append(len(shown) if place.name == "figure-5" else 0)
        for legend in shown:
            assert [text.get_text() for text in legend.get_texts()] == [f"arm {i}" for i in range(arms)]
        return ""

    monkeypatch.setattr(plots, "save", save)
    drawing.draw(found, tmp_path)
    assert max(drawn) == legends


def test_a_panel_has_the_values_of_the_runs() -> None:
    """The mean over seeds of the running mean, with the range as the band, at the steps in common."""
    runs = tuple(Drawn(Path(str(seed)), everything(10, 1 + seed)[: 10 - seed]) for seed in (0, 1))
    bands = drawing.bands_of([Series("a", runs)], ("reward/mean",))
    with plots.canvas() as (_, ((axis,),)):
        plots.panel(axis, "reward", bands, ["b", "a"])
        (line,) = axis.get_lines()
        assert [list(values) for values in line.get_data()] == [
            list(range(1, 9)),
            pytest.approx([0.15, 0.225, 0.3, 0.375, 0.45, 0.525, 0.6, 0.75]),  # 1.5 · mean of the last 7 of step/10
        ]
        (area,) = axis.collections
        last = area.get_paths()[0].vertices
        assert max(y for x, y in last if x == 8) == pytest.approx(1.0)  # of the second run: 2 · 0.5
        assert min(y for x, y in last if x == 8) == pytest.approx(0.5)
        assert line.get_color() == "C1"  # the second name has the second colour
        assert axis.get_ylabel() == "reward"


def test_a_run_lacks_the_numbers_of_a_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"step": step, "reward/mean": 0.1 * step, "refiner/improved_ratio": None} for step in (1, 2, 3)]
    run = write_run(
        tmp_path / "run", "constraint.name=none", rows=[{k: v for k, v in row.items() if v is not None} for row in rows]
    )
    assert report(run, "--figures", tmp_path / "figures") == 0
    assert capsys.readouterr().out.splitlines() == [
        str(tmp_path / "figures" / "figure-4.svg"),
        str(tmp_path / "figures" / "figure-4.png"),
        "held-out is left out: no run has a value of evaluate/pass@1 or evaluate/reward",
        "figure-4 is drawn without KL to the reference: no run has a value of policy/kl_to_reference",
        "figure-4 is drawn without CE on accepted ỹ: no run has a value of refiner/ce or constraint/ce",
        "figure-5 is left out: no run has a value of refiner/improved_ratio",
        "figure-7 is left out: no run has a value of reward/group_std",
        "figure-6 is left out: no run has a refiner (constraint.name=dynamic, or refiner.probe=true)",
    ]


def test_two_runs_are_two_curves(study: Path, tmp_path: Path) -> None:
    """Figure 7 names the β of the run with the dynamic constraint, and leaves out the other one."""
    folder = tmp_path / "figures"
    assert report(study / "none" / "seed-0", study / "dynamic" / "seed-0", "--figures", folder) == 0
    assert "<!-- none -->" in names(folder / "figure-4.svg")
    assert "<!-- dynamic -->" in names(folder / "figure-4.svg")
    assert "<!-- dynamic, β = 0.1 -->" in names(folder / "figure-7.svg")
    assert "<!-- none" not in names(folder / "figure-7.svg")


def test_names_are_drawn_as_they_are(tmp_path: Path) -> None:
    """A dollar is no formula, an underscore hides no entry of a legend, what would be obeyed is escaped."""
    arms = ("$x_{$", "_hidden", "a\nb\u202ec", "<b>&")
    series = tuple(Series(arm, (Drawn(tmp_path, everything(3)),)) for arm in arms)
    written = drawing.draw(Found(series), tmp_path / "figures")
    texts = {element.text for element in comments(written.drawings["Held-out success"])}
    assert texts >= {" $x_{$ ", "  _hidden ", " a\\nb\\u202ec ", " &lt;b&gt;&amp; "}


def comments(svg: str) -> list[ElementTree.Element]:
    """The comments of a drawing, which are its texts."""
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    return [e for e in ElementTree.fromstring(svg, parser).iter() if e.tag is ElementTree.Comment]


def test_the_same_numbers_give_the_same_file(tmp_path: Path) -> None:
    series = (Series("a", (Drawn(tmp_path, [{"step": 0, "evaluate/pass@1": 0.5}]),)),)
    first, second = (drawing.draw(Found(series), tmp_path / name).drawings for name in ("a", "b"))
    assert list(first) == ["Held-out success"]
    assert first == second


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert report(*words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_what_cannot_be_drawn(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = ("--figures", tmp_path / "figures")
    assert "is the folder of neither a run (config.yaml) nor a study (study.yaml)" in refused(
        capsys, tmp_path, *figures
    )
    empty = write_run(tmp_path / "empty")
    assert "no figure was written" in refused(capsys, empty, *figures)
    (empty / "config.yaml").write_text("[")
    assert f"{empty}/config.yaml is not the configuration of a run" in refused(capsys, empty, *figures)
    (study / "none" / "seed-0" / "metrics.jsonl").write_text('{"schema": 9, "step": 1}\n')
    assert "none/seed-0/metrics.jsonl:1 has schema 9" in refused(capsys, study, *figures)
    (study / "study.yaml").write_text("arms: {}\n")
    assert "is not the record of a study" in refused(capsys, study, *figures)
    run = study / "dynamic" / "seed-0"
    (tmp_path / "file").touch()
    assert f"cannot write to {tmp_path / 'file'}" in refused(capsys, run, "--figures", tmp_path / "file")
    assert "--output is for the page" in refused(capsys, run, *figures, "--output", "x.html")
    assert "--watch and --port are for the page" in refused(capsys, run, *figures, "--watch")
    assert "--watch and --port are for the page" in refused(capsys, run, *figures, "--port", "0")
    assert not (tmp_path / "figures").exists()


def test_without_matplotlib(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert refused(capsys, study, "--figures", tmp_path / "figures") == (
        "error: figures need matplotlib of the extra `report`, which is not installed: "
        "pip install 'jinja2>=3' 'matplotlib>=3.8', then run the same command again"
    )


def test_a_run_that_goes_on(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line that is being written is left out and said; a damaged line before it is not."""
    run = study / "none" / "seed-0"
    whole = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(whole + '{"schema": 1, "ste')
    assert report(run, "--figures", tmp_path / "figures") == 0
    assert f"{run}: The last line of metrics.jsonl is cut off and left out." in capsys.readouterr().out
    (run / "metrics.jsonl").write_text(f'{{"schema": 1, "ste\n{whole}')
    assert "metrics.jsonl:1: not JSON" in refused(capsys, run, "--figures", tmp_path / "figures")
