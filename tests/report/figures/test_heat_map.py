"""Figure 6: colours are the tokens' cross-entropies, the first new token has a frame, any text can be drawn."""

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import Any

import pytest
from matplotlib import colormaps
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle

from refinerl.report.figures import heat_map
from refinerl.report.figures.heat_map import Example, Token, drawn, lay_out


def example(response: list[Token], refined: list[Token]) -> Example:
    return Example("run, step 1, prompt 7", "Write f.", tuple(response), tuple(refined), ("reward -1", "reward +1"))


def cells(figure: Any) -> list[Rectangle]:
    (axis, *_) = figure.axes
    return [patch for patch in axis.patches if isinstance(patch, Rectangle)]


def test_colours_are_cross_entropies() -> None:
    y = [Token("def", True), Token(" g", False), Token(":", True)]
    refined = [Token("def", True, 0.0), Token(" f", False, 4.0), Token(":", True, 1.0), Token("\n", False, 2.0)]
    with drawn(example(y, refined)) as figure:
        (deleted, *heat) = cells(figure)
        assert deleted.get_facecolor() == to_rgba(heat_map.DELETED)
        colours = colormaps[heat_map.COLOURS]
        assert [cell.get_facecolor() for cell in heat] == [
            pytest.approx(colours(ce / 4.0)) for ce in (0.0, 4.0, 1.0, 2.0)
        ]
        framed = [cell for cell in heat if cell.get_linewidth()]
        assert [cell.get_x() for cell in framed] == [heat_map.WIDTH + heat_map.GAP + 3]  # after `def`
        assert [cell.get_width() for cell in heat] == [3, 2, 1, 1]
        texts = [text.get_text() for text in figure.axes[0].texts]
        assert "y  reward -1" in texts
        assert "ỹ  reward +1" in texts
        assert "↵" in texts


def test_a_long_text_is_cut_and_says_so() -> None:
    tokens = [Token("x = 1\n", False, 0.5)] * 100
    with drawn(example(tokens, tokens)) as figure:
        texts = [text.get_text() for text in figure.axes[0].texts]
        assert texts.count(f"… and {100 - heat_map.LINES} more tokens") == 2


def test_lines_are_as_wide_as_there_is_room() -> None:
    pieces, whole = lay_out(["word "] * 40 + ["a\tb\n", "", "c"], width=12, lines=30)
    assert whole == 43
    assert all(piece.column + len(piece.text) <= 12 for piece in pieces)
    for before, after in pairwise(pieces):
        same = after.line == before.line
        assert after.column == (before.column + len(before.text) if same else 0)
    assert "".join(piece.text for piece in pieces) == "word " * 40 + "a    b↵c"


@pytest.mark.parametrize(
    "text",
    [
        "\x1b[31m\x00\x7f",
        "\u202eabc\u2066",
        "\ud800",
        "漢字 🙂 e\u0301",
        "$x_{$ \\frac",
        "</svg><script>",
        "x" * 1_000_000,
        "",
    ],
    ids=["control", "bidi", "surrogate", "wide", "dollars", "markup", "long", "empty"],
)
def test_any_text_can_be_drawn(text: str, tmp_path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with drawn(Example(text, text, (Token(text, False),), (Token(text, False, 1.0),), (text, text))) as figure:
            figure.savefig(tmp_path / "a.svg")
            figure.savefig(tmp_path / "a.png")
    assert "<script" not in (tmp_path / "a.svg").read_text()
