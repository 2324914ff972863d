"""Data sets: readers for problems and conversations, and the embedded problems."""

from pathlib import Path

MINIATURE = Path(__file__).parents[1] / "study" / "miniature"
"""The folder of the miniature's shipped files: `base/`, `train.jsonl` and `held_out.jsonl`."""
MINIATURE_FAR = MINIATURE / "far"
"""The same files of the miniature whose base practically never samples a right line for a hard operation."""
SHIPPED = {
    "miniature": MINIATURE / "train.jsonl",
    "miniature-held-out": MINIATURE / "held_out.jsonl",
    "miniature-far": MINIATURE_FAR / "train.jsonl",
    "miniature-far-held-out": MINIATURE_FAR / "held_out.jsonl",
    "problems-train": Path(__file__).parent / "problems_train.jsonl",
    "problems-held-out": Path(__file__).parent / "problems_held_out.jsonl",
}
"""Shipped files of problems, by the names that `task.path` and `evaluate.path` know as `shipped:NAME`."""
PROBLEMS = Path(__file__).parent / "problems.jsonl"
"""The embedded problems, shipped in the wheel and described in the README beside it."""
