"""HTTP requests with a deadline for the whole exchange, which another thread can abort."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

MOST_BYTES = 64 * 2**20
"""Largest response body that is read, in bytes; a longer one is an error."""
CONNECTING = 10.0
"""Longest time to connect, in seconds: until there is a socket, neither the deadline nor `abort` can end a request."""


class ExchangeError(Exception):
    """A request without a usable answer; the message is a clause that follows the server's name."""


@dataclass(frozen=True)
class Answer:
    """A server's answer to one request."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    content: bytes


class Exchanges:
    """Requests in flight. Each has its own connection; proxies are not used."""

    def __init__(self) -> None:
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._aborted = False

    def request(
        self,
        method: str,
        url: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str],
        seconds: float,
        most_bytes: int = MOST_BYTES,
    ) -> Answer:
        """Send a request and read the whole answer, of at most `most_bytes`, within `seconds`.

        The socket's timeout is not enough: it restarts with each byte that a slow server sends.

        Raises:
            ExchangeError: the answer did not arrive in time, was incomplete or too large, or the request was aborted.
        """
        place = urlsplit(url)
        kind = http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
        connection = kind(place.hostname or "", place.port, timeout=min(seconds, CONNECTING))
        late = threading.Event()
        timer: threading.Timer | None = None
        try:
            connection.connect()
            opened = connection.sock  # if the server closes the connection, the response takes the socket from it
            opened.settimeout(seconds)
            with self._lock:
                if self._aborted:
                    raise ExchangeError("was not asked any more")
                self._sockets.add(opened)
            timer = threading.Timer(seconds, self._end, (opened, late))
            timer.daemon = True
            timer.start()
            target = f"{place.path or '/'}{'?' + place.query if place.query else ''}"
            try:
                connection.request(method, target, body, dict(headers))
                response = connection.getresponse()
                content = response.read(most_bytes + 1)
                if response.length and len(content) <= most_bytes:  # read(n) accepts fewer bytes
                    raise http.client.IncompleteRead(content, response.length)
                found = {name.lower(): value for name, value in response.getheaders()}
            finally:
                with self._lock:
                    self._sockets.discard(opened)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if late.is_set() or isinstance(error, TimeoutError):
                raise ExchangeError(f"did not answer within {seconds:g} s") from error
            raise ExchangeError(_reason(error)) from error
        finally:
            if timer is not None:
                timer.cancel()
            connection.close()
        if late.is_set():
            raise ExchangeError(f"did not answer within {seconds:g} s")
        if len(content) > most_bytes:
            raise ExchangeError(f"sent more than {most_bytes >> 10} KiB")
        return Answer(response.status, found, content)

    def abort(self) -> None:
        """Abort all requests in flight and refuse later ones."""
        with self._lock:
            self._aborted = True
            opened = list(self._sockets)
        for each in opened:
            self._end(each, threading.Event())

    @staticmethod
    def _end(opened: socket.socket, late: threading.Event) -> None:
        late.set()
        with contextlib.suppress(OSError):
            socket.socket.shutdown(opened, socket.SHUT_RDWR)  # TLS's own shutdown would wait for the peer


def _reason(error: Exception) -> str:
    match error:
        case ConnectionRefusedError():
            return "refused the connection"
        case socket.gaierror():
            return f"has no address: {error.strerror}"
        case http.client.IncompleteRead() | http.client.RemoteDisconnected() | ConnectionError():
            return "broke the connection off"
    words = " ".join(str(error).split()) or type(error).__name__
    return f"cannot be asked: {words[:200]}"
