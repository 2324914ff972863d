"""The served page of a run that goes on, over real HTTP."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from browser import chromium
from launching import environment
from refinerl.errors import UserError
from refinerl.report import command as report
from refinerl.report import watch
from refinerl.report.page import render
from refinerl.report.watch import HOST, Page, open_server
from toy import Toy, metrics


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Make the folder of a run that has begun."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("seed: 0\n")
    return tmp_path / "run"


def grow(run: Path, step: int) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"schema": 1, "step": step}) + "\n")


@contextmanager
def serving(page: Page) -> Iterator[ThreadingHTTPServer]:
    with open_server(page, 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server: ThreadingHTTPServer, path: str, host: str | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection(HOST, server.server_address[1], timeout=10)
    connection.request("GET", path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def number(state: dict[str, str]) -> tuple[str, str]:
    """Return the number of the page's version without the server's mark, and its problem."""
    return state["version"].partition("-")[0], state["problem"]


def test_the_page_grows_with_the_run(run: Path) -> None:
    grow(run, 1)
    page = Page([run], lambda script: f"{len(metrics(run))} steps<script>{script}</script>", now=lambda: 0.0)
    with serving(page) as server:
        assert number(json.loads(ask(server, "/version")[1])) == ("1", "")
        status, text = ask(server, "/")
        assert (status, text.partition("<")[0]) == (200, "1 steps")
        assert 'const version = "1-' in text
        grow(run, 2)
        assert number(json.loads(ask(server, "/version")[1])) == ("2", "")
        assert ask(server, "/")[1].startswith("2 steps")
        assert number(json.loads(ask(server, "/version")[1])) == ("2", "")  # nothing has changed


def test_a_tab_of_another_server_sees_that_the_page_is_another(run: Path) -> None:
    """After a restart on the same port both were at version 1, and the tab stayed as it was."""
    grow(run, 1)
    first, second = (Page([run], lambda script: script) for _ in range(2))
    assert first.state()["version"] != second.state()["version"]
    for page in (first, second):
        assert f'const version = "{page.state()["version"]}"' in page.text()


def test_the_page_notices_the_end_of_the_run(run: Path) -> None:
    """Its note that the run goes on stayed, because final/ is written after the last row of metrics."""
    grow(run, 1)
    page = Page([run], lambda script: "ended" if (run / "final").is_dir() else "goes on", now=lambda: 0.0)
    assert page.text() == "goes on"
    (run / "final").mkdir()
    assert number(page.state()) == ("2", "")
    assert page.text() == "ended"


def test_a_run_without_a_step_has_a_page_that_waits(run: Path) -> None:
    def build(script: str) -> str:
        if not (run / "metrics.jsonl").exists():
            raise UserError("no step is <finished> yet")
        return "page"

    page = Page([run], build, now=lambda: 0.0)  # else not again before a slow build has been paid for
    with serving(page) as server:
        waiting = ask(server, "/")[1]
        assert "<p>no step is &lt;finished&gt; yet</p>" in waiting
        assert 'const version = "0-' in waiting
        grow(run, 1)
        assert number(json.loads(ask(server, "/version")[1])) == ("1", "")
        assert ask(server, "/")[1] == "page"


def test_a_line_that_is_being_written_leaves_the_last_page(run: Path) -> None:
    """And its reason is told, in place of a page that stays behind silently."""
    grow(run, 1)

    def build(script: str) -> str:
        if (run / "metrics.jsonl").read_text().endswith("\n"):
            return "whole"
        raise UserError("metrics.jsonl:2: not JSON")

    page = Page([run], build, now=lambda: 0.0)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"schema": 1, ')
    assert number(page.state()) == ("1", "metrics.jsonl:2: not JSON")
    assert page.text() == "whole"
    with (run / "metrics.jsonl").open("a") as file:
        file.write('"step": 2}\n')
    assert number(page.state()) == ("2", "")


def test_a_long_build_leaves_the_machine_to_the_run(run: Path) -> None:
    """A page of many rollouts takes seconds, and steps may take less."""
    clock = [0.0]

    def build(script: str) -> str:
        clock[0] += 3.0
        return "page"

    grow(run, 1)
    page = Page([run], build, now=lambda: clock[0])
    for step, after, version in ((2, 3.0, "1"), (3, 17.9, "1"), (4, 18.1, "2")):
        grow(run, step)
        clock[0] = after
        assert number(page.state()) == (version, "")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("127.0.0.1:80", 200),
        ("localhost:9999", 200),
        ("evil.example", 403),
        ("evil.example:80", 403),
    ],
)
def test_a_page_of_another_site_cannot_read_it(run: Path, host: str, status: int) -> None:
    """Whose name resolves to this machine."""
    with serving(Page([run], lambda script: "page")) as server:
        assert ask(server, "/", host)[0] == status


def test_it_serves_nothing_else(run: Path) -> None:
    with serving(Page([run], lambda script: "page")) as server:
        assert [ask(server, path)[0] for path in ("/config.yaml", "/../run/config.yaml")] == [404, 404]


def test_bad_input_is_one_sentence(run: Path, tmp_path: Path, capsys) -> None:
    def said(*words: str) -> str:
        assert report.main([str(word) for word in words]) == 2
        return capsys.readouterr().err.removeprefix("error: ").strip()

    assert said(tmp_path, "--watch") == f"{tmp_path} is not the folder of a run: it lacks config.yaml"
    assert said(run, "--port", "80") == "--port is for --watch"
    assert said(run, "--watch", "--output", "x").startswith("--output is for a page that is written")
    assert said(run, "--watch", "--port", "65536") == "--port must be between 0 and 65535, got 65536"
    with serving(Page([run], lambda script: "page")) as server:
        port = server.server_address[1]
        assert said(run, "--watch", "--port", str(port)) == (
            f"port {port} is taken: choose another --port, or --port 0 for any that is free"
        )


def test_unreadable_files_are_named(run: Path, capsys) -> None:
    (run / "metrics.jsonl").mkdir()
    (run / "rollouts").mkdir()
    assert report.main([str(run), "--watch", "--port", "0"]) == 2
    assert str(run) in capsys.readouterr().err


def test_the_command_follows_a_real_run_and_ends_with_ctrl_c(toy: Toy, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert toy.run(folder, "trainer.steps=1") == 0
    command = [sys.executable, "-m", "refinerl.report", str(folder), "--watch", "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            port = int(line.partition(f"http://{HOST}:")[2].partition("/")[0])
            connection = http.client.HTTPConnection(HOST, port, timeout=60)
            connection.request("GET", "/")
            page = connection.getresponse().read().decode()
            connection.close()
            assert 'const version = "1-' in page
            title = render([folder]).partition("<title>")[2].partition("</title>")[0]
            assert title
            assert f"<title>{title}</title>" in page
            os.kill(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, out.strip(), err) == (0, "", "")


@pytest.mark.slow
def test_a_browser_follows_the_run(toy: Toy, tmp_path: Path, monkeypatch) -> None:
    """Under the page's own security policy; a problem is told in a bar, and the scrolled place is kept."""
    monkeypatch.setattr(watch, "EVERY", 0.2)
    folder = tmp_path / "run"
    assert toy.run(folder, "trainer.steps=2") == 0
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text(lines[0])
    broken = [False]

    def build(script: str) -> str:
        if broken[0]:
            raise UserError("metrics.jsonl:2: not JSON")
        return render([folder], [script])

    # The server ends last: a browser that still asks would see its connection refused.
    with serving(Page([folder], build, now=lambda: 0.0)) as server, chromium() as browser:
        page = browser.new_context(viewport={"width": 390, "height": 300}).new_page()
        wrong: list[str] = []
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(f"http://{HOST}:{server.server_address[1]}/")
        page.evaluate("() => { window.first = true; scrollTo(0, 40); }")
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(lines[1])
        page.wait_for_function("() => window.first === undefined", timeout=60_000)
        page.wait_for_function("() => scrollY === 40", timeout=60_000)
        broken[0] = True
        with (folder / "metrics.jsonl").open("a") as file:
            file.write("{")
        page.wait_for_selector("p[role=status]:has-text('metrics.jsonl:2: not JSON')", timeout=60_000)
    assert wrong == []
