"""Data sets: readers for problems and conversations, and the demo's problems."""

from pathlib import Path

PROBLEMS = Path(__file__).parent / "problems.jsonl"
"""The demo's problem set, shipped in the wheel and described in the README beside it."""
