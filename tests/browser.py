"""Debian's Chromium, driven by Playwright, for the tests of pages."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SHOTS = "REFINERL_SCREENSHOTS"
"""Environment variable that names a folder in which screenshots are kept."""
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
"""Names of the browser."""


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Start a browser; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)")
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("there is no chromium (apt-get install chromium)")
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """A page of the browser with what went wrong in it: messages of its console, and requests but for its file."""

    def __init__(self, browser: Any, path: Path, *, width: int = 1280, dark: bool = False, link: str = "") -> None:
        self.path = path
        height = 900 if width > 500 else 844
        self.context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
        )
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.page.on("console", lambda message: self.wrong.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("request", lambda request: self._asked(request.url))
        self.page.goto(f"{path.as_uri()}{link}")

    def _asked(self, url: str) -> None:
        if url.partition("#")[0] != self.path.as_uri():
            self.wrong.append(f"request: {url}")

    def text(self, selector: str) -> str:
        """The text of the first element that a selector matches."""
        return self.page.locator(selector).first.inner_text()

    def texts(self, selector: str) -> list[str]:
        return self.page.locator(selector).all_inner_texts()

    def js(self, expression: str, argument: Any = None) -> Any:
        """The value of an expression in the page."""
        return self.page.evaluate(expression, argument)

    def shot(self, name: str, **options: Any) -> bytes:
        """Take a screenshot; keep it where the environment variable names a folder."""
        picture: bytes = self.page.screenshot(**options)
        if folder := os.environ.get(SHOTS):
            Path(folder).mkdir(parents=True, exist_ok=True)
            (Path(folder) / f"{name}.png").write_bytes(picture)
        return picture

    def seconds_to_load(self) -> float:
        """Load the page again; return the processor time that its main thread takes, however busy the machine is."""
        session = self.context.new_cdp_session(self.page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        found = []
        for _ in range(2):
            metrics = session.send("Performance.getMetrics")["metrics"]
            found.append(next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration"))
            if len(found) == 1:
                self.page.reload()
        return found[1] - found[0]

    def close(self) -> None:
        self.context.close()
        assert self.wrong == []
