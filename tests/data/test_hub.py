"""Downloads by the hub's own client from a server of this test; no network is used."""

from __future__ import annotations

import hashlib
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from refinerl.data import MINIATURE
from refinerl.data.hub import fetched, local
from refinerl.errors import UserError

COMMIT = "0" * 40
PROBLEM = json.dumps({"problem_id": 1, "question": "q", "input_output": {"inputs": ["1"], "outputs": ["1"]}}) + "\n"
REPOSITORIES = {
    "someone/apps": {"train.jsonl": PROBLEM, "test.jsonl": PROBLEM, "README.md": "x"},
    "someone/one": {"data.jsonl": PROBLEM},
    "someone/script": {"apps.py": "raise SystemExit", "README.md": "x"},
    "someone/empty": {"README.md": "x"},
    "someone/sums": {"main/train.jsonl": '{"question": "2 + 2?", "answer": "#### 4"}\n'},
}


class Hub(http.server.BaseHTTPRequestHandler):
    """The part of the hub's interface that the client uses."""

    def do_GET(self) -> None:
        self.answer(body=True)

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        for name, files in REPOSITORIES.items():
            if path.startswith(f"/api/datasets/{name}"):
                siblings = [{"rfilename": file} for file in files]
                tree = [{"type": "file", "path": f, "size": len(t), "oid": "0" * 40} for f, t in files.items()]
                info = {"id": name, "sha": COMMIT, "siblings": siblings, "private": False, "downloads": 0, "tags": []}
                return self.send(json.dumps(tree if "/tree/" in path else info).encode(), body)
            for file, text in files.items():
                if path == f"/datasets/{name}/resolve/main/{file}" or path.endswith(f"{name}/resolve/{COMMIT}/{file}"):
                    return self.send(text.encode(), body)
        self.send_response(404)
        self.send_header("X-Error-Code", "EntryNotFound" if "/resolve/" in path else "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    def send(self, data: bytes, body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


PRINTED = (
    "import sys\nfrom refinerl.data.hub import local\nfrom refinerl.errors import UserError\n"
    "try: print(local(sys.argv[1]).read_text())\nexcept UserError as e: print(e); sys.exit(2)"
)


def resolve(endpoint: str, home: Path, name: str, code: str = PRINTED, **more: str) -> subprocess.CompletedProcess[str]:
    """Resolve in a process of its own, because the client reads its endpoint when it is imported."""
    variables = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "PATH": "", "HF_HUB_DISABLE_XET": "1", **more}
    variables["PYTHONPATH"] = ":".join(sys.path)
    return subprocess.run([sys.executable, "-c", code, name], env=variables, text=True, capture_output=True, timeout=60)


def test_a_path_is_a_path():
    assert local("a/b.jsonl") == Path("a/b.jsonl")


@pytest.mark.parametrize("name", ["hub:someone/apps/train.jsonl", "hub:someone/one"])
def test_a_file_of_a_repository(hub, tmp_path, name):
    done = resolve(hub, tmp_path, name)
    assert (done.returncode, done.stdout.strip()) == (0, PROBLEM.strip()), done.stderr


def test_dialogues_of_a_file_in_a_folder_of_a_repository(hub, tmp_path):
    """In the layout of openai/gsm8k, whose repository has a folder for each configuration."""
    code = (
        "import sys\nfrom refinerl.data.conversations import read_dialogues\n"
        "print(read_dialogues(sys.argv[1], column='question'))"
    )
    done = resolve(hub, tmp_path, "hub:someone/sums/main/train.jsonl", code=code)
    assert done.stdout.strip() == "[Dialogue(id='1', prompt='2 + 2?', columns={'answer': '#### 4'})]", done.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hub:someone/apps", "has 2 files of JSON lines; name one: hub:someone/apps/test.jsonl"),
        ("hub:someone/script", "its data are made by a script (apps.py), which is not run"),
        ("hub:someone/empty", "has no file of JSON lines; it has README.md"),
        ("hub:someone/apps/dev.jsonl", "cannot get someone/apps/dev.jsonl from the hub"),
        ("hub:someone/nothing", "cannot get someone/nothing from the hub"),
        ("hub:someone", "must be given as hub:OWNER/NAME"),
        ("hub:/x", "must be given as hub:OWNER/NAME"),
    ],
)
@pytest.mark.slow
def test_what_cannot_be_had(hub, tmp_path, name, message):
    done = resolve(hub, tmp_path, name)
    assert done.returncode == 2, done.stderr
    assert message in done.stdout


def test_offline(tmp_path):
    done = resolve("http://127.0.0.1:9", tmp_path, "hub:someone/apps/train.jsonl", HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    assert "download it on a machine with a network" in done.stdout


def test_a_published_file_is_checked_and_fetched_once(tmp_path, monkeypatch):
    monkeypatch.setenv("REFINERL_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "data.jsonl"
    source.write_text(PROBLEM)
    digest = hashlib.sha256(PROBLEM.encode()).hexdigest()
    place = fetched(source.as_uri(), digest)
    assert place.read_text() == PROBLEM
    source.unlink()
    assert fetched(source.as_uri(), digest) == place
    place.write_text("broken")
    with pytest.raises(UserError, match=r"cannot download file:.*give its folder with --data"):
        fetched(source.as_uri(), digest)


def test_a_published_file_that_changed(tmp_path, monkeypatch):
    monkeypatch.setenv("REFINERL_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "data.jsonl"
    source.write_text("other")
    with pytest.raises(UserError, match="has changed: its SHA-256 is"):
        fetched(source.as_uri(), "0" * 64)
    assert list((tmp_path / "cache" / "benchmarks").iterdir()) == []


def test_shipped_files_have_names():
    assert local("shipped:miniature-held-out") == MINIATURE / "held_out.jsonl"
    with pytest.raises(UserError, match="no file 'minature' is shipped; the names are shipped:miniature, "):
        local("shipped:minature")
