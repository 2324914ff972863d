"""The page of runs, served on this machine while they go on: `python -m refinerl.report RUN --watch`."""

from __future__ import annotations

import errno
import html
import json
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from refinerl.errors import UserError
from refinerl.report.model import is_run

HOST, PORT = "127.0.0.1", 8321
NAMES = {"127.0.0.1", "localhost", "[::1]"}
"""Hosts that a browser may ask for; a page of another site that resolves its name to this machine is refused."""
EVERY = 2.0
"""Seconds between two questions of the page for a newer one."""
LOAD = 5.0
"""Time between two builds of the page, as a multiple of the time that one takes: the run needs the machine."""

SCRIPT = """
(() => {
  const version = %s, every = %d, calm = 4000, place = "refinerl-scroll";
  const kept = sessionStorage.getItem(place);
  if (kept !== null) {
    sessionStorage.removeItem(place);
    addEventListener("load", () => requestAnimationFrame(() => scrollTo(0, Number(kept))));
  }
  let touched = 0;
  for (const kind of ["pointerdown", "pointermove", "keydown", "wheel", "touchmove"])
    addEventListener(kind, () => { touched = Date.now(); }, {passive: true, capture: true});
  const bar = document.createElement("p");
  bar.setAttribute("role", "status");
  Object.assign(bar.style, {position: "fixed", bottom: "0", left: "0", margin: "0", padding: "0.4em 1em",
                            background: "#a40000", color: "#ffffff", zIndex: "1000"});
  const tell = (text) => {
    if (bar.textContent === text) return;
    bar.textContent = text;
    if (text) document.body.append(bar); else bar.remove();
  };
  setInterval(async () => {
    if (document.hidden) return;
    let found;
    try {
      found = await (await fetch("/version", {cache: "no-store"})).json();
    } catch {
      return tell("the server of this page has ended");
    }
    tell(found.problem);
    if (found.version === version || Date.now() - touched < calm || String(getSelection())) return;
    sessionStorage.setItem(place, String(scrollY));
    location.reload();
  }, every);
})();
"""
"""The page asks for a newer one, and reloads where it was scrolled to, but not while somebody uses it."""
WAITING = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>%s</title></head>
<body><p>%s</p><script>%s</script></body></html>
"""


class Page:
    """The page of runs, built again when their metrics have grown.

    Args:
        runs: their folders.
        build: makes the page's HTML, with the script that it is given.
        now: the time in seconds.

    Raises:
        UserError: a folder holds no run, or the page of a run with finished steps cannot be built.
    """

    def __init__(
        self, runs: Sequence[Path], build: Callable[[str], str], now: Callable[[], float] = time.monotonic
    ) -> None:
        for run in runs:
            if not is_run(run):
                raise UserError(f"{run} is not the folder of a run: it lacks config.yaml")
        self._runs, self._build, self._now = tuple(runs), build, now
        self._lock = threading.Lock()
        self._stamp: Any = None
        self._again = 0.0
        self._number = 0
        self._mark = secrets.token_hex(4)
        """A part of each version: a tab that was opened at another server sees that the page is another one."""
        self._text = self._problem = ""
        self.state()
        if self._problem and any(_stamp(run) for run in runs):
            raise UserError(self._problem)

    def state(self) -> dict[str, str]:
        """Build the page if it is out of date; return its version, and why it could not be built, if so."""
        with self._lock:
            stamp = [_stamp(run) for run in self._runs]
            start = self._now()
            if stamp != self._stamp and start >= self._again:
                self._stamp = stamp
                self._make()
                self._again = self._now() + LOAD * (self._now() - start)
            return {"version": self._version(self._number), "problem": self._problem if self._text else ""}

    def _make(self) -> None:
        try:
            text = self._build(self._script(self._number + 1))
        except UserError as error:
            self._problem = str(error)
        else:
            self._text, self._problem = text, ""
            self._number += 1

    def _version(self, number: int) -> str:
        return f"{number}-{self._mark}"

    def _script(self, number: int) -> str:
        return SCRIPT % (json.dumps(self._version(number)), int(1000 * EVERY))

    def text(self) -> str:
        """Return the page, with the script that keeps it up to date; before the first one, a page that waits for it."""
        self.state()
        with self._lock:
            if self._text:
                return self._text
            title = ", ".join(run.resolve().name for run in self._runs)
            return WAITING % (html.escape(title), html.escape(self._problem), self._script(self._number))


def _stamp(run: Path) -> tuple[int, int, bool] | None:
    """Return what changes when a run's metrics grow and when it ends; None before its first step."""
    try:
        status = (run / "metrics.jsonl").stat()
    except OSError:
        return None
    return (status.st_size, status.st_mtime_ns, (run / "final").is_dir()) if status.st_size else None


def serve(page: Page, port: int) -> Iterator[str]:
    """Serve a page to browsers of this machine until Ctrl-C, after a line with its address is yielded.

    Args:
        page: of the runs.
        port: where; 0 for any that is free.

    Raises:
        UserError: the port is taken or cannot be used.
    """
    with open_server(page, port) as server:
        yield f"http://{HOST}:{server.server_address[1]}/ follows the run; Ctrl-C ends it"
        with suppress(KeyboardInterrupt):
            server.serve_forever()


def open_server(page: Page, port: int) -> ThreadingHTTPServer:
    """Open the server of a page. Raises as `serve`."""
    if not 0 <= port <= 65535:
        raise UserError(f"--port must be between 0 and 65535, got {port}")
    handler = type("Answer", (_Answer,), {"page": page})
    try:
        return _Server((HOST, port), handler)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} is taken: choose another --port, or --port 0 for any that is free") from error
        raise UserError(f"cannot serve on port {port}: {error.strerror}; choose another --port") from error


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print the error, unless the browser has gone away."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Answer(BaseHTTPRequestHandler):
    page: Page

    def do_GET(self) -> None:
        """Answer with the page, or with the number of its version."""
        host = self.headers.get("Host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        if name not in NAMES:
            self.send_error(HTTPStatus.FORBIDDEN)
        elif self.path.partition("?")[0] == "/":
            self._send("text/html", self.page.text())
        elif self.path == "/version":
            self._send("application/json", json.dumps(self.page.state()))
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _send(self, kind: str, text: str) -> None:
        body = text.encode("utf-8", "backslashreplace")
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Print nothing about requests."""
