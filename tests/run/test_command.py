"""The command's own end: its closing words, and what it prints of errors."""

from __future__ import annotations

from pathlib import Path

from refinerl.report import summary
from refinerl.run.launch import Link
from toy import Toy


def test_closing_words_never_fail_a_run(toy: Toy, tmp_path: Path, monkeypatch, capsys):
    def broken(*_):
        raise ValueError("a fault of ours \x1b[2J")

    monkeypatch.setattr(summary, "best_example", broken)
    assert toy.run(tmp_path / "run", "trainer.steps=1") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert r"warning: the run is complete, but its summary failed (ValueError: a fault of ours \x1b[2J)" in said
    assert (tmp_path / "run" / "final" / "model.safetensors").exists()


def test_errors_cannot_command_the_terminal(capsys):
    """They may quote what a model or a server wrote."""
    link = Link()
    link.end("error: the answer was \x1b]0;title\x07", 2)
    try:
        raise ValueError("\x1b[31m")
    except ValueError as error:
        link.fail(error)
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert "\x07" not in said
    assert r"the answer was \x1b]0;title\x07" in said
    assert r"ValueError: \x1b[31m" in said
