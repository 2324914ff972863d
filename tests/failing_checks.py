"""A check for `tests/test_gpu_check.py` that ends as it is told."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

from gpu_check.site import Fact, Site, SkipError


def run(site: Site, how: str) -> Iterator[Fact]:
    yield {"said": how, "device": site.device}
    print(f"printed before it {how}", flush=True)
    match how:
        case "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hangs":
            time.sleep(600)
        case "raises":
            raise RuntimeError("no such thing")
        case "finds":
            yield {"wrong": "2 is not 3"}
        case "despairs":
            yield {"wrong": "no card", "hopeless": "no card"}
        case "skips":
            raise SkipError("there is no such card")
