"""The Python code of the examples and the README runs as it stands, with a tiny model in the model's place."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

import refinerl

ROOT = Path(__file__).parents[1]
TOY = {
    "trainer.steps": 1,
    "trainer.batch": 8,
    "algorithm.samples_per_prompt": 4,
    "generation.max_tokens": 24,
    "refiner.temperature": 1.0,
}


@pytest.fixture
def small(tiny_folder: Path, monkeypatch, tmp_path):
    """Replace `fine_tune` by one on the tiny model, with few steps of few tokens."""
    real = refinerl.fine_tune

    def fine_tune(**given):
        assert not given["model"].startswith("/")
        return real(**{**given, "model": str(tiny_folder), **TOY})

    monkeypatch.setattr(refinerl, "fine_tune", fine_tune)
    monkeypatch.chdir(tmp_path)


def executed(code: str, name: str, **names) -> tuple[dict, str]:
    """Run code; return the names that it defines, and its output."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, name, "exec"), names)
    return names, out.getvalue()


@pytest.mark.usefixtures("small")
def test_the_quickstart_runs_as_a_script():
    path = ROOT / "examples" / "quickstart.py"
    code = path.read_text()
    assert len(code.splitlines()) < 100
    names, printed = executed(code, str(path), __name__="__main__")
    run = names["run"]
    assert [row["step"] for row in run.metrics] == [1]
    assert (run.folder / "report.html").is_file()
    assert "What is" in printed
    assert re.search(r"^1 ", printed, re.MULTILINE)


@pytest.mark.usefixtures("small")
def test_the_readmes_code_runs_as_it_stands(tmp_path):
    section = (ROOT / "README.md").read_text().split("## From Python\n", 1)[1].split("\n## ", 1)[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    names, printed = executed(code, "README.md")
    run = names["run"]
    assert run.folder == Path("runs/a")
    assert (tmp_path / "runs" / "a" / "final").is_dir()
    assert "'step': 1" in printed
