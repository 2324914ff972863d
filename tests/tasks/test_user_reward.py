import asyncio
import itertools
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from refinerl.errors import UserError
from refinerl.records import Completion, Prompt, Reward
from refinerl.tasks.trl import NAMES
from refinerl.tasks.user_reward import UserReward, load_reward, user_rewards

PROMPTS = [
    Prompt("1", "Hi", ({"role": "user", "content": "Hi"},), (1, 2), None),
    Prompt("2", "Say yes", ({"role": "user", "content": "Say yes"},), (3,), None),
]
COMPLETIONS = [Completion((5, 6), (), "Hello", "stop"), Completion((7,), (), "yes", "length")]
ROWS: list[dict[str, Any]] = [{"answer": "Hello", "level": 1}, {"answer": "no"}]


def score(function: Callable[..., Any], rows: list[dict[str, Any]] = ROWS) -> list[Reward | None]:
    return user_rewards(UserReward(function), PROMPTS, COMPLETIONS, rows)


def returning(value: Any) -> Callable[..., Any]:
    return lambda completions: value


def test_arguments_are_trls() -> None:
    seen: dict[str, Any] = {}

    def reward(prompts: Any, completions: Any, completion_ids: Any, **columns: Any) -> list[float]:
        seen.update(columns, prompts=prompts, completions=completions, completion_ids=completion_ids)
        return [1.0, 2.0]

    assert score(reward) == [Reward(1.0, "scored"), Reward(2.0, "scored")]
    assert {"trainer_state", "log_extra", "log_metric"} <= seen.keys()
    assert {name: value for name, value in seen.items() if name not in NAMES} == {
        "prompts": [[{"role": "user", "content": "Hi"}], [{"role": "user", "content": "Say yes"}]],
        "completions": [[{"role": "assistant", "content": "Hello"}], [{"role": "assistant", "content": "yes"}]],
        "completion_ids": [[5, 6], [7]],
        "answer": ["Hello", "no"],
        "level": [1, None],
    }


def test_bare_text_prompts_come_as_texts() -> None:
    seen: list[Any] = []

    def reward(prompts: Any, completions: Any, **_: Any) -> list[float]:
        seen.extend([prompts, completions])
        return [0.0]

    user_rewards(
        UserReward(reward), [Prompt("1", "Once", (), (1,), None)], [Completion((2,), (), " upon", "stop")], [{}]
    )
    assert seen == [["Once"], [" upon"]]


def test_only_the_arguments_that_the_function_names() -> None:
    def by_answer(completions: Any, answer: Any) -> list[float]:
        return [float(c[0]["content"] == a) for c, a in zip(completions, answer, strict=True)]

    assert score(by_answer) == [Reward(1.0, "scored"), Reward(0.0, "scored")]


def test_positional_only_arguments_and_objects_that_are_called() -> None:
    class Scorer:
        def __call__(self, prompts: Any, completions: Any, /, *, level: Any) -> list[float]:
            return [len(p) + len(c) + (v or 0) for p, c, v in zip(prompts, completions, level, strict=True)]

    assert score(Scorer()) == [Reward(3.0, "scored"), Reward(2.0, "scored")]


def test_reserved_columns_are_not_passed() -> None:
    rows = [{"prompt": "a", "completion": "b", "completions": "c"}] * 2
    names: list[str] = []

    def reward(prompts: Any, completions: Any, completion_ids: Any, **columns: Any) -> list[float]:
        names.extend(columns)
        return [float(len(completions[0][0]["content"]))] * 2

    assert score(reward, rows) == [Reward(5.0, "scored")] * 2
    assert sorted(names) == sorted(NAMES)


async def slow(completions: Any) -> list[float | None]:
    await asyncio.sleep(0)
    return [1.5, None]


def test_async_functions() -> None:
    assert score(slow) == [Reward(1.5, "scored"), None]


def test_async_functions_inside_a_running_loop() -> None:
    async def notebook() -> list[Reward | None]:
        return score(slow)

    assert asyncio.run(notebook()) == [Reward(1.5, "scored"), None]


def test_async_failures_come_through_a_running_loop() -> None:
    async def broken(completions: Any) -> list[float]:
        raise LookupError("mine")

    async def notebook() -> list[Reward | None]:
        return score(broken)

    with pytest.raises(LookupError, match="mine"):
        asyncio.run(notebook())


@pytest.mark.parametrize(
    "values",
    [
        [1, 0.5],
        (1, 0.5),
        np.array([1.0, 0.5]),
        torch.tensor([1.0, 0.5]),
        [np.float32(1), torch.tensor(0.5)],
        [True, 0.5],
    ],
)
def test_numbers_of_every_kind(values: Any) -> None:
    rewards = score(returning(values))
    assert rewards == [Reward(1.0, "scored"), Reward(0.5, "scored")]
    assert all(reward is not None and type(reward.value) is float for reward in rewards)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1.0], "returned 1 values, not 2"),
        ([1.0, float("nan")], "returned nan for completion 1"),
        ([float("-inf"), 1.0], "returned -inf for completion 0"),
        ([1.0, "2"], "must return numbers or None, got '2' for completion 1"),
        ([[1.0], [2.0]], r"got \[1.0\] for completion 0"),
        (1.0, "must return a list of numbers, got 1.0"),
        ("12", "must return a list of numbers, got '12'"),
        ({"a": 1, "b": 2}, "must return a list of numbers"),
        (None, "must return a list of numbers, got None"),
        (itertools.repeat(1.0), "returned more than 2 values, not 2"),
        ([1.0, 10**400], "returned inf for completion 1"),
        ([1.0, -(10**400)], "returned -inf for completion 1"),
        ([1.0, np.array([1.0, 2.0])], r"must return numbers or None, got array\(\[1., 2.\]\) for completion 1"),
        ([1.0, torch.empty(1, device="meta")], r"must return numbers or None, got tensor\(.* for completion 1"),
        ("yes\n" * 10_000, r"must return a list of numbers, got 'yes\\nyes.{60,80}…$"),
    ],
)
def test_a_broken_contract_is_told(value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        score(returning(value))


def test_a_function_may_empty_its_lists() -> None:
    def empties(completions: list[Any], completion_ids: list[Any]) -> list[float]:
        completions.clear()
        completion_ids.clear()
        return [1.0, 0.5]

    assert score(empties) == [Reward(1.0, "scored"), Reward(0.5, "scored")]


def test_what_does_not_tell_its_arguments_is_refused() -> None:
    with pytest.raises(UserError, match="the reward function dict does not tell its arguments"):
        UserReward(dict)


def test_nothing_to_score_asks_nobody() -> None:
    def needs_a_column(completions: Any, answer: Any) -> list[float]:
        raise AssertionError("must not be called")

    assert user_rewards(UserReward(needs_a_column), [], [], []) == []


def test_the_functions_own_exception_comes_through() -> None:
    def broken(completions: Any) -> list[float]:
        raise ZeroDivisionError("in your code")

    with pytest.raises(ZeroDivisionError, match="in your code") as caught:
        score(broken)
    assert caught.traceback[-1].name == "broken"


def quits(completions: Any) -> list[float]:
    sys.exit(3)


async def cancels(completions: Any) -> list[float]:
    raise asyncio.CancelledError


@pytest.mark.parametrize(("reward", "raised"), [(quits, "SystemExit(3)"), (cancels, "CancelledError()")])
def test_an_exception_that_would_end_the_run_without_a_word_is_told(reward: Callable[..., Any], raised: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"it raised {raised}: raise another exception to end the run")):
        score(reward)


async def sleeps(completions: Any) -> list[float]:
    await asyncio.sleep(3600)
    return []


def counts(completions: Any) -> Iterator[float]:
    while True:
        pass
    yield 0.0


def waits_for_somebody(completions: Any) -> list[float]:
    raise TimeoutError


@pytest.mark.parametrize("hangs", [sleeps, counts])
def test_a_call_that_hangs_names_the_knob(hangs: Callable[..., Any]) -> None:
    told = (
        f"{hangs.__name__} took longer than task.reward_seconds = 0.1 on 2 completions: choose task.reward_seconds=0.2"
    )
    with pytest.raises(UserError, match=re.escape(told)):
        user_rewards(UserReward(hangs, seconds=0.1), PROMPTS, COMPLETIONS, ROWS)


def test_a_time_out_of_the_functions_own_comes_through() -> None:
    with pytest.raises(TimeoutError):
        user_rewards(UserReward(waits_for_somebody, seconds=60), PROMPTS, COMPLETIONS, ROWS)


def test_a_column_that_does_not_exist() -> None:
    def reward(completions: Any, anwser: Any, weight: float = 1.0) -> list[float]:
        return []

    with pytest.raises(UserError, match=r"reward needs 'anwser', but there is only prompts, .*, answer"):
        UserReward(reward).check(["answer", "prompt"])
    UserReward(reward).check(["anwser"])


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"rewards_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(
        "LIMIT = 3\n\ndef brevity(completions, **_):\n    return [-float(len(c[0]['content'])) for c in completions]\n"
        "\nclass Judge:\n    @staticmethod\n    def score(completions):\n        return [0.0 for _ in completions]\n"
    )
    (tmp_path / f"{name}_broken.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    for loaded in [key for key in sys.modules if key.startswith(name)]:
        del sys.modules[loaded]


def test_load_by_path(module: str) -> None:
    reward = load_reward(f"{module}:brevity")
    assert reward.name == f"{module}:brevity"
    assert user_rewards(reward, PROMPTS, COMPLETIONS, ROWS) == [Reward(-5.0, "scored"), Reward(-3.0, "scored")]
    assert user_rewards(load_reward(f"{module}:Judge.score"), PROMPTS, COMPLETIONS, ROWS)[0] == Reward(0.0, "scored")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("{module}", "must be given as module:function"),
        (":brevity", "must be given as module:function"),
        ("{module}:", "must be given as module:function"),
        ("{module}:brevty", "has no 'brevty'; closest: brevity"),
        ("{module}:Judge.scor", "has no 'Judge.scor'; closest: score"),
        ("{module}:LIMIT", "must be a function, got int"),
        ("no_such_module_of_mine:f", "there is no module 'no_such_module_of_mine'"),
        ("json.no_such_part:f", "there is no module 'json.no_such_part'"),
    ],
)
def test_paths_that_cannot_be_imported(module: str, path: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_reward(path.format(module=module))


def test_a_module_that_fails_inside_shows_its_own_error(module: str) -> None:
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        load_reward(f"{module}_broken:f")
