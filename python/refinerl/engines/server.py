"""Client of a refiner behind an OpenAI-compatible server, such as vLLM's: it sends chat messages and gets texts.

A server may die, hang or return nonsense. A request that fails is retried. If all retries fail, its y stays unrefined.
The run ends only after many such requests in a row. Every wait has a limit.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, TypeGuard

from refinerl.contracts import Arrived
from refinerl.engines.exchange import Answer, ExchangeError, Exchanges
from refinerl.errors import TrainingStoppedError, UserError
from refinerl.records import FinishReason, Message, Reply, Sampling

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before the first retry of a request, doubled for each further one, and the maximum."""
HEAD_BYTES, TOKEN_BYTES = 2**18, 128
"""Largest response body: so many bytes, and so many more for each token that was asked for."""
WORTH_REPEATING = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Limits:
    """Timeout, retries, concurrency and tolerated failures of the requests to a server."""

    timeout: float = 120.0
    """Seconds that one request may take, from connecting to the last byte."""
    retries: int = 2
    """Number of retries of a failed request; the pause before each is twice as long as the one before."""
    concurrency: int = 16
    """Most requests in flight; further ones are queued in this process."""
    max_failures: int = 16
    """Number of requests in a row that may fail after all retries; this many end the run."""


class ServerAuthor:
    """A chat model behind a URL as a `refinerl.contracts.Author`.

    Args:
        url: the API's base URL, including the version, such as `http://localhost:8000/v1`.
        model: the model's name on the server; None: the first model that the server lists.
        key_variable: name of the environment variable that holds the API key; None if the server needs no key.
        count: counts the tokens of a text; used if the server does not report how many it generated.
        limits: limits for the requests.
        progress: called with the number of tokens that are done, as in `TransformersGenerator`.
        say: prints a line about failed requests.

    Raises:
        UserError: the server cannot be reached or does not have the model, or the variable is not set.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        key_variable: str | None = None,
        count: Callable[[str], int],
        limits: Limits = Limits(),
        progress: Callable[[int], None] = lambda _: None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.url = url.rstrip("/")
        self.limits = limits
        self._count, self._progress, self._say = count, progress, say
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key_variable is not None:
            key = os.environ.get(key_variable, "").strip()
            if not key:
                raise UserError(
                    f"refiner.api_key_env={key_variable}: there is no such variable in the environment, or it is "
                    f"empty; export {key_variable}=…, or leave the knob out if the server needs no key"
                )
            if not (key.isascii() and key.isprintable()):  # http.client would quote the key in its message
                raise UserError(
                    f"refiner.api_key_env={key_variable}: the key in this variable must be one line of ASCII characters"
                )
            self._headers["Authorization"] = f"Bearer {key}"
        self.model = self._known_model(model)
        self._failed_in_a_row = 0
        self._lock = threading.Lock()

    decoded = None

    def reply(
        self,
        conversations: Sequence[Sequence[Message]],
        sampling: Sampling,
        drafts: Sequence[Sequence[int]],
        arrived: Arrived | None = None,
    ) -> list[list[Reply | None]]:
        """Request `sampling.n` replies to each conversation; return them in order, None for each failed request.

        Raises:
            TrainingStoppedError: `limits.max_failures` requests in a row failed.
        """
        exchanges, stopped = Exchanges(), threading.Event()
        most_bytes = HEAD_BYTES + TOKEN_BYTES * sampling.max_tokens
        seeds = sampling.seeds or [[0] * sampling.n] * len(conversations)
        found: list[list[Reply | None]] = [[None] * sampling.n for _ in conversations]
        failed: list[str] = []
        pool = ThreadPoolExecutor(max_workers=self.limits.concurrency, thread_name_prefix="refiner")
        try:
            jobs: dict[Future[Reply], tuple[int, int]] = {}
            for i, conversation in enumerate(conversations):
                for j in range(sampling.n):
                    body = self._body(conversation, sampling, seeds[i][j])
                    jobs[pool.submit(self._ask, exchanges, stopped, body, most_bytes)] = (i, j)
            for done in as_completed(jobs):
                i, j = jobs[done]
                try:
                    found[i][j] = reply = done.result()
                    self._failed_in_a_row = 0
                    if arrived is not None:
                        arrived(i, j, reply)
                except ExchangeError as error:
                    failed.append(str(error))
                    self._failed_in_a_row += 1
                self._progress(sampling.max_tokens)
                if self._failed_in_a_row >= self.limits.max_failures:
                    raise TrainingStoppedError(
                        f"the refiner's server {self.url} failed {self._failed_in_a_row} requests in a row: the last "
                        f"time it {failed[-1]}; start it anew and go on with --resume, or raise refiner.max_failures"
                    )
        finally:
            stopped.set()
            exchanges.abort()
            pool.shutdown(wait=True, cancel_futures=True)
        if failed:
            self._say(
                f"warning: {len(failed)} of {len(jobs)} requests to the refiner's server failed, so their responses "
                f"stay unrefined: the last time it {failed[-1]}"
            )
        return found

    def _body(self, conversation: Sequence[Message], sampling: Sampling, seed: int) -> bytes:
        asked: dict[str, Any] = {
            "model": self.model,
            "messages": [dict(message) for message in conversation],
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "n": 1,
            "seed": seed % 2**31,  # our seeds have 64 bits, which some servers refuse
        }
        if sampling.stop:
            asked["stop"] = list(sampling.stop)
        return json.dumps(asked).encode()

    def _ask(self, exchanges: Exchanges, stopped: threading.Event, body: bytes, most_bytes: int) -> Reply:
        """Request one reply; retry after a pause, for which the server's `Retry-After` header counts if it is longer.

        Raises:
            ExchangeError: the request failed after all retries, or with a status that is not worth a retry.
        """
        pause = FIRST_PAUSE
        for attempt in range(self.limits.retries + 1):
            wait = pause
            try:
                answer = exchanges.request(
                    "POST",
                    f"{self.url}/chat/completions",
                    body=body,
                    headers=self._headers,
                    seconds=self.limits.timeout,
                    most_bytes=most_bytes,
                )
                if answer.status == 200:
                    return _reply(answer.content, self._count)
                said = f"answered with status {answer.status}{_words(answer.content)}"
                if answer.status not in WORTH_REPEATING:
                    raise _RefusedError(said)
                wait = max(pause, _retry_after(answer))
                raise ExchangeError(said)
            except ExchangeError as error:
                if isinstance(error, _RefusedError) or attempt == self.limits.retries:
                    raise
            if stopped.wait(min(wait, LONGEST_PAUSE)):
                raise ExchangeError("was not asked any more")
            pause *= 2
        raise AssertionError("a loop of at least one attempt returns or raises")

    def _known_model(self, model: str | None) -> str:
        """Return the model's name after checking it against the server's list.

        Raises:
            UserError: the server does not answer like an OpenAI-compatible one, refuses the key, or lacks the model.
        """
        seconds = min(self.limits.timeout, 30.0)
        try:
            answer = Exchanges().request("GET", f"{self.url}/models", headers=self._headers, seconds=seconds)
        except ExchangeError as error:
            raise UserError(
                f"refiner.url={self.url}: the server {error}; start it first, for instance with `vllm serve MODEL`"
            ) from error
        if answer.status in (401, 403):
            raise UserError(
                f"refiner.url={self.url}: the server refuses the key (status {answer.status}): put a valid key "
                "into an environment variable and name the variable in refiner.api_key_env"
            )
        try:
            names = [str(row["id"]) for row in json.loads(answer.content)["data"]] if answer.status == 200 else []
        except (ValueError, KeyError, TypeError, RecursionError):
            names = []
        if not names:
            raise UserError(
                f"refiner.url={self.url}: {self.url}/models lists no model (status {answer.status}), so this is no "
                "OpenAI-compatible server; its URL ends in the version, as in http://localhost:8000/v1"
            )
        if model is not None and model not in names:
            raise UserError(
                f"refiner.model={model} is not served at {self.url}, which has {', '.join(names[:5])}: choose one of "
                "these"
            )
        return names[0] if model is None else model


class _RefusedError(ExchangeError):
    """The server refused the request, and would refuse it again."""


def _reply(content: bytes, count: Callable[[str], int]) -> Reply:
    """Parse a chat completion with one choice.

    Raises:
        ExchangeError: the body is not such a completion.
    """
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ExchangeError(f"answered with something that is no JSON{_words(content)}") from error
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or len(choices) != 1:
        many = f"{len(choices)} choices" if isinstance(choices, list) else "no choices"
        raise ExchangeError(f"answered with {many} where one was asked for")
    choice = choices[0] if isinstance(choices[0], dict) else {}
    message, ended = choice.get("message"), choice.get("finish_reason")
    text = message.get("content") if isinstance(message, dict) else None
    if not isinstance(text, str) or ended not in ("stop", "length", None):
        raise ExchangeError(f"answered without a text (finish_reason {ended!r:.40})")
    text = text.encode("utf-8", "replace").decode()  # JSON may hold a lone surrogate, which no tokenizer accepts
    usage = answer.get("usage")
    written, read = ((usage.get(name) if isinstance(usage, dict) else None) for name in _USAGE)
    reason: FinishReason = "length" if ended == "length" else "stop"
    return Reply(text, reason, written if _is_count(written) else count(text), read if _is_count(read) else 0)


_USAGE = ("completion_tokens", "prompt_tokens")


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and 0 <= value < 2**31


def _words(content: bytes) -> str:
    """Return the beginning of an unexpected response body, or of the error message in it, for our own message."""
    text = content[:2000].decode("utf-8", "replace")
    try:
        answer = json.loads(content)
        inner = answer.get("error", answer)
        text = str(inner.get("message", inner)) if isinstance(inner, dict) else str(inner)
    except (ValueError, AttributeError, RecursionError):
        pass
    text = " ".join(text.split()).replace("[", "(").replace("]", ")")  # rich would read square brackets as markup
    return f": {text[:160]}" if text else ""


def _retry_after(answer: Answer) -> float:
    try:
        return max(float(answer.headers.get("retry-after", "0")), 0.0)
    except ValueError:  # a date
        return 0.0
