"""Reward functions of the user's, by import path, in TRL's signature.

    def reward(prompts, completions, completion_ids, **columns) -> list[float | None]

Each prompt is a list of messages, and each completion is `[{"role": "assistant", "content": text}]`; if the model is
prompted with bare text, both are strings. `columns` are the data set's other columns, each a list as long as
`completions`, and what `tasks/trl.py` describes. None means that the reward does not apply: the sample is masked. The
function may be async, and it need accept only the arguments that it uses.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import math
import numbers
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

from refinerl.contracts.plugins import load
from refinerl.errors import UserError
from refinerl.records import Completion, Prompt, Reward
from refinerl.tasks.time_limit import TooLongError, within
from refinerl.tasks.trl import NAMES, Log, Progress

_OURS = ("prompts", "completions", "completion_ids", *NAMES)
_MISSPELT = "completions_ids"
"""`completion_ids`, as examples in TRL's documentation call it."""
_RESERVED = {"prompt", "completion", *_OURS}
"""Columns that TRL does not pass on, or that would clash with its own arguments."""


class UserReward:
    """A user's reward function, and its name in messages.

    Args:
        function: the function, in TRL's signature.
        name: its name in messages; None: the function's own.
        seconds: time limit for each call.
        exits: end the process if a call that exceeded the limit cannot be interrupted, such as native code that never
            returns; otherwise the call continues.
        progress: the course of the run, for `trainer_state`.

    >>> def brevity(completions, **columns):
    ...     return [-len(text) for text in completions]
    >>> UserReward(brevity)(["Hi"], ["Hello"], [[1, 2]], columns={})
    [-5.0]
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str | None = None,
        *,
        seconds: float = math.inf,
        exits: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self.progress = progress or Progress()
        self.name = str(name or getattr(function, "__name__", type(function).__name__))
        self.seconds = seconds
        self._exits = exits
        self._function = function
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except ValueError:  # a type or function of C that does not tell its arguments
            raise UserError(
                f"the reward function {self.name} does not tell its arguments: wrap it in a function of Python's"
            ) from None
        self._positional = [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY]
        self._named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        self._required = [p.name for p in parameters if p.default is p.empty and p.kind not in _VARIADIC]
        self._takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)

    def check(self, columns: Collection[str], rows: Iterable[tuple[str, Mapping[str, Any]]] = ()) -> None:
        """Check that the data have every argument that the function requires.

        Args:
            columns: the names of the data's columns.
            rows: the name and the columns of each row, for a reward that checks their values.

        Raises:
            UserError: they lack one.
        """
        known = [*_OURS, *(column for column in columns if column not in _RESERVED)]
        for name in self._required:
            if name not in (*known, _MISSPELT):
                raise UserError(f"the reward function {self.name} needs {name!r}, but there is only {', '.join(known)}")

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        columns: Mapping[str, Sequence[Any]],
        log: Log | None = None,
    ) -> list[float | None]:
        """Call the function as TRL does. An exception in the function itself is not caught.

        Args:
            prompts: texts, or lists of messages.
            completions: texts, or lists of one message each.
            completion_ids: the tokens of each.
            columns: the columns of the data, each with a value for each completion.
            log: receives what the function logs; None: nobody reads it.

        Raises:
            UserError: the function took too long or ended the program; it did not return a list of numbers and None as
                long as `completions`; a number is not finite; or what it logged is not one value for each completion.
        """
        expected = len(completions)  # the function may change its lists
        log = log or Log(self.name, expected)
        lacking = [name for name in self._required if name not in (*_OURS, _MISSPELT)]  # no row here has the column
        given: dict[str, Any] = {name: [None] * expected for name in lacking}
        given |= {name: list(column) for name, column in columns.items() if name not in _RESERVED}
        given |= {"prompts": prompts, "completions": completions, "completion_ids": completion_ids}
        given |= {"log_extra": log.log_extra, "log_metric": log.log_metric}
        if _MISSPELT in self._named:
            given.setdefault(_MISSPELT, completion_ids)
        if self._takes_all or "trainer_state" in (*self._named, *self._positional):
            given["trainer_state"] = self.progress.trainer_state
        positional = [given.pop(name) for name in self._positional if name in given]
        keywords = given if self._takes_all else {name: given[name] for name in given.keys() & self._named}

        def call() -> list[float | None]:
            result = self._function(*positional, **keywords)
            return self._checked(_wait(result) if inspect.isawaitable(result) else result, expected)

        try:
            if math.isinf(self.seconds):
                return call()
            return within(self.seconds, call, self._exit if self._exits else None)
        except TooLongError:
            raise UserError(self._too_long(f" on {expected} completions")) from None
        except (SystemExit, asyncio.CancelledError) as error:
            raise UserError(
                f"the reward function {self.name} must return a list of numbers, and it raised {error!r}: raise "
                "another exception to end the run, or return None where the reward does not apply"
            ) from error

    def telemetry(self) -> Mapping[str, float]:
        """Return metrics collected since the last call: none."""
        return {}

    def close(self) -> None:
        """Release what the reward holds: nothing."""

    def _too_long(self, where: str = "") -> str:
        return (
            f"the reward function {self.name} took longer than task.reward_seconds = {self.seconds:g}{where}: choose "
            f"task.reward_seconds={2 * self.seconds:g} if it may take so long, else see where it waits"
        )

    def _exit(self) -> None:
        print(f"error: {self._too_long()} (it could not be interrupted)", file=sys.stderr, flush=True)
        os._exit(2)

    def _checked(self, result: Any, expected: int) -> list[float | None]:
        values = result.tolist() if hasattr(result, "tolist") else result
        if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
            raise UserError(f"the reward function {self.name} must return a list of numbers, got {_shown(result)}")
        sized = isinstance(values, Sized)
        values = list(values if sized else itertools.islice(values, expected + 1))  # an iterator may have no end
        if len(values) != expected:
            count = len(values) if sized or len(values) < expected else f"more than {expected}"
            raise UserError(f"the reward function {self.name} returned {count} values, not {expected}")
        return [self._number(index, value) for index, value in enumerate(values)]

    def _number(self, index: int, value: Any) -> float | None:
        if value is None:
            return None
        given = value
        with contextlib.suppress(ValueError, RuntimeError):  # of several elements it is no number
            if hasattr(value, "item"):  # a number of NumPy's or PyTorch's
                value = value.item()
        if not isinstance(value, numbers.Real):
            raise UserError(
                f"the reward function {self.name} must return numbers or None, got {_shown(given)} for "
                f"completion {index}"
            )
        try:
            number = float(value)
        except OverflowError:  # an int beyond the largest float
            number = math.inf if value == abs(value) else -math.inf
        if not math.isfinite(number):
            raise UserError(
                f"the reward function {self.name} returned {number} for completion {index}; "
                "return None where the reward does not apply"
            )
        return number


def _shown(value: Any) -> str:
    """Format a value for a message of one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:80]}…"


_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def load_reward(
    path: str, *, seconds: float = math.inf, exits: bool = False, progress: Progress | None = None
) -> UserReward:
    """Load the function at `module:function`; `function` may be dotted (`module:Class.method`).

    The other arguments are those of `UserReward`.

    Raises:
        UserError: the path has another form, the module does not exist, or it has no such function. An exception
            in the module itself is not caught.
    """
    found = load(path, "task.reward", "module:function")
    if not callable(found):
        raise UserError(f"task.reward={path} must be a function, got {type(found).__name__}")
    return UserReward(found, path, seconds=seconds, exits=exits, progress=progress)


@dataclass(frozen=True)
class Scored:
    """The values of a reward function for some completions, and what it logged."""

    values: list[float | None]
    columns: Sequence[Mapping[str, Any]]
    """For each completion, the values that `log_extra` kept, by column."""
    metrics: Mapping[str, float]
    """The numbers that `log_metric` kept, by name."""


def scored(
    function: UserReward,
    prompts: Sequence[Prompt],
    completions: Sequence[Completion],
    rows: Sequence[Mapping[str, Any]],
) -> Scored:
    """Score completions with the user's function.

    Args:
        function: the function.
        prompts: one for each completion.
        completions: at least one.
        rows: the data set's columns for each completion; a column that a row lacks is None there.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    log = Log(function.name, len(completions))
    values = function(
        [_as_trl(prompt) for prompt in prompts],
        [
            [{"role": "assistant", "content": completion.text}] if prompt.messages else completion.text
            for prompt, completion in zip(prompts, completions, strict=True)
        ],
        [list(completion.token_ids) for completion in completions],
        {name: [row.get(name) for row in rows] for name in names},
        log,
    )
    return Scored(values, log.columns, log.metrics)


def user_rewards(
    function: UserReward,
    prompts: Sequence[Prompt],
    completions: Sequence[Completion],
    rows: Sequence[Mapping[str, Any]],
) -> list[Reward | None]:
    """Return the rewards that the user's function gives, as in `scored`; [] without completions."""
    if not completions:
        return []
    found = scored(function, prompts, completions, rows)
    return [
        None if value is None else Reward(value, "scored", extra=extra, logged=found.metrics)
        for value, extra in zip(found.values, found.columns, strict=True)
    ]


def _as_trl(prompt: Prompt) -> str | list[dict[str, str]]:
    return [dict(message) for message in prompt.messages] if prompt.messages else prompt.text


def _wait(awaitable: Awaitable[Any]) -> Any:
    """Wait for an async function, also inside a running event loop, as in a notebook."""

    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any] | None]] = []
    interrupted = threading.Event()

    async def result() -> Any:
        running.append((asyncio.get_running_loop(), asyncio.current_task()))
        if interrupted.is_set():
            raise asyncio.CancelledError
        return await awaitable

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(result())
    outcome: list[Any] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(asyncio.run(result()))
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, daemon=True)
    try:
        thread.start()
        thread.join()
    except BaseException:  # interrupts reach the main thread only; the function's thread would continue
        interrupted.set()
        for loop, task in running:
            if task is not None:
                with contextlib.suppress(RuntimeError):  # the loop has already ended
                    loop.call_soon_threadsafe(task.cancel)
        raise
    if failure:
        raise failure[0]
    return outcome[0]
