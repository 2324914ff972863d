"""Fixtures of the chaos matrix: the processes that start its runs."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from chaos.runs import Server

WHOLE = os.environ.get("REFINERL_CHAOS") == "1"
"""True to run the whole matrix, as `make chaos` does."""


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start the server for the runs of a module, whose FLAGS select what it imports."""
    started = Server(tmp_path_factory.mktemp("chaos"), *request.module.FLAGS)
    yield started
    started.close()
