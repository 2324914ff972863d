"""Data that no repository of ours holds: real problems, benchmarks, hostile programs, the method's own tables.

They lie in the folder that REFINERL_OUTSIDE names; by default in `shared` beside the repository. Tests and benches that
read them are skipped where they are absent.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

OUTSIDE = Path(os.environ.get("REFINERL_OUTSIDE") or Path(__file__).resolve().parents[2] / "shared")
DATA = OUTSIDE / "data"
METHOD = OUTSIDE / "METHOD.md"

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no outside data: REFINERL_OUTSIDE names their folder")
needs_method = pytest.mark.skipif(not METHOD.is_file(), reason="no outside tables: REFINERL_OUTSIDE names their folder")
