"""Data sets: readers for problems and conversations, and the embedded problems."""

from pathlib import Path

PROBLEMS = Path(__file__).parent / "problems.jsonl"
"""The embedded problems, shipped in the wheel and described in the README beside it."""
