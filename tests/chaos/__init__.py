"""The chaos matrix: every process of a run is killed or stopped in every phase, its disk fills, its rewards misbehave.

`cases` (the matrix) · `events` (what happens inside the process that it happens to) · `server` (starts runs by fork, so
that a start costs no imports) · `runs` (one run, and what must hold of its end). docs/robustness.md is the table.
"""
