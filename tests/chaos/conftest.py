"""The processes that start the chaos matrix's runs."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from chaos.runs import Server

WHOLE = os.environ.get("REFINERL_CHAOS") == "1"
"""Whether the whole matrix runs: `make chaos`."""


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """What starts the runs of a module, which says by FLAGS what it imports."""
    started = Server(tmp_path_factory.mktemp("chaos"), *request.module.FLAGS)
    yield started
    started.close()
