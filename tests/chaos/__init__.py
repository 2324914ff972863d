"""The chaos matrix: processes of a run are killed or stopped in each phase, its disk fills, its reward function fails.

`cases` (the matrix) · `events` (failures, injected into a process of the run) · `server` (starts runs by fork, so that
a start needs no imports) · `runs` (one run, and the checks of its end). docs/robustness.md lists the cases.
"""
