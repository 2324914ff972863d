"""A sandbox for untrusted programs, which are judged in parallel in processes of their own.

box       the typed face of the Rust sandbox
command   `python -m refinerl.sandbox judge|doctor`
"""

from refinerl.sandbox.box import (
    Limits,
    Outcome,
    Program,
    Protection,
    Run,
    Sandbox,
    SandboxError,
    Test,
    TestRun,
    TestVerdict,
    Verdict,
    cores,
)

__all__ = [
    "Limits",
    "Outcome",
    "Program",
    "Protection",
    "Run",
    "Sandbox",
    "SandboxError",
    "Test",
    "TestRun",
    "TestVerdict",
    "Verdict",
    "cores",
]
