"""Requests end: in time, when they are cut off, and with a reason."""

from __future__ import annotations

import threading
import time

import pytest

from refinerl.engines.exchange import ExchangeError, Exchanges
from serving import Serving

JSON = {"Content-Type": "application/json"}


def test_an_answer_comes_back_whole():
    with Serving(lambda request: request.answer(b'{"echo": "' + request.body + b'"}', {"X-Kind": "echo"})) as url:
        answer = Exchanges().request("POST", f"{url}/a?b=c", body=b"hello", headers=JSON, seconds=10)
    assert (answer.status, answer.content, answer.headers["x-kind"]) == (200, b'{"echo": "hello"}', "echo")


@pytest.mark.parametrize("what", ["nothing", "drops of the body", "drops of the head"])
def test_a_deadline_is_for_the_whole_request(what):
    """A drop every 50 ms would keep a timeout of the socket alone from ever ending it."""

    def slow(request):
        if what == "drops of the body":
            request.begin(1000)
        for _ in range(200):
            if request.gone.wait(0.05):
                return
            if what != "nothing":
                request.send(b"x" if "body" in what else b"H")

    with Serving(slow) as url:
        started = time.monotonic()
        with pytest.raises(ExchangeError, match=r"^did not answer within 0.4 s$"):
            Exchanges().request("POST", url, body=b"", headers=JSON, seconds=0.4)
        assert time.monotonic() - started < 4


def test_another_thread_cuts_a_request_off():
    arrived, exchanges = threading.Event(), Exchanges()

    def silent(request):
        arrived.set()
        request.gone.wait(30)

    with Serving(silent) as url:
        failure: list[BaseException] = []

        def ask() -> None:
            try:
                exchanges.request("GET", url, headers=JSON, seconds=30)
            except ExchangeError as error:
                failure.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        assert arrived.wait(10)
        exchanges.abort()
        thread.join(10)
        assert not thread.is_alive()
        assert len(failure) == 1
        with pytest.raises(ExchangeError, match="was not asked any more"):
            exchanges.request("GET", url, headers=JSON, seconds=30)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "broke the connection off"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "broke the connection off"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "cannot be asked: SSH-2.0"),
    ],
)
def test_what_is_no_answer(raw, said):
    with Serving(lambda request: request.raw(raw)) as url, pytest.raises(ExchangeError, match=said):
        Exchanges().request("GET", url, headers=JSON, seconds=10)


def test_nobody_there():
    with Serving(lambda request: None) as url:
        pass
    with pytest.raises(ExchangeError, match="refused the connection"):
        Exchanges().request("GET", url, headers=JSON, seconds=10)
    with pytest.raises(ExchangeError, match=r"has no address|cannot be asked"):
        Exchanges().request("GET", "http://nowhere.invalid/v1", headers=JSON, seconds=10)
