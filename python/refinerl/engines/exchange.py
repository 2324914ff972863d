"""Requests over HTTP, each with a deadline for the whole of it, that another thread can cut off."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

MOST_BYTES = 64 * 2**20
"""Of an answer; a server that sends more is not heard to the end."""
CONNECTING = 10.0
"""Seconds until a connection stands at most; nothing cuts off what has no socket yet."""


class ExchangeError(Exception):
    """No answer came; the message says why, as a clause after the server's name."""


@dataclass(frozen=True)
class Answer:
    """A server's answer to one request."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    content: bytes


class Exchanges:
    """Requests in flight. Each has a connection of its own, and no proxy."""

    def __init__(self) -> None:
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._aborted = False

    def request(
        self, method: str, url: str, *, body: bytes | None = None, headers: Mapping[str, str], seconds: float
    ) -> Answer:
        """Send a request and read the whole answer, within so many seconds.

        A timeout of the socket alone would not do: it begins anew with each byte that a slow server sends.

        Raises:
            ExchangeError: it did not come, in time or at all.
        """
        place = urlsplit(url)
        kind = http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
        connection = kind(place.hostname or "", place.port, timeout=min(seconds, CONNECTING))
        late = threading.Event()
        timer: threading.Timer | None = None
        try:
            connection.connect()
            opened = connection.sock  # kept here: an answer that closes the connection takes it over
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
                content = response.read(MOST_BYTES + 1)
                if response.length and len(content) <= MOST_BYTES:  # read(n) is content with less
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
        if len(content) > MOST_BYTES:
            raise ExchangeError(f"sent more than {MOST_BYTES >> 20} MiB")
        return Answer(response.status, found, content)

    def abort(self) -> None:
        """Cut off all requests in flight and refuse later ones."""
        with self._lock:
            self._aborted = True
            opened = list(self._sockets)
        for each in opened:
            self._end(each, threading.Event())

    @staticmethod
    def _end(opened: socket.socket, late: threading.Event) -> None:
        late.set()
        with contextlib.suppress(OSError):
            socket.socket.shutdown(opened, socket.SHUT_RDWR)  # not that of TLS, which waits for the other side


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
