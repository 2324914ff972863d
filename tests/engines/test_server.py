"""A refiner behind a server: what is asked, what comes back, and how a bad server is borne."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from refinerl.engines.server import Limits, ServerAuthor
from refinerl.errors import TrainingStoppedError, UserError
from refinerl.records import Reply, Sampling
from serving import Request, Serving

QUICK = Limits(timeout=5.0, retries=0, concurrency=4, max_failures=100)
HELLO = [[{"role": "user", "content": "hello"}]]


def author(url: str, limits: Limits = QUICK, **options: Any) -> ServerAuthor:
    return ServerAuthor(url, count=len, limits=limits, **options)


def ask(author: ServerAuthor, count: int = 1, **options: Any) -> list[list[Reply | None]]:
    sampling = Sampling(8, temperature=0.5, **{"seeds": [[2**63 + i] for i in range(count)], **options})
    return author.reply(HELLO * count, sampling, [()] * count)


def test_what_is_asked_and_what_comes_back(monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    server = Serving(lambda r: r.reply("héllo \ud83d", "length", {"completion_tokens": 3, "prompt_tokens": 7}))
    with server as url:
        found = ask(author(f"{url}/v1/", key_variable="MY_KEY"), stop=("END",))
    assert found == [[Reply("héllo ?", "length", 3, 7)]]  # half a surrogate pair is no text
    (request,) = server.seen
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert request.headers["Authorization"] == "Bearer secret"
    assert request.json == {
        "model": "tiny",
        "messages": HELLO[0],
        "max_tokens": 8,
        "temperature": 0.5,
        "top_p": 1.0,
        "n": 1,
        "seed": 0,
        "stop": ["END"],
    }


def test_every_try_of_every_conversation_comes_back_in_its_place():
    def echo(request: Request) -> None:
        time.sleep(0.02 * (request.json["seed"] % 3))  # the first ones come last
        request.reply(f"{request.json['messages'][0]['content']}{request.json['seed']}")

    with Serving(echo) as url:
        found = author(url).reply(
            [[{"role": "user", "content": c}] for c in "ab"], Sampling(8, n=3, seeds=[[5, 4, 3], [2, 1, 0]]), [(), ()]
        )
    assert [[reply and reply.text for reply in row] for row in found] == [["a5", "a4", "a3"], ["b2", "b1", "b0"]]
    assert found[0][0] == Reply("a5", "stop", 2, 0)  # counted here, where the server says nothing


def test_no_more_requests_at_a_time_than_are_allowed():
    now, most, lock = 0, 0, threading.Lock()

    def count(request: Request) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.02)
        with lock:
            now -= 1
        request.reply("x")

    with Serving(count) as url:
        done: list[int] = []
        ask(author(url, progress=done.append), 12)
    assert 1 < most <= 4
    assert done == [8] * 12


BAD = {
    "HTML": (b"<!DOCTYPE html><html><body>Welcome</body></html>", "something that is no JSON: <!DOCTYPE html>"),
    "half a JSON": (b'{"choices": [{"message": {"content": "hel', "something that is no JSON"),
    "empty": (b"", "something that is no JSON"),
    "no object": (b"[1, 2]", "no choices where one was asked for"),
    "an error": (b'{"error": {"message": "overloaded"}}', "no choices where one was asked for"),
    "no choice": (b'{"choices": []}', "0 choices where one was asked for"),
    "two choices": (b'{"choices": [{}, {}]}', "2 choices where one was asked for"),
    "no message": (b'{"choices": [3]}', "without a text"),
    "null": (b'{"choices": [{"message": {"content": null}, "finish_reason": "stop"}]}', "without a text"),
    "a list": (b'{"choices": [{"message": {"content": [1]}, "finish_reason": "stop"}]}', "without a text"),
    "filtered": (b'{"choices": [{"message": {"content": ""}, "finish_reason": "content_filter"}]}', "content_filter"),
    "bytes": (b"\xff\xfe\x00", "something that is no JSON"),
    "deep": (b'{"choices":' + b"[" * 100_000, "something that is no JSON"),
    "long": (b" " * 300_000, "sent more than 257 KiB"),
}


@pytest.mark.parametrize(("content", "said"), BAD.values(), ids=BAD)
def test_bad_answers_leave_their_response_unrefined(content: bytes, said: str):
    lines: list[str] = []

    def act(request: Request) -> None:
        if request.json["seed"] == 1:
            request.answer(content)
        else:
            request.reply("fine")

    with Serving(act) as url:
        found = ask(author(url, say=lines.append), 3)
    assert [[reply and reply.text for reply in row] for row in found] == [["fine"], [None], ["fine"]]
    (line,) = lines
    assert "1 of 3 requests to the refiner's server failed" in line
    assert said in line


@pytest.mark.parametrize(
    "usage",
    [{"completion_tokens": "many"}, {"completion_tokens": -1}, {"prompt_tokens": None}, {"completion_tokens": 10**400}],
)
def test_odd_counts_of_tokens_are_counted_here(usage: Any):
    with Serving(lambda r: r.reply("four", usage=usage)) as url:
        assert ask(author(url)) == [[Reply("four", "stop", 4, 0)]]


def test_what_fails_for_a_moment_is_asked_again(monkeypatch):
    monkeypatch.setattr("refinerl.engines.server.FIRST_PAUSE", 0.01)
    states = iter([503, 429, 200])

    def act(request: Request) -> None:
        status = next(states)
        if status == 200:
            request.reply("at last")
        else:
            request.answer(b"", {"Retry-After": "0.05"}, status)

    server = Serving(act)
    with server as url:
        assert ask(author(url, Limits(retries=2)))[0][0] == Reply("at last", "stop", 7, 0)
    assert len(server.seen) == 3


@pytest.mark.parametrize("status", [400, 401, 404, 302])
def test_what_will_be_refused_again_is_not_asked_again(status: int):
    server = Serving(lambda r: r.answer(b'{"error": {"message": "too [long]"}}', status=status))
    lines: list[str] = []
    with server as url:
        assert ask(author(url, Limits(retries=3), say=lines.append)) == [[None]]
    assert len(server.seen) == 1
    assert f"answered with status {status}: too (long)" in lines[0]


def test_a_server_that_never_answers_ends_the_run_in_a_sentence():
    limits = Limits(timeout=0.3, retries=0, concurrency=4, max_failures=6)
    server = Serving(lambda r: r.gone.wait(60))
    with server as url:
        one = author(url, limits)
        assert ask(one, 3) == [[None]] * 3  # a step goes on
        started = time.monotonic()
        with pytest.raises(TrainingStoppedError, match=r"failed 6 requests in a row: the last time it did not answer"):
            ask(one, 50)
        assert time.monotonic() - started < 5
    assert len(server.seen) < 20  # the rest was not asked any more


def test_a_good_answer_in_between_starts_the_count_anew():
    good = iter([False, False, True] * 20)
    limits = Limits(retries=0, concurrency=1, max_failures=3)
    with Serving(lambda r: r.reply("fine") if next(good) else r.answer(b"{")) as url:
        found = ask(author(url, limits), 30)
    assert sum(row[0] is not None for row in found) == 10


def test_a_server_that_is_gone_ends_the_run_after_so_many():
    with Serving(lambda r: r.reply("x")) as url:
        one = author(url, Limits(retries=0, max_failures=3))
    with pytest.raises(TrainingStoppedError, match="refused the connection; start it anew and go on with --resume"):
        ask(one, 5)


def test_nothing_to_ask():
    with Serving(lambda r: r.reply("x")) as url:
        assert author(url).reply([], Sampling(8), []) == []


@pytest.mark.parametrize(
    ("models", "path", "said"),
    [
        (("a", "b"), "/v1", r"refiner.model=tiny is not served at http://.*/v1, which has a, b: choose one of these"),
        ((), "/v1", r"lists no model \(status 200\), so this is no OpenAI-compatible server"),
        (None, "", r"lists no model \(status 404\)"),
    ],
)
def test_another_server_is_refused_at_once(models: Any, path: str, said: str):
    with Serving(lambda r: r.answer(b"<html>", status=404), models) as url, pytest.raises(UserError, match=said):
        author(f"{url}{path}", model="tiny")


def test_a_server_that_is_not_there_or_wants_a_key_is_refused_at_once(monkeypatch):
    said = r"refuses the key .status 401.*refiner.api_key_env"
    with Serving(lambda r: r.answer(b"", status=401), None) as url, pytest.raises(UserError, match=said):
        author(url)
    with pytest.raises(UserError, match="the server refused the connection; start it first"):
        author(url)
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(UserError, match=r"refiner.api_key_env=MY_KEY: there is no such variable"):
        author(url, key_variable="MY_KEY")


def test_a_list_of_models_that_is_nested_without_end_is_none():
    with (
        Serving(lambda r: r.answer(b"[" * 100_000), None) as url,
        pytest.raises(UserError, match="lists no model"),
    ):
        author(url)


@pytest.mark.parametrize("key", ["sec\nret", "sec\x7fret", "ключ"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(monkeypatch, key: str):
    monkeypatch.setenv("MY_KEY", key)
    with pytest.raises(UserError, match=r"^refiner.api_key_env=MY_KEY: the key .* must be one line of ASCII") as error:
        author("http://127.0.0.1:9/v1", key_variable="MY_KEY")
    assert not any(part in str(error.value) for part in ("sec", "ret", "ключ"))
