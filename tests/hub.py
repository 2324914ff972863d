"""A server that plays the Hugging Face hub for an upload: repositories, commits, large files."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LARGE = ".safetensors"
"""Files with this suffix are uploaded as large ones."""


@dataclass
class Hub:
    """What was asked of the hub, and the files that were committed."""

    refuses: int = 0
    """Status of the answer to the creation of a repository, if it is refused."""
    address: str = ""
    created: list[dict[str, Any]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    validated: list[str] = field(default_factory=list)
    stored: dict[str, bytes] = field(default_factory=dict)
    """Large files by their SHA-256."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Committed files by their place."""

    def post(self, path: str, body: bytes) -> tuple[int, Any]:
        """Answer a request: the status, and the values of the answer."""
        if path == "/api/repos/create":
            values = json.loads(body)
            self.created.append(values)
            owner = values.get("organization") or "me"
            if self.refuses:
                return self.refuses, {"error": "You may not write here"}
            return 200, {"url": f"{self.address}/{owner}/{values['name']}"}
        if path == "/api/validate-yaml":
            self.validated.append(json.loads(body)["content"])
            return 200, {"errors": [], "warnings": []}
        if path.endswith("/preupload/main"):
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = {True: "lfs", False: "regular"}
            return 200, {
                "files": [{"path": n, "uploadMode": modes[n.endswith(LARGE)], "shouldIgnore": False} for n in names]
            }
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            upload = [{**one, "actions": {"upload": {"href": f"{self.address}/lfs/{one['oid']}"}}} for one in objects]
            return 200, {"transfer": "basic", "objects": upload}
        if path.endswith("/commit/main"):
            self.commit([json.loads(line) for line in body.splitlines()])
            place = f"{self.address}/{path.removeprefix('/api/models/').removesuffix('/main')}/{'0' * 40}"
            return 200, {"success": True, "commitOid": "0" * 40, "commitUrl": place}
        return 404, {"error": f"nobody told the hub of {path}"}

    def commit(self, lines: list[dict[str, Any]]) -> None:
        """Take the files of a commit."""
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.files[value["path"]] = self.stored[value["oid"]]


@contextmanager
def served(hub: Hub) -> Iterator[Hub]:
    """Serve a hub on a free port of this machine; `address` is its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            hub.tokens.add(self.headers.get("Authorization", ""))
            status, values = hub.post(re.sub(r"\?.*", "", self.path), body)
            content = json.dumps(values).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            hub.stored[self.path.rpartition("/")[2]] = body
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
