"""A refiner behind an OpenAI-compatible server, such as vLLM's: chat messages go there, texts come back.

A server may die, hang or answer nonsense. A request that fails is repeated and then given
up, so that its y stays unrefined; a run ends only after many of them in a row, and it never waits without a limit.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

from refinerl.engines.exchange import Answer, ExchangeError, Exchanges
from refinerl.errors import TrainingStoppedError, UserError
from refinerl.records import FinishReason, Message, Reply, Sampling

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a request is repeated: the first time, doubled from then on, and at most."""
WORTH_REPEATING = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Limits:
    """Limits of time and number for the requests to a server."""

    timeout: float = 120.0
    """Seconds of one request, from the connection to the last byte."""
    retries: int = 2
    """Repetitions of a request that failed, with pauses that double."""
    concurrency: int = 16
    """Requests in flight; the others wait here."""
    max_failures: int = 16
    """Requests in a row that failed for good and end the run."""


class ServerAuthor:
    """Replies of a chat model behind a URL; a `refinerl.contracts.Author`.

    Args:
        url: up to and including the version, such as `http://localhost:8000/v1`.
        model: the name that the server knows it by; None: the first that it lists.
        key_variable: the environment variable that holds the server's key; None: it wants none.
        count: counts the tokens of a text, where the server does not say how many it wrote.
        limits: of time and number, for its requests.
        progress: called with the tokens that are done, as `TransformersGenerator`'s.
        say: shows a line: requests that failed.

    Raises:
        UserError: the server cannot be reached, does not know the model, or the variable is not set.
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
            key = os.environ.get(key_variable, "")
            if not key.strip():
                raise UserError(
                    f"refiner.api_key_env={key_variable}: there is no such variable in the environment, or it is "
                    f"empty; export {key_variable}=…, or leave the knob out where the server wants no key"
                )
            self._headers["Authorization"] = f"Bearer {key.strip()}"
        self.model = self._known_model(model)
        self._failed_in_a_row = 0
        self._lock = threading.Lock()

    def reply(
        self, conversations: Sequence[Sequence[Message]], sampling: Sampling, drafts: Sequence[Sequence[int]]
    ) -> list[list[Reply | None]]:
        """`sampling.n` replies to each conversation, in order; None in the place of one that did not come.

        Raises:
            TrainingStoppedError: so many requests failed in a row that the server counts as gone.
        """
        exchanges, stopped = Exchanges(), threading.Event()
        seeds = sampling.seeds or [[0] * sampling.n] * len(conversations)
        found: list[list[Reply | None]] = [[None] * sampling.n for _ in conversations]
        failed: list[str] = []
        pool = ThreadPoolExecutor(max_workers=self.limits.concurrency, thread_name_prefix="refiner")
        try:
            jobs: dict[Future[Reply], tuple[int, int]] = {}
            for i, conversation in enumerate(conversations):
                for j in range(sampling.n):
                    body = self._body(conversation, sampling, seeds[i][j])
                    jobs[pool.submit(self._ask, exchanges, stopped, body)] = (i, j)
            for done in as_completed(jobs):
                i, j = jobs[done]
                try:
                    found[i][j] = done.result()
                    self._failed_in_a_row = 0
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
                f"[yellow]{len(failed)} of {len(jobs)} requests to the refiner's server failed, and their responses "
                f"stay as they are: the last time it {failed[-1]}[/]"
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
            "seed": seed % 2**31,  # ours have 64 bits, which some servers refuse
        }
        if sampling.stop:
            asked["stop"] = list(sampling.stop)
        return json.dumps(asked).encode()

    def _ask(self, exchanges: Exchanges, stopped: threading.Event, body: bytes) -> Reply:
        """One reply; a request that failed is repeated after a pause, which the server may name.

        Raises:
            ExchangeError: it failed for good.
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
        """The model's name, checked against the server's list.

        Raises:
            UserError: the server does not answer as such a server does, or has no such model.
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
                f"refiner.url={self.url}: the server refuses the key (status {answer.status}): put it into an "
                "environment variable and name that one in refiner.api_key_env"
            )
        try:
            names = [str(row["id"]) for row in json.loads(answer.content)["data"]] if answer.status == 200 else []
        except (ValueError, KeyError, TypeError):
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
    """The same request would be refused again."""


def _reply(content: bytes, count: Callable[[str], int]) -> Reply:
    """The one reply in an answer.

    Raises:
        ExchangeError: the answer is not one of a chat completion.
    """
    try:
        answer = json.loads(content)
    except ValueError as error:
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
    text = text.encode("utf-8", "replace").decode()  # JSON may hold half a surrogate pair, which no tokenizer takes
    usage = answer.get("usage")
    written, read = ((usage.get(name) if isinstance(usage, dict) else None) for name in _USAGE)
    reason: FinishReason = "length" if ended == "length" else "stop"
    return Reply(
        text,
        reason,
        written if isinstance(written, int) and written >= 0 else count(text),
        read if isinstance(read, int) and read >= 0 else 0,
    )


_USAGE = ("completion_tokens", "prompt_tokens")


def _words(content: bytes) -> str:
    """The beginning of an answer that is not as it should be, for a message."""
    text = content[:2000].decode("utf-8", "replace")
    try:
        answer = json.loads(content)
        inner = answer.get("error", answer)
        text = str(inner.get("message", inner)) if isinstance(inner, dict) else str(inner)
    except (ValueError, AttributeError):
        pass
    text = " ".join(text.split()).replace("[", "(").replace("]", ")")  # brackets are markup where it is shown
    return f": {text[:160]}" if text else ""


def _retry_after(answer: Answer) -> float:
    try:
        return max(float(answer.headers.get("retry-after", "0")), 0.0)
    except ValueError:  # a date
        return 0.0
