"""The paper's figure 6: a response y beside its refinement ỹ, whose tokens are coloured by their cross-entropy."""

from __future__ import annotations

import importlib
import textwrap
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from refinerl.data.terminal import visible
from refinerl.report.figures import plots

FONT, POINTS = "DejaVu Sans Mono", 8.5
"""The font, which comes with matplotlib, and its size."""
WIDTH, LINES = 50, 44
"""Columns of a text, and the lines of it that are shown."""
GAP = 3
"""Columns between y and ỹ."""
STRANGE = "\N{WHITE SQUARE}"
"""Stands for a character that the font lacks."""
COLOURS, DELETED, MARK = "YlOrRd", "#f1c4c4", "#1d4ed8"


@dataclass(frozen=True)
class Token:
    """A token of y or ỹ."""

    text: str
    kept: bool
    """True if it stands in both."""
    ce: float = 0.0
    """−log π(token) in nats; of y's tokens it is not shown."""


@dataclass(frozen=True)
class Example:
    """A response and its refinement, with the question's and the verdicts' texts."""

    title: str
    question: str
    response: tuple[Token, ...]
    refined: tuple[Token, ...]
    verdicts: tuple[str, str]
    """Reward and outcome of y and of ỹ."""


@dataclass(frozen=True)
class Piece:
    """A part of a token on one line."""

    line: int
    column: int
    text: str
    token: int


def lay_out(texts: Sequence[str], width: int = WIDTH, lines: int = LINES) -> tuple[list[Piece], int]:
    r"""Lay out tokens in lines of `width` columns; return their pieces and the number of tokens that are whole.

    A line break is shown as ↵, so that its colour can be seen.

    >>> pieces, whole = lay_out(["ab", "cd\n", "e"], width=3)
    >>> [(piece.line, piece.column, piece.text) for piece in pieces], whole
    ([(0, 0, 'ab'), (0, 2, 'c'), (1, 0, 'd↵'), (2, 0, 'e')], 3)
    """
    pieces: list[Piece] = []
    line = column = 0
    for number, text in enumerate(texts):
        for character in text:
            shown = {"\n": "↵", "\t": "    "}.get(character) or visible(character)
            if column + len(shown) > width and character != "\n":
                line, column = line + 1, 0
            if line >= lines:
                return pieces, number
            last = pieces[-1] if pieces else None
            if last is not None and last.token == number and last.line == line:
                pieces[-1] = Piece(line, last.column, last.text + shown, number)
            else:
                pieces.append(Piece(line, column, shown, number))
            column += len(shown)
            if character == "\n":
                line, column = line + 1, 0
    return pieces, len(texts)


@contextmanager
def drawn(example: Example) -> Iterator[Any]:
    """Yield matplotlib's figure of an example, which is closed afterwards.

    Raises:
        MissingError: matplotlib is not installed.
    """
    sides = [lay_out([token.text for token in side]) for side in (example.response, example.refined)]
    asked = "".join(map(visible, " ".join(example.question[:2000].split())))
    question = textwrap.wrap(asked, 2 * WIDTH + GAP, max_lines=3, placeholder=" …")
    rows = max((piece.line + 1 for pieces, _ in sides for piece in pieces), default=1)
    head, foot = 4 + len(question), 5
    columns, height = 2 * WIDTH + GAP, head + rows + foot
    with plots.canvas(size=(_inches(columns + 2, 0.602), _inches(height, 1.3))) as (figure, ((axis,),)):
        figure.set_layout_engine("none")
        axis.set_position((0, 0, 1, 1))
        axis.set_axis_off()
        axis.set_xlim(-1, columns + 1)
        axis.set_ylim(height, 0)
        known = _known()
        _write(axis, known, 0, 0, plots.plain(example.title, columns), weight="bold")
        for number, line in enumerate(question):
            _write(axis, known, 0, 1 + number, line, color="0.35")
        most = max([1.0, *(token.ce for token in example.refined)])
        colours = importlib.import_module("matplotlib.cm").ScalarMappable(cmap=COLOURS)
        colours.set_clim(0.0, most)
        for left, name, verdict in zip((0, WIDTH + GAP), ("y", "ỹ"), example.verdicts, strict=True):
            _write(axis, known, left, head - 1.5, plots.plain(f"{name}  {verdict}", WIDTH), weight="bold")
        for left, side, (pieces, whole), heat in zip(
            (0, WIDTH + GAP), (example.response, example.refined), sides, (None, colours), strict=True
        ):
            _draw_side(axis, known, left, head, side, pieces, heat)
            if whole < len(side):
                _write(axis, known, left, head + rows + 0.2, f"… and {len(side) - whole:,} more tokens", color="0.35")
        _draw_scale(figure, axis, height, colours)
        yield figure


def _draw_side(
    axis: Any,
    known: Callable[[str], str],
    left: int,
    top: int,
    side: Sequence[Token],
    pieces: Sequence[Piece],
    heat: Any,
) -> None:
    """Draw y, with the tokens that ỹ does not keep in red, or with `heat` ỹ, with its first new token in a frame."""
    rectangle = importlib.import_module("matplotlib.patches").Rectangle
    first = next((number for number, token in enumerate(side) if not token.kept), None)
    for piece in pieces:
        token, place = side[piece.token], (left + piece.column, top + piece.line)
        back: Any = DELETED if heat is None else heat.to_rgba(token.ce)
        framed = heat is not None and piece.token == first
        if heat is not None or not token.kept:
            edge = {"edgecolor": MARK, "linewidth": 1.4, "zorder": 3} if framed else {"linewidth": 0}
            axis.add_patch(rectangle(place, len(piece.text), 1, facecolor=back, **edge))
        dark = heat is not None and sum(back[:3]) < 1.35
        _write(axis, known, *place, piece.text, color="white" if dark else "black", zorder=4)


def _draw_scale(figure: Any, axis: Any, height: int, colours: Any) -> None:
    place = figure.add_axes((0.53, 2.4 / height, 0.44, 0.6 / height))
    bar = figure.colorbar(colours, cax=place, orientation="horizontal")
    bar.set_label("cross-entropy of the token, nats; in the frame the first token that differs from y", fontsize=6)
    bar.ax.tick_params(labelsize=6.5)
    axis.text(0.5, height - 2.6, "not kept in ỹ", fontsize=6.5, va="center", backgroundcolor=DELETED)


def _write(axis: Any, known: Callable[[str], str], column: float, line: float, text: str, **how: Any) -> None:
    axis.text(column, line + 0.5, known(text), family=FONT, fontsize=POINTS, va="center_baseline", ha="left", **how)


def _known() -> Callable[[str], str]:
    """Return a function that replaces the characters that the font lacks, or that have no width of their own."""
    fonts = importlib.import_module("matplotlib.font_manager")
    font = fonts.get_font(fonts.findfont(FONT))

    def known(text: str) -> str:
        return "".join(c if font.get_char_index(ord(c)) and not unicodedata.combining(c) else STRANGE for c in text)

    return known


def _inches(cells: float, size: float) -> float:
    """Convert columns or lines of text into inches; `size` is that of a cell in units of the font's."""
    return cells * size * POINTS / 72
